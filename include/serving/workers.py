"""Several serving processes on one port: started, watched, replaced and ended together.

Owns the parent: it binds the port once and hands the socket to its workers, which accept from it side by side. A
connection that nobody has accepted yet waits in the socket, not in a process, so a killed worker takes only the
requests it was busy with. The parent answers nothing itself and imports nothing that takes memory.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"  # read by prometheus_client when it is imported
REFUSED = 78  # exit status of a worker that cannot work with these settings; sysexits.h calls it EX_CONFIG
DRAIN_SECONDS = 20  # within which a worker finishes what it has accepted
_PATIENCE = DRAIN_SECONDS + 10
_STEADY_SECONDS = 10.0  # a worker that lived this long is replaced at once
_PAUSES = (
    0.5,
    30.0,
)  # before one that did not is replaced: the first pause, doubled up to the last
_LOG = logging.getLogger("evergreen.serving")


@dataclass(frozen=True)
class Inherited:
    """What a worker gets from its parent.

    Args:
        listener: Descriptor of the bound socket.
        lifeline: Descriptor of a pipe that ends with the parent, however that ends.
        replaces: Whether others serve meanwhile, so that it need not accept before it can answer.
    """

    listener: int
    lifeline: int
    replaces: bool

    def arguments(self) -> list[str]:
        """Return this as arguments of a command."""
        return ["worker", str(self.listener), str(self.lifeline), str(int(self.replaces))]

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Inherited | None:
        """Read what `arguments` wrote; None where the process is not a worker."""
        if arguments[:1] != ["worker"]:
            return None
        listener, lifeline, replaces = (int(text) for text in arguments[1:])
        return cls(listener, lifeline, bool(replaces))

    def end_with_parent(self) -> None:
        """From now on, end when the parent does: in good order, and at the latest when the time for that is over."""
        threading.Thread(target=self._wait, name="lifeline", daemon=True).start()

    def _wait(self) -> None:
        while os.read(self.lifeline, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_PATIENCE)
        os._exit(1)


@dataclass
class _Place:
    """One worker and its successors."""

    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    quick_deaths: int = 0
    due: float = 0.0


@dataclass
class Workers:
    """Keeps `count` workers running until told to stop.

    Args:
        listener: The bound socket.
        count: How many.
        metrics: Folder in which they count together; emptied first.
        command: What runs as a worker; `Inherited.arguments` is appended.
        clock: Monotonic seconds.
    """

    listener: socket.socket
    count: int
    metrics: Path
    command: Sequence[str] = (sys.executable, "-m", "include.serving")
    clock: Callable[[], float] = time.monotonic
    _places: list[_Place] = field(default_factory=list)
    _event: threading.Event = field(default_factory=threading.Event)
    _told: bool = False

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, or until a worker says that it cannot work; return the exit status."""
        shutil.rmtree(self.metrics, ignore_errors=True)
        self.metrics.mkdir(parents=True)
        self.listener.listen(2048)
        self._places = [_Place() for _ in range(self.count)]
        environment = {**os.environ, METRICS_DIR: str(self.metrics)}
        ours, theirs = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: self._event.set())
        status = 0
        try:
            first = True
            while not self._told and not status:
                self._event.clear()
                status = self._bury()
                if not status:
                    self._fill(environment, ours, first)
                first = False
                self._event.wait(self._pause())
        finally:
            self._end()
            os.close(ours)
            os.close(theirs)
            shutil.rmtree(self.metrics, ignore_errors=True)
        return status

    def _on_stop(self, *_: object) -> None:
        self._told = True
        self._event.set()

    def _fill(self, environment: Mapping[str, str], lifeline: int, first: bool) -> None:
        now = self.clock()
        for place in self._places:
            if place.process is not None or now < place.due:
                continue
            inherited = Inherited(self.listener.fileno(), lifeline, replaces=not first)
            place.process = subprocess.Popen(
                [*self.command, *inherited.arguments()],
                env=environment,
                pass_fds=(inherited.listener, inherited.lifeline),
            )
            place.started = now
            _LOG.info("worker %s started", place.process.pid)

    def _bury(self) -> int:
        """Take note of workers that ended; return a status when there is no use in replacing them."""
        for place in self._places:
            status = place.process.poll() if place.process is not None else None
            if place.process is None or status is None:
                continue
            pid, place.process = place.process.pid, None
            self._forget(pid)
            if status == REFUSED:
                return 1
            now = self.clock()
            place.quick_deaths = (
                place.quick_deaths + 1 if now - place.started < _STEADY_SECONDS else 0
            )
            first, longest = _PAUSES
            pause = min(first * 2 ** (place.quick_deaths - 1), longest) if place.quick_deaths else 0
            place.due = now + pause
            _LOG.error("worker %s ended with status %s; another one in %s s", pid, status, pause)
        return 0

    def _forget(self, pid: int) -> None:
        """Take a dead worker's gauges off the metrics; what it counted stays."""
        from prometheus_client.multiprocess import mark_process_dead

        with suppress(OSError):
            mark_process_dead(pid, str(self.metrics))  # type: ignore[no-untyped-call]

    def _pause(self) -> float:
        waiting = [place.due - self.clock() for place in self._places if place.process is None]
        return max(0.01, min([5.0, *waiting]))

    def _end(self) -> None:
        running = [place.process for place in self._places if place.process is not None]
        self.listener.close()
        for process in running:
            process.terminate()
        deadline = self.clock() + _PATIENCE
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - self.clock()))
            if process.poll() is None:
                process.kill()
                process.wait()
