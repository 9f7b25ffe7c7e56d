"""Makes the images of the comparison from Debian's busybox-static and from the example service, and pushes them to the
folder that both registries serve."""

import hashlib
import io
import json
import subprocess
import tarfile

from engines import CACHE, REPOSITORY, SetupError, run

EPOCH = 1767225600
SHELL_IMAGE = "conformance/box"
# Answers every request on port 9005 and honours SIGTERM.
SERVICE = "#!/bin/sh\ntrap 'exit 0' TERM\nhttpd -f -p 9005 -h /www &\nwait\n"


def digest(data):
    return hashlib.sha256(data).hexdigest()


def add(archive, name, data=None, mode=0o755, link=None):
    """Adds one entry with fixed times to a tar archive: a folder (no data), a file, or a link."""
    entry = tarfile.TarInfo(name)
    entry.mtime = EPOCH
    entry.mode = mode
    if link is not None:
        entry.type, entry.linkname = tarfile.SYMTYPE, link
        archive.addfile(entry)
    elif data is None:
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    else:
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))


def root_layer(busybox):
    """The only layer: busybox under its usual names, users, and the service."""
    result = io.BytesIO()
    with tarfile.open(fileobj=result, mode="w") as archive:
        for folder in ("bin", "dev", "etc", "proc", "sys", "www", "data"):
            add(archive, folder)
        add(archive, "tmp", mode=0o1777)
        add(archive, "bin/busybox", busybox.read_bytes())
        for applet in run(busybox, "--list").split():
            if applet != "busybox":
                add(archive, f"bin/{applet}", link="/bin/busybox")
        add(archive, "bin/serve", SERVICE.encode())
        add(archive, "www/index.html", b"here\n", 0o644)
        add(archive, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\nweb:x:1000:1000:web:/:/bin/sh\n", 0o644)
        add(archive, "etc/group", b"root:x:0:\nweb:x:1000:\n", 0o644)
    return result.getvalue()


def shell_archive(busybox, output):
    """Writes a docker archive of the shell image, byte for byte the same each time."""
    layer = root_layer(busybox)
    created = "2026-01-01T00:00:00Z"
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "created": created,
        "config": {"Env": ["PATH=/bin", "COLOUR=blue"], "Cmd": ["serve"], "WorkingDir": "/", "Labels": {"made": "here"},
                   "ExposedPorts": {"9005/tcp": {}}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(layer)}"]},
        "history": [{"created": created, "created_by": "conformance"}],
    }).encode()
    manifest = [{"Config": f"{digest(config)}.json", "RepoTags": [f"{SHELL_IMAGE}:1"], "Layers": [f"{digest(layer)}.tar"]}]
    with tarfile.open(output, "w") as archive:
        add(archive, f"{digest(config)}.json", config, 0o644)
        add(archive, f"{digest(layer)}.tar", layer, 0o644)
        add(archive, "manifest.json", json.dumps(manifest).encode(), 0o644)


def image_archives(root):
    """Makes both archives once. Returns {name in the registry: archive}."""
    shell = CACHE / "box.tar"
    service = CACHE / "dummy.tar"
    if not shell.exists():
        shell_archive(root / "bin" / "busybox", shell)
    if not service.exists():
        run(REPOSITORY / "examples" / "dummy-service-py" / "build-image", service, "agrrh/dummy-service-py:latest")
    return {f"{SHELL_IMAGE}:1": shell, f"{SHELL_IMAGE}:2": shell, "agrrh/dummy-service-py:latest": service}


def fill_registry(engine, archives):
    """Pushes the archives to the registry that runs in an engine's namespaces."""
    for name, archive in archives.items():
        pushed = subprocess.run(
            engine.enter(engine.program("skopeo"), "--insecure-policy", "copy", "-q", "--dest-tls-verify=false",
                         f"docker-archive:{archive}", f"docker://127.0.0.1:5000/{name}"),
            capture_output=True, text=True, env=engine.environment)
        if pushed.returncode != 0:
            raise SetupError(f"pushing {name}: {pushed.stderr}")

