"""Create + start + delete by the command line of an OCI runtime, on one bundle, in turns between the runtimes."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from .engine import engines

CAPABILITIES = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"]
REFUSED_CALLS = ["acct", "bpf", "kexec_load", "mount", "umount2", "swapon", "reboot", "keyctl", "unshare"]


def bundle(folder, busybox):
    """Writes a bundle: own namespaces, a cgroup, a seccomp filter, masked paths; the program sleeps."""
    rootfs = folder / "rootfs"
    for name in ("bin", "proc", "dev", "sys", "etc"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(busybox, rootfs / "bin" / "busybox")
    (folder / "config.json").write_text(json.dumps({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {
            "args": ["/bin/busybox", "sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
            "capabilities": {kind: CAPABILITIES for kind in ("bounding", "permitted", "effective")},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("mount", "network", "uts", "pid", "ipc")],
            "cgroupsPath": f"/bench-{os.getpid()}-runtime/x",
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/scsi"],
            "readonlyPaths": ["/proc/sys"],
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": REFUSED_CALLS, "action": "SCMP_ACT_ERRNO"}]},
        },
    }))


def life(command, folder):
    """Seconds of one create + start + delete --force."""
    begun = time.monotonic()
    for arguments in (["create", "--bundle", str(folder), "x"], ["start", "x"], ["delete", "--force", "x"]):
        subprocess.run([*command, "--root", str(folder / "state"), *arguments], stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=60)
    return time.monotonic() - begun


def compare(runtimes, busybox, runs):
    """{name: seconds of each run} for {name: command}."""
    times = {name: [] for name in runtimes}
    with tempfile.TemporaryDirectory(prefix="bench-runtime-") as created:
        for name in runtimes:
            bundle(Path(created) / name, busybox)
        try:
            for _ in range(runs):
                for name, command in runtimes.items():
                    times[name].append(life(command, Path(created) / name))
        finally:
            for name, command in runtimes.items():
                subprocess.run([*command, "--root", str(Path(created) / name / "state"), "delete", "--force", "x"], capture_output=True)
            remove_cgroups(f"bench-{os.getpid()}-runtime")
    return times


def remove_cgroups(name):
    """The runtimes remove their own cgroup, not its parent."""
    for top in Path("/sys/fs/cgroup").glob(f"*/{name}"):
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(folder)
            except OSError as error:
                raise engines.SetupError(f"{folder}: {error}") from error
