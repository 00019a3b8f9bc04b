"""Who a row is about, and when: the key and the event time that a caller may send beside the features.

Owns what counts as a key, as a time and as a request id. Predictions are logged with them and labels refer to
them, so both sides come through here and agree.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote as percent

from include.serving.rejection import bad, quote
from include.store.inputs import category_text

ID_HEADER = "x-request-id"
_MAX_ID, _MAX_KEY = 256, 1000
_ID_BYTES, _IDS = 16, 256
_SCALARS = frozenset((str, int, float, bool, type(None)))
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAX_DAYS = 400
_DAY_MICROS = 86_400 * 1_000_000
_AHEAD_MICROS = 366 * _DAY_MICROS  # forecasts are about times to come
_TIME_FIX = "Send ISO text such as 2026-01-31T12:00:00Z, or seconds since 1970."


@dataclass(frozen=True, slots=True)
class Identity:
    """The optional inputs of a request that are no features.

    Args:
        keys: One text or None per row; None where the caller sent no key column.
        times: Microseconds since 1970 or None per row; None where the caller sent no time column.
    """

    keys: Sequence[str | None] | None = None
    times: Sequence[int | None] | None = None


NOBODY = Identity()
# Ids that nobody has had yet; a child must not give out its parent's.
_NEW_IDS: list[str] = []
os.register_at_fork(after_in_child=_NEW_IDS.clear)


def request_id(given: str | None, where: str = "id") -> str:
    """Return the caller's id of a request, or a new one where it sent none.

    Raises:
        RequestError: It is too long.
    """
    if not given:
        return _new_id()
    if len(given) > _MAX_ID:
        raise bad(
            where, f"must have at most {_MAX_ID} characters, got {len(given)}", "Send a shorter id."
        )
    return given


def _new_id() -> str:
    """Return what is as unlikely to meet again as a UUID, and as hard to guess.

    Many are drawn at a time: one call to the kernel for each took 10 us in a virtual machine.
    """
    while True:
        try:
            return _NEW_IDS.pop()
        except IndexError:
            drawn, width = os.urandom(_ID_BYTES * _IDS).hex(), 2 * _ID_BYTES
            _NEW_IDS.extend(drawn[n : n + width] for n in range(0, len(drawn), width))


def as_header(text: str) -> str:
    """Return an id as it may stand in a header: as it is where it is plain, else percent-encoded."""
    return text if text.isascii() and text.isprintable() and text == text.strip() else percent(text)


def read_key(value: Any, where: str) -> str | None:
    """Return a key as text, the way a category is written; None for null.

    Raises:
        RequestError: It is a list or an object, or too long.
    """
    if type(value) not in _SCALARS:
        raise bad(where, f"must be text or a number, got {quote(value)}", "Send one key per row.")
    text = category_text(value)
    if text is not None and len(text) > _MAX_KEY:
        raise bad(
            where,
            f"must have at most {_MAX_KEY} characters, got {len(text)}",
            "Send the entity's id.",
        )
    return text


def read_keys(values: Sequence[Any], where: str) -> list[str | None]:
    """Return a column of keys; see `read_key`."""
    return [read_key(value, where) for value in values]


def read_time(value: Any, where: str, now: float) -> int | None:
    """Return an event time in microseconds since 1970; None for null.

    Args:
        value: ISO text (without an offset it is UTC), or seconds since 1970 as a number or its text.
        where: What to call it in an error.
        now: The time, in seconds since 1970.

    Raises:
        RequestError: It is no time, or one before 1970 or more than a year ahead.
    """
    if value is None or value == "":
        return None
    micros = _micros(value)
    if micros is None:
        raise bad(where, f"must be a time, got {quote(value)}", _TIME_FIX)
    if not 0 <= micros <= now * 1e6 + _AHEAD_MICROS:
        raise bad(
            where,
            f"must lie between 1970 and a year from now, got {quote(value)}",
            f"{_TIME_FIX} Milliseconds are not understood.",
        )
    return micros


def read_times(values: Sequence[Any], where: str) -> list[int | None]:
    """Return a column of event times; see `read_time` and `check_days`."""
    now = time.time()
    times = [read_time(value, where, now) for value in values]
    check_days(times, where)
    return times


def check_days(times: Iterable[int | None], where: str) -> None:
    """Raise where a request spreads over so many days that storing it would hold up all others.

    A day is a file of its own.
    """
    days = len({time // _DAY_MICROS for time in times if time is not None})
    if days > _MAX_DAYS:
        raise bad(
            where,
            f"must lie on at most {_MAX_DAYS} different days in one request, got {days}",
            "Sort by time and split the request into smaller ones.",
        )


def _micros(value: Any) -> int | None:
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.fullmatch(text):
            return _from_iso(text)
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return round(value * 1_000_000)
    except (OverflowError, ValueError):
        return None


def _from_iso(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (aware - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        return None
