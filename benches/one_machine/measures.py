"""What is measured on one engine. Each function takes an `Engine` and returns seconds or KiB.

Tasks are watched by polling the API every two milliseconds (fifty tasks: every twenty, as the answer is long), so
an engine pays for being watched; both pay the same.
"""

import os
import signal
import time
from pathlib import Path

from .engine import Refused, await_true

REPOSITORY = "127.0.0.1:5000/tiny-service"
SERVICE = "bench"
FULL = 50
FULL_POLL_SECONDS = 0.02
RESTART_DELAY_SECONDS = 1
IDLE_SECONDS = 10
SETTLE_SECONDS = 3


def pull_image(engine):
    """Pulls the tiny service; returns its name with its digest, so that no task asks the registry again."""
    engine.call("POST", f"/images/create?fromImage={REPOSITORY}&tag=latest")
    return engine.call("GET", f"/images/{REPOSITORY}:latest/json")["RepoDigests"][0]


def swarm_init(engine):
    """Seconds of POST /swarm/init."""
    begun = time.monotonic()
    engine.call("POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "192.168.77.2"})
    return time.monotonic() - begun


def swarm_leave(engine):
    """Ends the swarm."""
    engine.call("POST", "/swarm/leave?force=true")


def specification(image, replicas, published=None):
    """A service of the tiny image."""
    spec = {
        "Name": SERVICE,
        "TaskTemplate": {
            "ContainerSpec": {"Image": image},
            "RestartPolicy": {"Condition": "any", "Delay": RESTART_DELAY_SECONDS * 10**9},
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
    }
    if published is not None:
        spec["EndpointSpec"] = {"Ports": [{"Protocol": "tcp", "TargetPort": 9005, "PublishedPort": published}]}
    return spec


def running(engine):
    """The tasks that should run and do."""
    tasks = engine.query("/tasks", {"service": {SERVICE: True}, "desired-state": {"running": True}})
    return [task for task in tasks if task["Status"]["State"] == "running"]


def create(engine, image, published=None):
    """Seconds from POST /services/create until its only task is Running."""
    begun = time.monotonic()
    engine.call("POST", "/services/create", specification(image, 1, published))
    await_true(lambda: len(running(engine)) == 1, "the first task")
    return time.monotonic() - begun


def remove(engine):
    """Removes the service and waits until no container is left."""
    engine.call("DELETE", f"/services/{SERVICE}")
    await_true(lambda: containers(engine) == 0, "no container")
    await_true(lambda: engine.call("GET", "/tasks") == [], "no task")


def containers(engine):
    """How many containers exist, running or not."""
    return len(engine.call("GET", "/containers/json?all=1"))


def scale(engine, replicas):
    """Asks for so many tasks. Starts again when another update came in between."""
    for _ in range(10):
        service = engine.call("GET", f"/services/{SERVICE}")
        service["Spec"]["Mode"]["Replicated"]["Replicas"] = replicas
        try:
            engine.call("POST", f"/services/{service['ID']}/update?version={service['Version']['Index']}", service["Spec"])
            return
        except Refused as error:
            if "out of sequence" not in str(error):
                raise


def scale_up(engine):
    """(seconds, CPU seconds) of 1 to 50 until all are Running."""
    cpu, begun = engine.cpu_seconds(), time.monotonic()
    scale(engine, FULL)
    await_true(lambda: len(running(engine)) == FULL, "fifty tasks", step=FULL_POLL_SECONDS)
    return time.monotonic() - begun, engine.cpu_seconds() - cpu


def scale_down(engine):
    """Seconds of 50 to 0 until no container is left."""
    begun = time.monotonic()
    scale(engine, 0)
    await_true(lambda: containers(engine) == 0, "no container", step=FULL_POLL_SECONDS)
    return time.monotonic() - begun


def scale_to_one(engine):
    """One task again, as before `scale_up`."""
    scale(engine, 1)
    await_true(lambda: len(running(engine)) == 1, "one task")


def shim_pss(engine):
    """PSS in KiB of the shims, per running task."""
    count, total = engine.pss("shim")
    return total / count


def idle(engine):
    """(PSS in KiB, share of one core) of an engine with nothing to do."""
    time.sleep(SETTLE_SECONDS)
    cpu, begun = engine.engine_cpu_seconds(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    share = (engine.engine_cpu_seconds() - cpu) / (time.monotonic() - begun)
    return engine.pss("engine")[1], share


def container_of(engine, task):
    """The container's description."""
    return engine.call("GET", f"/containers/{task['Status']['ContainerStatus']['ContainerID']}/json")


def killed_task(engine):
    """Seconds from SIGKILL of a task's process until its successor is Running, less the restart delay."""
    task = running(engine)[0]
    pid = container_of(engine, task)["State"]["Pid"]
    victim = next(outer for outer in numbers(Path("/proc")) if below(engine, outer, pid))
    begun = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    await_true(lambda: any(other["ID"] != task["ID"] for other in running(engine)), "the task's successor")
    return time.monotonic() - begun - RESTART_DELAY_SECONDS


def numbers(folder):
    """The processes of a /proc."""
    return [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()]


def below(engine, outer, pid):
    """Whether the process `outer` of this machine is the first one of a container that the engine knows as `pid`."""
    try:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{outer}/status").read_text().splitlines())
        parent = os.readlink(f"/proc/{status['PPid']}/ns/pid")
    except OSError:
        return False
    return status["NSpid"].split()[1:] == [str(pid), "1"] and parent == os.readlink(f"/proc/{engine.init}/ns/pid")
