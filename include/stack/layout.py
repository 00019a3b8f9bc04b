"""Where the embedded stack keeps its files, all under `EVERGREEN_HOME` and readable by its owner only."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.errors import ConflictError, ServiceError, SpecError

# sun_path holds 104 bytes on macOS and 108 on Linux; supervisord binds `<socket>.<pid>` before it renames.
_SOCKET_BYTES = 90
# These mean something in SQLAlchemy URLs, in Airflow's settings or in supervisord's file.
_FORBIDDEN = '?#$%;"\n'


@dataclass(frozen=True)
class Layout:
    """Paths of one stack.

    Args:
        home: The stack's folder, absolute and resolved; also its identity on this machine.
    """

    home: Path

    @property
    def run(self) -> Path:
        """Folder of what only lives while the stack runs."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        """Folder of every component's log."""
        return self.home / "logs"

    @property
    def airflow(self) -> Path:
        """`AIRFLOW_HOME` of the scheduler's Airflow."""
        return self.home / "airflow"

    @property
    def credentials(self) -> Path:
        """File of the generated passwords and keys."""
        return self.home / "credentials.json"

    @property
    def login_shown(self) -> Path:
        """Marker: the admin's password has been printed."""
        return self.home / "login-shown"

    @property
    def supervisor_conf(self) -> Path:
        """Configuration written for supervisord at each start."""
        return self.run / "supervisord.conf"

    @property
    def state(self) -> Path:
        """What the running stack was started with (socket, ports)."""
        return self.run / "state.json"

    def log(self, component: str) -> Path:
        """Log file of one component."""
        return self.logs / f"{component}.log"

    def socket(self) -> Path:
        """Control socket for a new start: in `run`, or in a private short folder when that path is too long."""
        path = self.run / "supervisor.sock"
        if len(os.fsencode(path)) <= _SOCKET_BYTES:
            return path
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path(base) / f"evergreen-{os.getuid()}" / f"{digest}.sock"

    def read_state(self) -> dict[str, Any]:
        """Return what the last start recorded; empty when there was none or it is unreadable."""
        try:
            state = json.loads(self.state.read_text())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def write_state(self, state: dict[str, Any]) -> None:
        """Record what this start uses."""
        write_private(self.state, json.dumps(state, indent=1) + "\n")

    @contextlib.contextmanager
    def lock(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the right to start or stop this stack; the kernel releases it when the holder dies.

        Args:
            waiting: Called once when somebody else holds it, before waiting.
        """
        with (self.run / "lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield


@contextlib.contextmanager
def only_one(path: Path, refusal: ConflictError) -> Iterator[None]:
    """Hold a lock file, without waiting; the kernel releases it when the holder dies.

    Args:
        path: The lock; its folder is made when missing.
        refusal: Raised when somebody else holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        yield


def get_layout(home: Path) -> Layout:
    """Return the layout under `home` without creating anything.

    Raises:
        SpecError: The path holds a character that database URLs or settings files cannot carry.
    """
    resolved = home.expanduser().resolve()
    bad = sorted({char for char in str(resolved) if char in _FORBIDDEN})
    if bad:
        raise SpecError(
            "EVERGREEN_HOME",
            f"must be a path without {' '.join(repr(c) for c in _FORBIDDEN)}, got {str(resolved)!r}",
            "Choose another folder.",
        )
    return Layout(resolved)


def prepare(layout: Layout) -> None:
    """Create the stack's folders, private to their owner.

    Raises:
        ServiceError: The folder cannot be created or belongs to somebody else.
    """
    os.umask(0o077)
    folders = [layout.home, layout.run, layout.logs, layout.airflow, layout.socket().parent]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise ServiceError(
                "EVERGREEN_HOME",
                f"must be a folder this user owns, got {folder} ({error.strerror})",
                "Set EVERGREEN_HOME to a folder you can write.",
            ) from error


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 600 in one step: readers see the old text or the new, never a part."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
