"""Processes of a stack whose supervisor is gone: found by the marker in their environment, and ended."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from include.stack.environment import MARKER

GRACE_SECONDS = 10.0


def find(home: Path) -> list[psutil.Process]:
    """Return every process that was started by the stack of `home`, this one and its parents excepted.

    A process id alone proves nothing after a crash: the kernel hands it out again. The marker is
    inherited by whatever the stack starts, and nothing else carries it.
    """
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid not in mine and process.environ().get(MARKER) == str(home):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or somebody else's
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
    for _ in range(5):
        processes = find(home)
        if not processes:
            break
        ended += end(processes, grace)
    return ended
