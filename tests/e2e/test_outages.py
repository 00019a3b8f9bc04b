"""Servers are killed under a run's feet; the supervisor brings them back, and the run ends as if nothing had been."""

import os
import signal

import psutil
import pytest

from tests.e2e.stack import Stack, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def kill(stack: Stack, component: str) -> int:
    """Kill a component's process; return its id."""
    pid = stack.pid(component)
    assert pid
    os.kill(pid, signal.SIGKILL)
    return pid


def wait_for_another(stack: Stack, component: str, pid: int) -> None:
    wait_until(f"another {component}", lambda: stack.pid(component) not in (0, pid), 60)


def test_scheduler_mlflow_and_serving_die_in_the_middle_of_runs(stack: Stack) -> None:
    held = {
        "under_scheduler": ("train.fit", "include.train.fit:fit", "enter"),
        "under_mlflow": ("register", "include.registry.gateway:Registry.register", "enter"),
        "under_serving": ("deploy.promote", "include.registry.promotion:promote", "leave"),
    }
    wires = [stack.lay_wire("hold", name, *where) for name, where in held.items()]
    for name in held:
        stack.add_model(name)
    for name in held:
        stack.trigger(name, "outage")
    with stack.held(*wires):
        killed = {name: kill(stack, name) for name in ("scheduler", "mlflow", "serving")}
    for name, pid in killed.items():
        wait_for_another(stack, name, pid)
    for name in held:
        result = stack.wait(name, "outage", 300)
        assert result.state == "success", result
        stack.assert_one_of_everything(name, "outage")


def test_the_scheduler_dies_with_its_workers_and_their_task(stack: Stack) -> None:
    point = "mlflow.tracking.client:MlflowClient.create_model_version"
    wire = stack.lay_wire("hold", "orphaned", "register", point, "leave")
    stack.add_model("orphaned")
    stack.trigger("orphaned", "outage")
    with stack.held(wire):
        scheduler = psutil.Process(stack.pid("scheduler"))
        family = [scheduler, *scheduler.children(recursive=True)]
        for process in family:
            process.kill()
        psutil.wait_procs(family, 10)
    wait_for_another(stack, "scheduler", scheduler.pid)
    result = stack.wait("orphaned", "outage", 300)
    assert result.state == "success", result
    stack.assert_one_of_everything("orphaned", "outage")
