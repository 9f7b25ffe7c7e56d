"""What is measured on a swarm of three managers, the first three machines, and two workers. Times are in seconds."""

import itertools
import threading
import time

from one_machine.engine import engines

from .machines import REPOSITORY, Missed, until

MANAGERS, WORKERS, REPLICAS, QUIET_WRITES = 3, 2, 6, 50
SERVICE = "failover"
IMAGE = "tiny-service:latest"
# An answer that takes longer is not waited for.
WRITE_SECONDS = 5
# A manager that has just started keeps SwarmKit's timing for two seconds (docs/design/0006).
SETTLE_SECONDS = 3
numbers = itertools.count()


def swarm(wire):
    """Founds the swarm and lets its service run."""
    archive = tiny_image().read_bytes()
    first = wire.add()
    first.call("POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": first.address})
    tokens = first.call("GET", "/swarm")["JoinTokens"]
    for number in range(1, MANAGERS + WORKERS):
        host = wire.add()
        token = tokens["Manager" if number < MANAGERS else "Worker"]
        host.call("POST", "/swarm/join", {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": host.address,
                                          "RemoteAddrs": [f"{first.address}:2377"], "JoinToken": token})
    for host in wire.hosts:
        host.call("POST", "/images/load?quiet=1", raw=archive)
    await_whole(wire)
    # Workers alone run tasks, so that a manager's end is nothing but that.
    spec = {"Name": SERVICE, "Mode": {"Replicated": {"Replicas": REPLICAS}},
            "TaskTemplate": {"ContainerSpec": {"Image": IMAGE}, "Placement": {"Constraints": ["node.role==worker"]},
                             "RestartPolicy": {"Condition": "any", "Delay": 0}}}
    first.call("POST", "/services/create", spec)
    until("the tasks", lambda: len(running(first)) == REPLICAS)


def tiny_image():
    """The archive of the tiny service, made once."""
    archive = engines.CACHE / "tiny.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        engines.run(REPOSITORY / "examples" / "tiny-service" / "build-image", archive, IMAGE)
    return archive


def await_whole(wire):
    """Waits until every node is Ready, every manager reachable as all managers see it, and one of them leads."""
    for host in wire.hosts[:MANAGERS]:
        def is_whole(host=host):
            nodes = host.try_call("GET", "/nodes") or []
            managers = [node["ManagerStatus"] for node in nodes if "ManagerStatus" in node]
            return (sum(node["Status"]["State"] == "ready" for node in nodes) == MANAGERS + WORKERS
                    and sum(status["Reachability"] == "reachable" for status in managers) == MANAGERS
                    and sum(status.get("Leader", False) for status in managers) == 1)
        until(f"a whole swarm as {host.name} sees it", is_whole)
    time.sleep(SETTLE_SECONDS)


def leader(wire):
    """The machine whose manager leads."""
    nodes = wire.hosts[0].call("GET", "/nodes")
    address = next(node["ManagerStatus"]["Addr"] for node in nodes if node.get("ManagerStatus", {}).get("Leader"))
    return next(host for host in wire.hosts if host.address == address.rpartition(":")[0])


def write(host):
    """A write through this manager; whether it was accepted."""
    body = {"Name": f"write-{next(numbers)}", "Data": "eA=="}
    return host.try_call("POST", "/configs/create", body, seconds=WRITE_SECONDS) is not None


def quiet_writes(wire):
    """Times of writes through a follower while nothing happens."""
    lead = leader(wire)
    follower = next(host for host in wire.hosts[:MANAGERS] if host is not lead)
    times = []
    for _ in range(QUIET_WRITES):
        begun = time.monotonic()
        if not write(follower):
            raise Missed(f"a write through {follower.name} was refused")
        times.append(time.monotonic() - begun)
    return times


def first_write(survivors, begun):
    """Seconds from `begun` to the first write that any of the managers accepts."""
    accepted, over = [], threading.Event()

    def keep_writing(host):
        while not over.is_set():
            if write(host):
                accepted.append(time.monotonic() - begun)
                over.set()

    writers = [threading.Thread(target=keep_writing, args=(host,)) for host in survivors]
    for writer in writers:
        writer.start()
    over.wait(90)
    over.set()
    for writer in writers:
        writer.join()
    if not accepted:
        raise Missed("a write after the leader's end")
    return min(accepted)


def without_leader(wire, end, back):
    """The first write after the leader's end; then it comes back."""
    lead = leader(wire)
    survivors = [host for host in wire.hosts[:MANAGERS] if host is not lead]
    seconds = first_write(survivors, end(lead))
    back(lead)
    await_whole(wire)
    return seconds


def leader_killed(wire):
    """The leader's daemon is killed: the kernel closes its connections."""
    return without_leader(wire, lambda host: host.kill(), lambda host: host.start())


def leader_off(wire):
    """The leader's machine goes without a word: its connections stay open at the other end."""
    return without_leader(wire, lambda host: host.switch_off(), lambda host: host.switch_on())


def running(host):
    """The tasks that should run and do."""
    tasks = host.call("GET", "/tasks?filters=" + '{"desired-state":["running"]}'.replace('"', "%22"))
    return [task for task in tasks if task["Status"]["State"] == "running"]


def worker_off(wire):
    """A worker's machine goes: seconds until its node is Down, and from then until all tasks run elsewhere."""
    manager, worker = wire.hosts[0], wire.hosts[-1]
    node = next(node["ID"] for node in manager.call("GET", "/nodes") if node["Description"]["Hostname"] == worker.name)
    if not any(task["NodeID"] == node for task in running(manager)):
        # What ran there before went to the other worker.
        spread(manager)
        until("tasks on the worker", lambda: any(task["NodeID"] == node for task in running(manager)))
    until("all tasks", lambda: len(running(manager)) == REPLICAS)
    begun = worker.switch_off()
    until("Down", lambda: manager.call("GET", f"/nodes/{node}")["Status"]["State"] == "down")
    down = time.monotonic()
    until("tasks elsewhere", lambda: sum(task["NodeID"] != node for task in running(manager)) == REPLICAS)
    elsewhere = time.monotonic()
    worker.switch_on()
    await_whole(wire)
    return down - begun, elsewhere - down


def spread(manager):
    """Replaces all tasks, so that both workers have some."""
    service = manager.call("GET", f"/services/{SERVICE}")
    spec = service["Spec"]
    spec["TaskTemplate"]["ForceUpdate"] = spec["TaskTemplate"].get("ForceUpdate", 0) + 1
    manager.call("POST", f"/services/{SERVICE}/update?version={service['Version']['Index']}", spec)
