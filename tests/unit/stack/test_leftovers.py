import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from include.stack import leftovers
from include.stack.leftovers import COMPONENT_MARK, STACK_MARK

Start = Callable[..., psutil.Process]
SLEEP = "import time; time.sleep(60)"
DEAF = (
    f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); {SLEEP}"
)
# Starts a child and tells its pid, so that tests can let it outlive its parent.
PARENT = f"""import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}]); print(child.pid, flush=True)
time.sleep(60)"""


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[psutil.Process] = []

    def run(home: Path | str, code: str = SLEEP, component: str = "scheduler") -> psutil.Process:
        environment = {**os.environ, STACK_MARK: str(home), COMPONENT_MARK: component}
        command = [sys.executable, "-c", code]
        process = psutil.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        if code != SLEEP:
            process.said = process.stdout.readline()
        started.append(process)
        return process

    yield run
    for process in started:
        for each in [*process.children(recursive=True), process] if process.is_running() else []:
            each.kill()
        process.wait()
        process.stdout.close()


def _pids(home: Path, component: str | None = None) -> set[int]:
    return {process.pid for process in leftovers.find(home, component)}


def _wait_found(home: Path, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(_pids(home)) < count:  # the mark is there only after exec
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_finds_its_own_stack_only(tmp_path: Path, start: Start) -> None:
    mine, other = start(tmp_path / "a"), start(tmp_path / "b")
    _wait_found(tmp_path / "a", 1)
    _wait_found(tmp_path / "b", 1)
    assert _pids(tmp_path / "a") == {mine.pid}
    assert leftovers.end_all(tmp_path / "a") == 1
    assert not mine.is_running() or mine.status() == psutil.STATUS_ZOMBIE
    assert other.status() != psutil.STATUS_ZOMBIE


def test_spares_itself_and_its_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"from include.stack.leftovers import end_all; print(end_all({str(tmp_path)!r}))"
    finished = subprocess.run(
        ["/bin/sh", "-c", '"$0" -c "$1"; echo alive', sys.executable, code],
        env={**os.environ, STACK_MARK: str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.split() == ["0", "alive"]


def test_kills_what_does_not_listen(tmp_path: Path, start: Start) -> None:
    start(tmp_path, DEAF)
    assert leftovers.end_all(tmp_path, grace=0.3) == 1
    assert _pids(tmp_path) == set()


def test_what_is_started_meanwhile_is_ended_too(tmp_path: Path, start: Start) -> None:
    start(tmp_path, PARENT)
    _wait_found(tmp_path, 2)
    assert leftovers.end_all(tmp_path) == 2
    assert _pids(tmp_path) == set()


def test_a_busy_worker_and_its_task_are_spared(tmp_path: Path, start: Start) -> None:
    start(tmp_path)
    busy = start(tmp_path, PARENT)
    other = start(tmp_path, component="triggerer")
    _wait_found(tmp_path, 4)
    assert leftovers.end_idle(str(tmp_path), "scheduler") == 1
    assert _pids(tmp_path) == {busy.pid, int(busy.said), other.pid}


def test_elsewhere_a_child_spares_nobody(tmp_path: Path, start: Start) -> None:
    start(tmp_path, PARENT, component="mlflow")
    _wait_found(tmp_path, 2)
    assert leftovers.end_idle(str(tmp_path), "mlflow") == 2


def test_a_component_cleans_up_after_its_predecessor(tmp_path: Path, start: Start) -> None:
    old = start(tmp_path, component="mlflow")
    _wait_found(tmp_path, 1)
    environment = {
        **os.environ,
        STACK_MARK: str(tmp_path),
        COMPONENT_MARK: "mlflow",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "include.stack.child", "/bin/echo", "two words"]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    said = ["Ended 1 processes of an earlier mlflow.", "two words"]
    assert finished.stdout.splitlines() == said
    assert old.wait(5) == -15
