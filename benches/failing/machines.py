"""Machines of namespaces on one bridge, each with a daemon: tests/hosts/host makes them, here they are started, killed and
switched off.

A `Wire` is a context manager: whatever happens inside, all of it is gone afterwards.
"""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
HOST = REPOSITORY / "tests" / "hosts" / "host"
sys.path.insert(0, str(REPOSITORY / "benches"))
from one_machine.engine import UnixConnection  # noqa: E402

API = "/v1.41"
LONG_SECONDS = 90
POLL_SECONDS = 0.005


class Missed(Exception):
    """Something did not come in time, or was refused that must not be."""


class Refused(Exception):
    """The daemon answered with an error."""


def until(what, found, seconds=LONG_SECONDS):
    """Polls until `found` gives something true, which it returns."""
    deadline = time.monotonic() + seconds
    while True:
        value = found()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Missed(f"never came: {what}")
        time.sleep(POLL_SECONDS)


def dying_with_us(*command, **options):
    """Starts a program that dies with this one."""
    words = ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, **options)


class Host:
    """One machine."""

    def __init__(self, wire, number):
        self.wire = wire
        self.name = "abcdefgh"[number - 1]
        self.address = f"10.77.0.{number}"
        self.place = wire.folder / self.name
        self.namespaces = None
        self.daemon = None

    def switch_on(self):
        """Makes its namespaces, on what its disk held before, and starts its daemon."""
        self.namespaces = dying_with_us(
            "nsenter", f"--net=/proc/{self.wire.holder.pid}/ns/net", HOST, "run", self.wire.folder, self.name,
            f"{self.address}/24", "lan", env={**os.environ, "SKEP": str(self.wire.skep)}, start_new_session=True)
        until(f"machine {self.name}", lambda: (self.place / "init").exists())
        self.start()

    def start(self):
        """Starts the daemon and waits until it answers."""
        init = (self.place / "init").read_text().strip()
        parent = f"/skep-hosts/{self.wire.folder.name}-{self.name}"
        options = {"-H": f"unix://{self.place}/sock", "--data-root": f"{self.place}/data", "--exec-root": f"{self.place}/run",
                   "--pidfile": f"{self.place}/pid", "--config-file": "/dev/null", "--cgroup-parent": parent}
        words = [word for option in options.items() for word in option]
        with open(self.place / "log", "ab") as log:
            self.daemon = subprocess.Popen(
                ["nsenter", "-t", init, "-m", "-u", "-n", "-p", "--", self.wire.skep, "daemon", *words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        until(f"an answer of {self.name}", lambda: self.try_call("GET", "/_ping") is not None)

    def kill(self):
        """SIGKILL for the daemon; containers live on. Returns when the signal was sent."""
        children = Path(f"/proc/{self.daemon.pid}/task/{self.daemon.pid}/children").read_text().split()
        at = time.monotonic()
        os.kill(int(children[0]), signal.SIGKILL)
        self.daemon.wait()
        self.daemon = None
        return at

    def switch_off(self):
        """Ends the whole machine as a power cut does: first its wire, so that no connection is closed. Returns when."""
        silence = ("table inet off { chain in { type filter hook input priority -500; drop; }; "
                   "chain out { type filter hook output priority -500; oifname eth0 drop; }; }")
        init = (self.place / "init").read_text().strip()
        subprocess.run(["nsenter", "-t", init, "-n", "nft", silence], check=True)
        at = time.monotonic()
        self.namespaces.kill()
        self.namespaces.wait()
        self.namespaces = None
        self.daemon.wait()
        self.daemon = None
        for file in ("init", "ready"):
            (self.place / file).unlink(missing_ok=True)
        (self.place / "cgroup").rmdir()
        shutil.rmtree(self.place / "run", ignore_errors=True)
        return at

    def down(self):
        """Removes what is left of it."""
        if self.namespaces is not None:
            self.namespaces.kill()
            self.namespaces.wait()
        if self.daemon is not None:
            self.daemon.wait()
        subprocess.run([HOST, "down", self.wire.folder, self.name], check=True)

    def call(self, method, path, body=None, raw=None, seconds=LONG_SECONDS):
        """One request over a connection of its own; the decoded answer."""
        connection = UnixConnection(self.place / "sock")
        try:
            connection.connect()
            connection.sock.settimeout(seconds)
            payload = raw if raw is not None else (json.dumps(body) if body is not None else None)
            kind = "application/x-tar" if raw is not None else "application/json"
            connection.request(method, API + path, payload, {"Content-Type": kind})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise Refused(f"{self.name}: {method} {path}: {answer.status} {text.decode(errors='replace').strip()}")
        try:
            return json.loads(text)
        except ValueError:
            return text.decode(errors="replace")

    def try_call(self, *request, **more):
        """Like `call`; None if there is no good answer."""
        try:
            return self.call(*request, **more)
        except (OSError, http.client.HTTPException, Refused):
            return None


class Wire:
    """The bridge, in a network namespace of its own, and the machines on it: the n-th is 10.77.0.n."""

    def __init__(self, folder, skep):
        self.folder = folder
        # A build may replace the binary meanwhile.
        self.skep = folder / "skep"
        shutil.copy(skep, self.skep)
        self.holder = None
        self.hosts = []

    def __enter__(self):
        script = ("ip link set lo up && ip link add lan type bridge && ip address add 10.77.0.254/24 dev lan "
                  "&& ip link set lan up && exec sleep infinity")
        self.holder = dying_with_us("unshare", "--net", "sh", "-c", script)
        shown = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "ip", "link", "show", "lan", "up"]
        until("the wire", lambda: b"lan" in subprocess.run(shown, capture_output=True).stdout)
        return self

    def add(self):
        """One more machine, with a daemon that runs."""
        host = Host(self, len(self.hosts) + 1)
        self.hosts.append(host)
        host.switch_on()
        return host

    def __exit__(self, kind, *_):
        for host in self.hosts:
            if kind is not None and (host.place / "log").exists():
                lines = (host.place / "log").read_text(errors="replace").splitlines()[-15:]
                print(f"--- end of {host.name}'s log", *lines, sep="\n", file=sys.stderr)
            host.down()
        self.holder.kill()
        self.holder.wait()
