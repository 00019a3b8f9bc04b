"""Leave to rewrite: at most one process at a time replaces parts of a log.

Owns the lock files of the store, `locks/<root>/<generation>.json`. Only the highest generation counts. It is never
taken away, only followed by the next one, which just one process can create: so a lock that was left behind is taken
over by one, and who slept meanwhile sees a higher generation. A holder that died is recognised at once on its own
machine, and elsewhere by a lock that was not renewed for ten minutes.
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
        key: Its key, with its generation.
        owner: A name nobody else has.
        renewed: Clock reading of the last renewal, seconds.
    """

    store: Store
    key: str
    owner: str
    renewed: float

    def check(self) -> None:
        """Look whether the lease is still this process's, and renew it where it is time to.

        Raises:
            ConflictError: Somebody else has taken it over, because this process slept for too long.
        """
        if not self.is_held():
            raise ConflictError(
                self.store.uri(self.key),
                "must still be held by this process, got another owner",
                "Nothing is lost: run it again.",
            )
        if time.monotonic() - self.renewed >= _RENEW_SECONDS:
            self.store.write_bytes(self.key, _content(self.owner))
            self.renewed = time.monotonic()

    def is_held(self) -> bool:
        """Look in the store whether this is the highest generation, and this process's."""
        newest = _generations(self.store, self.key.rpartition("/")[0])[-1:]
        return newest == [self.key] and _read(self.store, self.key).get("owner") == self.owner


@contextmanager
def rewriting(store: Store, root: str, *, wait: float = 60.0) -> Iterator[Lease]:
    """Hold the right to rewrite what is under `root`.

    Args:
        store: Where it is.
        root: Prefix of the log, such as `predictions/churn`.
        wait: Seconds to wait for another holder.

    Raises:
        ServiceError: Another process held it all the while, or the store cannot keep locks.
    """
    lease = _acquire(store, f"locks/{root}", time.monotonic() + wait)
    try:
        yield lease
    finally:
        if lease.is_held():  # left there as free, so that no generation ever comes twice
            store.write_bytes(lease.key, _content(""))


def _acquire(store: Store, folder: str, deadline: float) -> Lease:
    owner = uuid.uuid4().hex
    while True:
        there = _generations(store, folder)
        held = _read(store, there[-1]) if there else {"owner": ""}
        if held and (not held.get("owner") or _is_stale(held)):
            lease = _follow(store, folder, there, owner)
            if lease:
                return lease
        if time.monotonic() >= deadline:
            raise ServiceError(
                store.uri(there[-1] if there else folder),
                f"must be free, got held by process {held.get('pid')} on {held.get('host')}",
                "Try again when it is done; a lock left behind is ignored after ten minutes.",
            )
        time.sleep(_POLL_SECONDS)


def _follow(store: Store, folder: str, there: list[str], owner: str) -> Lease | None:
    """Create the generation after the newest one; None where somebody else did."""
    last = int(there[-1].rpartition("/")[2].removesuffix(".json")) if there else 0
    lease = Lease(store, f"{folder}/{last + 1:012d}.json", owner, time.monotonic())
    store.claim(lease.key, _content(owner))
    # Looked up, not believed: a slow process may create again what others followed and took away, and an answer
    # of S3 may have been lost on its way.
    if not lease.is_held():
        return None
    for old in there:
        store.delete(old)
    return lease


def _generations(store: Store, folder: str) -> list[str]:
    """Return the keys of a lock's generations, the newest last."""
    found = store.list(f"{folder}/")
    return [k for k in found if k[len(folder) + 1 :].removesuffix(".json").isdigit()]


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
        return False  # followed by another one this very moment: the next look tells
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
