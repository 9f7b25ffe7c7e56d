"""The published port against a direct connection to the task.

Direct means the task's own address on docker_gwbridge, which only the host itself reaches; so the host is the client of
both. The same port is asked from a network namespace one routed veth away, too, as users' clients are not on the host.
"""

import json
import re
import subprocess

from .engine import Refused, await_true
from .measures import SERVICE, container_of, running, specification

PORT = 30905
OUTER = "192.168.79.2"
INNER = "192.168.77.2"
SENDER_IMAGE = "conformance/box:1"
TRANSFER_MIB = 512
REQUESTS = 6000
# docker_gwbridge takes the first free default pool.
GATEWAY_PREFIX = "172."


def all_ways(engine, measure):
    """The measure's result by the way that is taken: `published`, `direct`, `published, routed client`."""
    address = gateway_address(engine, running(engine)[0])
    return {
        "published": measure(engine.init, INNER, PORT),
        "direct": measure(engine.init, address, 9005),
        "published, routed client": measure(engine.client_pid(), OUTER, PORT),
    }


def inside(pid, *command):
    """Runs a program in the network namespace of a process."""
    return subprocess.run(["nsenter", "-t", str(pid), "-n", *command], capture_output=True, text=True, timeout=120)


def create_sender(engine):
    """A service with one task that sends a file of `TRANSFER_MIB`."""
    spec = specification(f"127.0.0.1:5000/{SENDER_IMAGE}", 1, PORT)
    spec["TaskTemplate"]["ContainerSpec"].update({
        "Command": ["sh", "-c", f"dd if=/dev/zero of=/www/data bs=1M count={TRANSFER_MIB} && exec httpd -f -p 9005 -h /www"],
        "StopGracePeriod": 10**8,
    })
    engine.call("POST", "/services/create", spec)
    await_true(lambda: running(engine) and answers(engine), f"the task of {SERVICE} that sends")


def answers(engine):
    """Whether the published port serves a file."""
    return inside(engine.init, "curl", "-sfo", "/dev/null", f"http://{INNER}:{PORT}/").returncode == 0


def requests(pid, host, port):
    """Requests per second of `ab`, 8 at once, a new connection for each. None may fail."""
    done = inside(pid, "ab", "-q", "-n", str(REQUESTS), "-c", "8", "-H", "Connection: close", f"http://{host}:{port}/")
    if done.returncode != 0 or not re.search(r"^Failed requests: +0$", done.stdout, re.M):
        raise Refused(f"ab {host}:{port}: {done.stdout} {done.stderr}")
    return float(re.search(r"^Requests per second: +([0-9.]+)", done.stdout, re.M)[1])


RECEIVE = """
import socket, sys, time
taken, buffer = 0, bytearray(1 << 20)
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
connection.sendall(b"GET /data HTTP/1.0\\r\\n\\r\\n")
begun = time.monotonic()
while count := connection.recv_into(buffer):
    taken += count
print(taken / (time.monotonic() - begun) / 2**20, taken)
"""


def throughput(pid, host, port):
    """MiB per second of one transfer on one connection."""
    done = inside(pid, "python3", "-c", RECEIVE, host, str(port))
    if done.returncode != 0:
        raise Refused(f"{host}:{port}: {done.stderr}")
    rate, taken = done.stdout.split()
    if int(taken) < TRANSFER_MIB << 20:
        raise Refused(f"{host}:{port}: only {taken} bytes came")
    return float(rate)


def gateway_address(engine, task):
    """The task's own address on docker_gwbridge, which its network namespace tells."""
    pid = container_of(engine, task)["State"]["Pid"]
    listed = json.loads(engine.inside(f"nsenter -t {pid} -n ip -j -4 address show"))
    addresses = [entry["local"] for link in listed for entry in link["addr_info"]]
    return next(address for address in addresses if address.startswith(GATEWAY_PREFIX))
