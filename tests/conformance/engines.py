"""Starts the two engines of the comparison, each in namespaces of its own, and takes everything down again.

Each engine gets a mount, host name, network and pid namespace under one small init: when that init is killed, every process in it
(engine, containerd, shims, containers, registry) ends, and with them the mounts, interfaces and firewall tables. Only
the cgroups under the engine's own parent and its folder remain, and `Engine.stop` removes those.

Both namespaces look alike: eth0 192.168.77.2/24, eth1 192.168.78.2/24, and a registry on 127.0.0.1:5000.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
CACHE = REPOSITORY / "target" / "conformance"
# dockerd, what it starts, the shared object of its storage code, and the firewall program it calls; a shell for images.
PACKAGES = ["docker.io", "containerd", "runc", "tini", "libdevmapper1.02.1", "iptables", "libip4tc2", "libip6tc2",
            "libxtables12", "libnftnl11", "libmnl0", "libnfnetlink0", "libnetfilter-conntrack3", "busybox-static",
            "docker-registry", "skopeo", "libgpgme11", "libassuan0"]
ADDRESS = "192.168.77.2"
START_SECONDS = 60
PR_SET_PDEATHSIG = 1


class SetupError(Exception):
    """Something that the comparison needs cannot be had."""


def run(*command, **options):
    """Runs a program that must succeed and returns what it printed."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if result.returncode != 0:
        raise SetupError(f"{' '.join(str(part) for part in command)}: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout


def unpack_packages():
    """Downloads Debian's packages once and unpacks them below target/; nothing is installed. Returns their root."""
    root = CACHE / "root"
    done = CACHE / "unpacked"
    wanted = "\n".join(PACKAGES)
    if done.exists() and done.read_text() == wanted:
        return root
    downloads = CACHE / "packages"
    shutil.rmtree(downloads, ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)
    downloads.mkdir(parents=True)
    print("unpacking Debian's docker.io and what it needs", flush=True)
    try:
        run("apt-get", "-qq", "download", *PACKAGES, cwd=downloads)
    except SetupError:
        run("apt-get", "-qq", "update")
        run("apt-get", "-qq", "download", *PACKAGES, cwd=downloads)
    for package in sorted(downloads.glob("*.deb")):
        run("dpkg", "-x", package, root)
    done.write_text(wanted)
    return root


def environment(root):
    """The environment in which unpacked programs find each other and their libraries."""
    found = dict(os.environ)
    found["PATH"] = f"{root}/usr/sbin:{root}/usr/bin:{root}/sbin:{root}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    found["LD_LIBRARY_PATH"] = f"{root}/lib/x86_64-linux-gnu:{root}/usr/lib/x86_64-linux-gnu"
    found["XTABLES_LIBDIR"] = f"{root}/usr/lib/x86_64-linux-gnu/xtables"
    return found


def die_with_parent():
    """The namespaces end when this program is killed, too."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Engine:
    """One engine in its namespaces. `name` is `skep` or `dockerd`; `folder` is short, as a socket lives in it."""

    def __init__(self, name, folder, root):
        self.name = name
        self.folder = Path(folder) / name
        self.root = root
        self.environment = environment(root)
        self.socket = self.folder / "engine.sock"
        self.log = self.folder / "engine.log"
        self.cgroup = f"conformance-{os.getpid()}-{name}"
        self.holder = None
        self.init = None

    def enter(self, *command):
        """The argument list that runs a program in the engine's namespaces."""
        return ["nsenter", "-t", str(self.init), "-m", "-u", "-n", "-p", "--", *[str(part) for part in command]]

    def inside(self, script):
        """Runs shell lines in the engine's namespaces."""
        return run(*self.enter("sh", "-ec", script), env=self.environment)

    def prepare(self, registry_storage):
        """Makes the namespaces with their addresses and starts the registry."""
        for part in ("etc-upper", "etc-work", "data", "exec"):
            (self.folder / part).mkdir(parents=True)
        self.holder = subprocess.Popen(
            ["unshare", "--mount", "--uts", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
             f"{self.root}/usr/bin/tini-static", "-s", "--", "sleep", "infinity"],
            stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)
        self.init = self.first_child()
        self.inside(f"""
            mount -t tmpfs -o mode=755 tmpfs /run
            mount -t tmpfs -o mode=755 tmpfs /opt
            mount -t overlay -o lowerdir=/etc,upperdir={self.folder}/etc-upper,workdir={self.folder}/etc-work overlay /etc
            ip link set lo up
            for pair in 0:{ADDRESS} 1:192.168.78.2; do
                ip link add eth${{pair%%:*}} type veth peer name peer${{pair%%:*}}
                ip address add ${{pair#*:}}/24 dev eth${{pair%%:*}}
                ip link set eth${{pair%%:*}} up
                ip link set peer${{pair%%:*}} up
            done
            ip route add default via 192.168.77.1
            hostname conformance
            rm -f /etc/resolv.conf
            echo 'nameserver 127.0.0.1' >/etc/resolv.conf
        """)
        config = self.folder / "registry.yml"
        config.write_text("version: 0.1\nlog: {level: error}\nhttp: {addr: '127.0.0.1:5000'}\n"
                          f"storage: {{filesystem: {{rootdirectory: {registry_storage}}}}}\n")
        self.start_inside([self.program("docker-registry"), "serve", config], self.folder / "registry.log")
        self.wait_for(lambda: subprocess.run(
            self.enter(f"{self.root}/bin/busybox", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:5000/v2/"),
            capture_output=True).returncode == 0, "the registry", self.folder / "registry.log")

    def program(self, name):
        """The path of an unpacked program."""
        found = shutil.which(name, path=self.environment["PATH"])
        if found is None:
            raise SetupError(f"{name} is in none of the unpacked packages")
        return found

    def first_child(self):
        """The init of the pid namespace, once it runs."""
        children = Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children")
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            found = children.read_text().split()
            if found and Path(f"/proc/{found[0]}/comm").read_text().startswith("tini"):
                return int(found[0])
            time.sleep(0.02)
        raise SetupError("unshare did not start")

    def start_inside(self, command, log):
        """Starts a program that lives as long as the namespaces."""
        with open(log, "ab") as output:
            return subprocess.Popen(self.enter(*command), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                    env=self.environment)

    def wait_for(self, condition, what, log):
        """Waits until a condition holds; the log's end explains a failure."""
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                tail = log.read_text(errors="replace").splitlines()[-15:]
                raise SetupError(f"{self.name}: {what} did not come up:\n" + "\n".join(tail))
            time.sleep(0.1)

    def start(self, command):
        """Starts the engine itself and waits for its API."""
        config = self.folder / "daemon.json"
        config.write_text("{}\n")
        shared = ["--config-file", config, "-H", f"unix://{self.socket}", "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec",
                  "--pidfile", f"{self.folder}/pid", "--cgroup-parent", f"/{self.cgroup}",
                  "--registry-mirror", "http://127.0.0.1:5000", "--insecure-registry", "127.0.0.1:5000",
                  "--storage-driver", "overlay2", "--label", "conformance=yes"]
        self.start_inside([*command, *shared], self.log)
        self.wait_for(lambda: self.docker(["version"]).returncode == 0, "the engine", self.log)

    def docker(self, arguments, stdin=None, timeout=120):
        """Runs the docker CLI against this engine."""
        variables = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "DOCKER_HOST": f"unix://{self.socket}",
                     "DOCKER_API_VERSION": "1.41", "LC_ALL": "C", "TZ": "UTC"}
        return subprocess.run(["docker", *arguments], input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                              capture_output=True, text=True, errors="replace", env=variables, timeout=timeout)

    def stop(self):
        """Ends every process of the namespaces, then removes cgroups and files. Runs after a failure, too."""
        if self.holder is not None:
            if self.init is not None and Path(f"/proc/{self.init}").exists():
                os.kill(self.init, signal.SIGKILL)
            self.holder.kill()
            self.holder.wait()
        deadline = time.monotonic() + START_SECONDS
        while not self.remove_cgroups() and time.monotonic() < deadline:
            time.sleep(0.1)
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_cgroups(self):
        """Removes the engine's cgroups, deepest first. False while a process is still in one."""
        gone = True
        for top in Path("/sys/fs/cgroup").glob(f"**/{self.cgroup}") if Path("/sys/fs/cgroup").exists() else []:
            for folder, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    gone = False
        return gone
