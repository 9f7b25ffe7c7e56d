"""One engine under measurement: Skep or dockerd, in namespaces of its own, spoken to over its socket.

Builds on the namespaces of tests/conformance/engines.py; adds what a benchmark needs: start and stop by hand with exact
times, a kept-alive API connection, and sums over the processes of the engine.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPOSITORY / "tests" / "conformance"))
import engines  # noqa: E402

POLL_SECONDS = 0.002
WAIT_SECONDS = 90
TICKS = os.sysconf("SC_CLK_TCK")
API = "/v1.41"
# clock_getcpuclockid(3): the clock of another process is made of its id and this.
PROCESS_CPU_CLOCK = 2


class Refused(Exception):
    """The engine answered with an error."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=WAIT_SECONDS)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(WAIT_SECONDS)
        self.sock.connect(self.path)


def await_true(condition, what, seconds=WAIT_SECONDS, step=POLL_SECONDS):
    """Polls until a condition holds; returns the seconds it took."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise engines.SetupError(f"no end of waiting for: {what}")
        time.sleep(step)
    return time.monotonic() - begun


class Engine(engines.Engine):
    """`command` is the argument list of the daemon without options."""

    def __init__(self, name, folder, root, command):
        super().__init__(name, folder, root)
        self.cgroup = f"bench-{os.getpid()}-{name}"
        self.command = command
        self.daemon = None
        self.connection = None
        self.client = None

    def call(self, method, path, body=None, raw=None):
        """One request; returns the decoded answer. Raises `Refused` on a status of 400 or more."""
        if self.connection is None:
            self.connection = UnixConnection(self.socket)
        payload = raw if raw is not None else (json.dumps(body) if body is not None else None)
        kind = "application/x-tar" if raw is not None else "application/json"
        try:
            self.connection.request(method, API + path, payload, {"Content-Type": kind})
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            self.connection = None
            raise
        if answer.status >= 400:
            raise Refused(f"{method} {path}: {answer.status} {text.decode(errors='replace').strip()}")
        try:
            return json.loads(text)
        except ValueError:
            return text.decode(errors="replace")

    def answers(self, path):
        """Whether a GET succeeds."""
        try:
            self.call("GET", path)
            return True
        except (OSError, http.client.HTTPException, Refused):
            return False

    def launch(self, path="/_ping"):
        """Starts the engine; returns the seconds until GET `path` succeeds."""
        (self.folder / "daemon.json").write_text("{}\n")
        begun = time.monotonic()
        self.daemon = self.start_inside(
            [*self.command, "--config-file", self.folder / "daemon.json", "-H", f"unix://{self.socket}",
             "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec", "--pidfile", f"{self.folder}/pid",
             "--cgroup-parent", f"/{self.cgroup}", "--insecure-registry", "127.0.0.1:5000", "--storage-driver", "overlay2"],
            self.log)
        while not self.answers(path):
            if time.monotonic() - begun > WAIT_SECONDS or self.daemon.poll() is not None:
                raise engines.SetupError(f"{self.name} did not start:\n{self.log_end()}")
            time.sleep(POLL_SECONDS)
        return time.monotonic() - begun

    def log_end(self):
        """The last lines of the engine's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def terminate(self):
        """Ends the engine by SIGTERM and waits for it."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        for child in Path(f"/proc/{self.daemon.pid}/task/{self.daemon.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGTERM)
        self.daemon.wait(WAIT_SECONDS)

    def processes(self):
        """{pid: name} of everything in the engine's pid namespace."""
        here = os.readlink(f"/proc/{self.init}/ns/pid")
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if os.readlink(entry / "ns" / "pid") == here:
                        line = (entry / "cmdline").read_bytes().split(b"\0")
                        found[int(entry.name)] = " ".join(part.decode(errors="replace") for part in line[:2])
                except OSError:
                    continue
        return found

    def kind(self, line):
        """What a process is by its command line: `engine`, `shim` or None."""
        words = line.split(" ")
        program = os.path.basename(words[0])
        if program.startswith("containerd-shim") or (program == "skep" and words[1:] == ["shim"]):
            return "shim"
        if program in ("dockerd", "containerd") or (program == "skep" and words[1:] == ["daemon"]):
            return "engine"
        return None

    def pss(self, kind):
        """(number of processes, sum of their PSS in KiB)."""
        sizes = []
        for pid, line in self.processes().items():
            if self.kind(line) == kind:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                sizes.append(next(int(row.split()[1]) for row in rollup.splitlines() if row.startswith("Pss:")))
        return len(sizes), sum(sizes)

    def cpu_seconds(self):
        """CPU time of everything below the engine (its orphans are below the init), containers too, and of ended children."""
        parents, ticks = {}, {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                parents[int(entry.name)] = int(fields[1])
                ticks[int(entry.name)] = sum(int(field) for field in fields[11:15])

        def is_below(pid):
            tops = (self.init, self.daemon.pid)
            while pid in parents and pid not in tops:
                pid = parents[pid]
            return pid in tops

        return sum(count for pid, count in ticks.items() if is_below(pid)) / TICKS

    def engine_cpu_seconds(self):
        """CPU time of the engine's own processes alone, by their clocks, which count nanoseconds."""
        pids = [pid for pid, line in self.processes().items() if self.kind(line) == "engine"]
        return sum(time.clock_gettime((~pid << 3) | PROCESS_CPU_CLOCK) for pid in pids)

    def add_client(self):
        """A network namespace of its own behind a veth: 192.168.79.1, with the engine's host as its router."""
        self.client = subprocess.Popen(self.enter("unshare", "--net", "sleep", "infinity"), stdin=subprocess.DEVNULL)
        await_true(lambda: self.client_pid() is not None, "the client's namespace")
        pid = self.client_pid()
        inside = f"nsenter -t {pid} -n"
        engines.run("sh", "-ec", f"""
            nsenter -t {self.init} -n ip link add bench0 type veth peer name bench1
            nsenter -t {self.init} -n ip link set bench1 netns {pid}
            nsenter -t {self.init} -n ip address add 192.168.79.2/24 dev bench0
            nsenter -t {self.init} -n ip link set bench0 up
            {inside} ip address add 192.168.79.1/24 dev bench1
            {inside} ip link set bench1 up
            {inside} ip link set lo up
            {inside} ip route add default via 192.168.79.2
        """)

    def client_pid(self):
        """The process that holds the client's network namespace, once it is there."""
        host = os.readlink(f"/proc/{self.init}/ns/net")
        for pid, line in self.processes().items():
            if line == "sleep infinity" and pid != self.init:
                try:
                    if os.readlink(f"/proc/{pid}/ns/net") != host:
                        return pid
                except OSError:
                    continue
        return None

    def query(self, path, filters):
        """GET with filters."""
        return self.call("GET", f"{path}?{urllib.parse.urlencode({'filters': json.dumps(filters)})}")
