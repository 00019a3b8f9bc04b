"""Processes that outlived what started them: found by marks in their environment, and ended.

A process id alone proves nothing after a crash: the kernel hands it out again. The marks are inherited
by whatever a stack starts, and nothing else carries them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import psutil

#: Holds the home of the stack a process belongs to.
STACK_MARK = "EVERGREEN_STACK"
#: Holds the component a process belongs to.
COMPONENT_MARK = "EVERGREEN_COMPONENT"
GRACE_SECONDS = 10.0
_ROUNDS = 5


def find(home: Path | str, component: str | None = None) -> list[psutil.Process]:
    """Return the processes of a stack, this one and its parents excepted.

    Args:
        home: The stack's home.
        component: Only those of this component; None for all.
    """
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid in mine:
                continue
            environment = process.environ()
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or somebody else's
        belongs = environment.get(STACK_MARK) == str(home)
        if belongs and component in {None, environment.get(COMPONENT_MARK)}:
            found.append(process)
    return found


def end(processes: Iterable[psutil.Process], grace: float = GRACE_SECONDS) -> int:
    """Ask processes to end, and kill those still there after `grace` seconds.

    Returns:
        How many there were.
    """
    asked = list(processes)
    for process in asked:
        _signal(process, kill=False)
    _, alive = psutil.wait_procs(asked, timeout=grace)
    for process in alive:
        _signal(process, kill=True)
    psutil.wait_procs(alive, timeout=grace)
    return len(asked)


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return


def end_all(home: Path, grace: float = GRACE_SECONDS) -> int:
    """End whatever the stack of `home` left behind, and what that starts while it is being ended.

    Returns:
        How many processes there were.
    """
    ended = 0
    for _ in range(_ROUNDS):
        processes = find(home)
        if not processes:
            break
        ended += end(processes, grace)
    return ended


def end_idle(home: str, component: str, grace: float = GRACE_SECONDS) -> int:
    """End what a killed component left behind, except what is still at work.

    A scheduler that was killed leaves its workers. Those that run a task have a child and are spared:
    the task reports to the api-server by itself, and hours of training are not thrown away.

    Args:
        home: The stack's home.
        component: The component.
        grace: Seconds before they are killed.

    Returns:
        How many processes were ended.
    """
    found = find(home, component)
    busy = {process.pid for process in found if component == "scheduler" and _has_child(process)}
    return end([p for p in found if not _is_spared(p, busy)], grace)


def _has_child(process: psutil.Process) -> bool:
    try:
        return bool(process.children())
    except psutil.Error:
        return False


def _is_spared(process: psutil.Process, busy: set[int]) -> bool:
    try:
        return process.pid in busy or any(parent.pid in busy for parent in process.parents())
    except psutil.Error:
        return False
