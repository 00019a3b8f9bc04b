"""Several serving processes on one port: started, watched, replaced and ended together.

Owns the parent: it binds the port once and hands the socket to its workers, which accept from it side by side. A
connection that nobody has accepted yet waits in the socket, not in a process, so a killed worker takes only the
requests it was busy with. The parent answers nothing itself and imports nothing that takes memory.

A signal may come in the middle of anything, a lock held included: its handler sets a plain flag and takes no lock.
What ends the parent's wait is a byte that the interpreter itself puts into a socket at every signal.
"""

from __future__ import annotations

import hashlib
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
_MEMORY = Path("/dev/shm")  # noqa: S108  a folder in memory, where the platform has one
_LOG = logging.getLogger("evergreen.serving")


def metrics_folder(home: Path, port: int, memory: Path = _MEMORY) -> Path:
    """Return where the workers of this installation and port count together: in memory, where that can be.

    Their files are mapped into memory with holes in them. On a disk that is full, the first number written into a
    hole would end the worker with SIGBUS.
    """
    if not (memory.is_dir() and os.access(memory, os.W_OK | os.X_OK)):
        return home / f"serving-metrics-{port}"
    owner = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:12]
    return memory / f"evergreen-serving-{owner}-{port}"


class Bell:
    """Ends the wait of the main thread at every signal that has a handler."""

    def __init__(self) -> None:
        self._hears, self._rings = socket.socketpair()
        self._hears.setblocking(False)
        self._rings.setblocking(False)

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Ring at signals, as long as this lasts."""
        before = signal.set_wakeup_fd(self._rings.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            self._hears.close()
            self._rings.close()

    def wait(self, seconds: float) -> None:
        """Return after a signal, one that came before included, or when the time is over."""
        select.select([self._hears], [], [], seconds)
        with suppress(BlockingIOError):
            self._hears.recv(65_536)  # once: emptying it could take as long as signals keep coming


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
    _bell: Bell = field(default_factory=Bell)
    _told: bool = False

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, or until a worker says that it cannot work; return the exit status."""
        shutil.rmtree(self.metrics, ignore_errors=True)
        self.metrics.mkdir(mode=0o700, parents=True)
        self.listener.listen(2048)
        self._places = [_Place() for _ in range(self.count)]
        environment = {**os.environ, METRICS_DIR: str(self.metrics)}
        ours, theirs = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, _on_child)
        try:
            with self._bell.hung():
                return self._keep(environment, ours)
        finally:
            self._end()
            os.close(ours)
            os.close(theirs)
            shutil.rmtree(self.metrics, ignore_errors=True)

    def _keep(self, environment: Mapping[str, str], lifeline: int) -> int:
        first = True
        while not self._told:
            status = self._bury()
            if status:
                return status
            self._fill(environment, lifeline, first)
            first = False
            self._bell.wait(self._pause())
        return 0

    def _on_stop(self, *_: object) -> None:
        self._told = True

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


def _on_child(*_: object) -> None:
    """Do nothing but ring: without a handler there would be no byte."""
