"""Is the traffic itself as usual: how many rows a window has, when they stopped coming, and how many were refused."""

# ruff: noqa: S608  queries are put together from positions and numbers, never from names or values of the data

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from include.monitor.findings import Finding, Status
from include.monitor.phrases import count, percent
from include.monitor.windows import Window
from include.scoring.rows import Rows
from include.spec.schema import Spec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WINDOWS = 3  # earlier windows needed before a number of rows can be unusual
_TYPICAL = 20  # rows a window must usually have for their absence to say something
_COLLAPSE, _SPIKE = 0.2, 5.0  # of the median of earlier windows
_REFUSED = (0.05, 0.5)  # share of rows that warns, and the one that must be exceeded for an alert
_PARTS, _SILENT = 24, 6  # a window's equal parts, and how many empty ones at its end are a silence


def check_volume(
    spec: Spec, rows: int, window: Window, now: datetime, history: Sequence[int]
) -> Finding:
    """Compare a window's number of rows with earlier windows'.

    Alert below a fifth of their median and below half of their quiet end (the lowest tenth), so that nights
    and weekends, where they are among the earlier windows, are not taken for an outage. Warn above five
    times the median and twice the busy end.

    Args:
        spec: Says how many rows a window needs.
        rows: The window's.
        window: The stretch of time.
        now: The time, aware.
        history: Earlier windows' numbers of rows.
    """
    got = f"{count(rows, 'row')} in the window"
    usual = float(np.median(history)) if len(history) >= _WINDOWS else 0.0
    if usual >= _TYPICAL and now >= window.end:
        quiet, busy = np.quantile(history, [0.1, 0.9])
        text = f"{got}, usually {usual:,.0f} (median of {len(history)} earlier ones)"
        if rows < _COLLAPSE * usual and rows < quiet / 2:
            fix = "Find out where the requests went."
            return Finding("volume", None, "alert", f"{text}. {fix}", rows, _COLLAPSE * usual)
        if rows > _SPIKE * usual and rows > 2 * busy:
            fix = "A retry storm, a replay, or success?"
            return Finding("volume", None, "warn", f"{text}. {fix}", rows, _SPIKE * usual)
        got = text
    if rows < spec.monitor.min_rows:
        text = f"{got}; {spec.monitor.min_rows:,} are needed to judge it (monitor.min_rows)."
        return Finding("volume", None, "insufficient_data", text, rows, spec.monitor.min_rows)
    return Finding("volume", None, "ok", f"{got}.", rows)


def check_staleness(rows: Rows, total: int, window: Window, history: Sequence[int]) -> Finding:
    """Look whether rows stopped coming: no row at all, or none at the end of steady traffic.

    Alert where the newest row is older than the window although earlier windows had rows. Warn where every
    one of the first three quarters' hours (a 24th of the window each) had rows and the last quarter none;
    traffic with a rhythm of its own, such as one batch a day, is left alone.

    Args:
        rows: The window's rows.
        total: Their number.
        window: The stretch of time.
        history: Earlier windows' numbers of rows.
    """
    if not total:
        if len(history) >= _WINDOWS and np.median(history) >= _TYPICAL:
            text = f"the newest row is older than {window.start:%Y-%m-%d %H:%M} UTC. Find out what stopped."
            return Finding("staleness", None, "alert", text)
        return Finding("staleness", None, "insufficient_data", "no rows.")
    length = _micros(window.end - window.start)
    at, start = f"epoch_us({rows.at['_time']})", _micros(window.start - _EPOCH)
    place = f"({at} - {start}) * {_PARTS} // {length}"
    busy, last, newest = map(
        int,
        rows.one(f"SELECT count(DISTINCT {place}), max({place}), max({at}) FROM {rows.source}"),
    )
    silence = (start + length - newest) / length
    text = f"the newest row is {percent(silence)} of the window's length before its end"
    if busy == last + 1 == _PARTS - _SILENT:
        text += ", after steady traffic. Did something stop?"
        return Finding("staleness", None, "warn", text, silence, _SILENT / _PARTS)
    return Finding("staleness", None, "ok", f"{text}.", silence, _SILENT / _PARTS)


def check_refusals(spec: Spec, total: int, answered: int) -> Finding:
    """Look how many rows of the log are requests that were refused; one is one row, whatever it asked for.

    Alert where most are: then the answers that are left say little about who asks.

    Args:
        spec: Says how many rows a window needs.
        total: The window's rows.
        answered: Those of them with an answer.
    """
    refused = total - answered
    share = refused / total
    text = f"{refused:,} of {count(total, 'row')} are refused requests ({percent(share)})"
    status: Status = "ok"
    if share >= _REFUSED[0] and total < spec.monitor.min_rows:
        status = "insufficient_data"
        text += f"; {spec.monitor.min_rows:,} rows are needed to judge it (monitor.min_rows)"
    elif share >= _REFUSED[0]:
        status = "alert" if share > _REFUSED[1] else "warn"
        text += ", the log says why (`_error`). Find out which caller changed, or the schema"
    limit = _REFUSED[status == "alert"]
    return Finding("refusals", None, status, f"{text}.", share, limit)


def _micros(length: timedelta) -> int:
    return length // timedelta(microseconds=1)
