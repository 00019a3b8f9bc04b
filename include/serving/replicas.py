"""What this serving process tells the ledger about itself, so that `deploy` can wait for all of them.

Owns the replica's id and the form of its report. Serving needs nothing of the ledger: while that is away, reports
are lost and requests go on.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Protocol

from include.errors import ServiceError
from include.serving.served import Served
from include.serving.telemetry import log_event

_BEAT_SECONDS = 5.0


class Ledger(Protocol):
    """The part of the ledger that a replica speaks to."""

    def report_replica(
        self, id: str, state: Mapping[str, Any] | None, *, started_at: datetime, now: datetime
    ) -> bool:
        """Note that a replica lives; False when the ledger lacks its state."""

    def drop_replica(self, id: str) -> None:
        """Forget a replica."""

    def record(
        self,
        model: str,
        kind: str,
        key: str,
        payload: Mapping[str, Any],
        actor: str,
        now: datetime,
    ) -> object:
        """Append an event, once for its key."""


def replica_id() -> str:
    """Return a name for this process that no other one has or will have."""
    return f"{socket.gethostname()[:150]}/{os.getpid()}/{secrets.token_hex(4)}"


def describe(table: Mapping[str, Served]) -> dict[str, Any]:
    """Return what a replica says: the models of which anything is loaded, or failed to."""
    return {
        "models": {
            name: _describe(served)
            for name, served in table.items()
            if served.engines or served.failures
        }
    }


def _describe(served: Served) -> dict[str, Any]:
    rollout = served.rollout
    return {
        "champion": served.champion.version if served.champion else None,
        "loaded": [engine.version for engine in served.engines],
        "failures": {
            version: {"error": failure.error, "permanent": failure.permanent}
            for version, failure in served.failures.items()
        },
        "rollout": asdict(rollout) if rollout else None,
    }


class Reporter:
    """Reports the follower's table to the ledger: at once after a change, and every few seconds.

    Args:
        ledger: Where to.
        table: Returns the table as of now; another object after every change.
        id: The replica's id; None for a new one.
        beat_seconds: Longest pause between two reports.
    """

    def __init__(
        self,
        ledger: Ledger,
        table: Callable[[], Mapping[str, Served]],
        *,
        id: str | None = None,
        beat_seconds: float = _BEAT_SECONDS,
    ) -> None:
        self.id = id or replica_id()
        self._ledger, self._table, self._beat_seconds = ledger, table, beat_seconds
        self._started_at = datetime.now(UTC)
        self._told: Mapping[str, Served] | None = None
        self._state: dict[str, Any] | None = None
        self._lost = False
        self._refused: dict[tuple[str, str], str] = {}
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="replica-report", daemon=True)

    def start(self) -> None:
        """Begin to report, in a thread of its own: the ledger may hang."""
        self._thread.start()

    def wake(self) -> None:
        """Report now: something changed."""
        self._wake.set()

    def refused(self, name: str, version: str, error: str) -> None:
        """Have it recorded that a version cannot be served; once, however many replicas refuse it."""
        self._refused[name, version] = error
        self._wake.set()

    def stop(self, patience: float = 3.0) -> None:
        """End reporting and have the ledger forget this replica; at most `patience` seconds."""
        self._stop.set()
        self._wake.set()
        self._thread.join(patience)

    def report(self) -> None:
        """Tell the ledger how things stand; the state only when it changed."""
        table = self._table()
        state = self._state if table is self._told else describe(table)
        news = state if state != self._state else None
        known = self._tell(news)
        if (
            not known and state is not None
        ):  # the row was removed: somebody cleaned up while we were silent
            self._tell(state)
        self._told, self._state = table, state
        for (name, version), error in list(self._refused.items()):
            payload = {"version": version, "error": error, "replica": self.id}
            key = f"refused:{version}"
            self._ledger.record(name, "refused", key, payload, "serving", datetime.now(UTC))
            del self._refused[name, version]

    def _tell(self, state: dict[str, Any] | None) -> bool:
        return self._ledger.report_replica(
            self.id, state, started_at=self._started_at, now=datetime.now(UTC)
        )

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            self._guarded(self.report)
            self._wake.wait(self._beat_seconds)
        self._guarded(lambda: self._ledger.drop_replica(self.id))

    def _guarded(self, call: Callable[[], object]) -> None:
        try:
            call()
        except ServiceError as error:
            if not self._lost:
                log_event("ledger_lost", level=logging.WARNING, error=str(error))
            self._lost = True
        except Exception:  # whatever it is, requests go on
            logging.getLogger("evergreen.serving").exception("report_failed")
        else:
            if self._lost:
                log_event("ledger_back", replica=self.id)
            self._lost = False
