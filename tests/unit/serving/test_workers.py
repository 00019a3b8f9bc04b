"""The parent of several serving processes, with workers that do nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from include.serving.workers import Bell, metrics_folder
from include.settings import ROOT
from tests.unit.serving.registry import wait_for

PARENT = """
import signal, socket, sys
from pathlib import Path
from include.serving.workers import Workers

lines = 0

def flood(frame, event, arg):
    global lines
    lines += 1
    signal.raise_signal(signal.SIGTERM if lines == 5000 else signal.SIGCHLD)
    return flood

idle = (sys.executable, "-c", "import time; time.sleep(600)")
workers = Workers(socket.create_server(("127.0.0.1", 0)), 2, Path(sys.argv[1]), idle)
if sys.argv[2:] == ["flood"]:
    sys.settrace(flood)
status = workers.run()
sys.settrace(None)
sys.exit(status)
"""


def parent(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PARENT, str(folder), *arguments]
    return subprocess.Popen(command, env=environment, start_new_session=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """End it and its workers, if they are still there."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_signal_at_every_line_does_not_hold_the_parent_up(tmp_path: Path) -> None:
    process = parent(tmp_path / "metrics", "flood")
    try:
        assert process.wait(60) == 0
    finally:
        end(process)


def test_a_quiet_parent_hears_that_it_is_to_stop(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    process = parent(folder)
    try:
        wait_for(folder.exists, 30)
        wait_for(lambda: len(children(process.pid)) == 2, 30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert not folder.exists()
    finally:
        end(process)


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_signal_before_the_wait_ends_it() -> None:
    bell, before = Bell(), signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        with bell.hung():
            for _ in range(100_000):  # far more than the socket holds
                signal.raise_signal(signal.SIGCHLD)
            started = time.monotonic()
            bell.wait(30)
            assert time.monotonic() - started < 10
            bell.wait(0.0)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_workers_count_in_memory_where_there_is_a_folder_there(tmp_path: Path) -> None:
    home, memory = tmp_path / "home", tmp_path / "shm"
    assert metrics_folder(home, 8, memory) == home / "serving-metrics-8"
    memory.mkdir()
    made = {metrics_folder(home, 8, memory), metrics_folder(home, 9, memory)}
    made.add(metrics_folder(tmp_path / "other", 8, memory))
    assert len(made) == 3
    assert {folder.parent for folder in made} == {memory}
