"""Leave to rewrite: at most one process at a time replaces parts of a log.

Owns the lock files of the store. A lock is a small JSON file that only one writer can create; a holder that
died is recognised at once on its own machine, and elsewhere by a lock that was not renewed for ten minutes.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from include.errors import ConflictError, DataError, ServiceError
from include.store.files import Store

_STALE_SECONDS = 600.0
_RENEW_SECONDS = 60.0
_POLL_SECONDS = 0.2


@dataclass
class Lease:
    """The right to rewrite, held by this process; ask `check` before every step that cannot be undone.

    Args:
        store: Where the lock is.
        key: Its key.
        owner: A name nobody else has.
        renewed: Clock reading of the last renewal, seconds.
    """

    store: Store
    key: str
    owner: str
    renewed: float

    def check(self) -> None:
        """Renew the lease where it is time to.

        Raises:
            ConflictError: Somebody else has taken it over, because this process slept for too long.
        """
        if time.monotonic() - self.renewed < _RENEW_SECONDS:
            return
        held = _read(self.store, self.key)
        if held.get("owner") != self.owner:
            raise ConflictError(
                self.store.uri(self.key),
                "must still be held by this process, got another owner",
                "Nothing is lost: run it again.",
            )
        self.store.write_bytes(self.key, _content(self.owner))
        self.renewed = time.monotonic()


@contextmanager
def rewriting(store: Store, root: str, *, wait: float = 60.0) -> Iterator[Lease]:
    """Hold the right to rewrite what is under `root`.

    Args:
        store: Where it is.
        root: Prefix of the log, such as `predictions/churn`.
        wait: Seconds to wait for another holder.

    Raises:
        ServiceError: Another process held it all the while.
    """
    lease = _acquire(store, f"locks/{root}.json", time.monotonic() + wait)
    try:
        yield lease
    finally:
        if _read(store, lease.key).get("owner") == lease.owner:
            store.delete(lease.key)


def _acquire(store: Store, key: str, deadline: float) -> Lease:
    owner = uuid.uuid4().hex
    while True:
        if store.write_bytes(key, _content(owner), if_absent=True):
            return Lease(store, key, owner, time.monotonic())
        held = _read(store, key)
        if _is_stale(held):
            store.delete(key)
            continue
        if time.monotonic() >= deadline:
            raise ServiceError(
                store.uri(key),
                f"must be free, got held by process {held.get('pid')} on {held.get('host')}",
                "Try again when it is done; a lock left behind is ignored after ten minutes.",
            )
        time.sleep(_POLL_SECONDS)


def _content(owner: str) -> bytes:
    return json.dumps(
        {"owner": owner, "host": socket.gethostname(), "pid": os.getpid(), "at": time.time()}
    ).encode()


def _read(store: Store, key: str) -> dict[str, Any]:
    """Return what the lock says; nothing where it is gone or unreadable."""
    try:
        held = json.loads(store.read_bytes(key))
    except (DataError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _is_stale(held: dict[str, Any]) -> bool:
    if not held:
        return False  # given back this very moment: the next attempt to create it tells
    if time.time() - float(held.get("at", 0)) > _STALE_SECONDS:
        return True
    return held.get("host") == socket.gethostname() and not _runs(int(held.get("pid", 0)))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
