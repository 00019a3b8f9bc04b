"""Windows of live time: half-open, of equal length, aligned to the epoch, so that every pass means the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEY = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, order=True)
class Window:
    """One stretch of time, `start` included and `end` not; both aware, in UTC."""

    start: datetime
    end: datetime

    @property
    def key(self) -> str:
        """The window's name in keys of store and ledger, such as `20260131T000000Z`."""
        return self.start.strftime(_KEY)

    def __str__(self) -> str:
        """Return the window as people read it."""
        return f"{self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} UTC"


def start_of(key: str) -> datetime:
    """Return the start of the window of that key."""
    return datetime.strptime(key, _KEY).replace(tzinfo=UTC)


def latest_window(now: datetime, length: timedelta, *, delay: timedelta = timedelta(0)) -> Window:
    """Return the newest window that had ended, `delay` before `now`.

    Args:
        now: The time, aware.
        length: Length of a window.
        delay: How long after its end a window can be looked at: the labels' delay, or nothing.
    """
    count = (now - delay - _EPOCH) // length
    end = _EPOCH + count * length
    return Window(end - length, end)
