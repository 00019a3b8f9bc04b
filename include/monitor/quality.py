"""`quality`: is the window's data what it should be? Counts over every row, against the reference's profile.

Requests that were refused have no features: they count as traffic, and have a check of their own.

An alert of these checks means that the data is broken, not that the world changed; nothing is retrained on it.
A check that finds nothing says so with one finding of status `ok`.
"""

# ruff: noqa: S608  queries are put together from positions and numbers, never from names or values of the data

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from include.monitor.findings import Check, Finding, Status
from include.monitor.phrases import percent, shortened
from include.monitor.profile import ColumnProfile
from include.monitor.reference import Reference
from include.monitor.traffic import check_refusals, check_staleness, check_volume
from include.monitor.windows import Window
from include.scoring.rows import Rows
from include.scoring.significance import adjusted, proportions
from include.spec.schema import Spec
from include.store.predictions import PREDICTIONS

ALPHA = (
    0.01  # chance of a warning or alert about null shares where nothing changed, over all features
)
_FEW = 3  # rows that may be odd without being worth a word
_OUTSIDE = (0.001, 0.01)  # share of rows far outside the range, or infinite, that warns and alerts
_UNSEEN = (0.01, 0.5)  # share of rows with an unknown category that warns and alerts
_PASSED: dict[Check, str] = {
    "schema": "every feature is there with its type",
    "nulls": "no feature misses many more or fewer values than for the champion",
    "range": "numbers are finite and lie near the champion's range",
    "categories": "hardly a category that the champion does not know",
}


@dataclass(frozen=True)
class _Counts:
    """Rows of one feature in the window: without a value, with an infinity, far outside the range."""

    column: ColumnProfile
    rows: int
    nulls: int
    infinite: int = 0
    outside: int = 0
    low: float | None = None
    high: float | None = None


def check_quality(
    spec: Spec,
    path: Path,
    reference: Reference,
    window: Window,
    *,
    now: datetime,
    history: Sequence[int] = (),
) -> tuple[Finding, ...]:
    """Check the data of a window, all rows of it.

    Args:
        spec: Limits: `monitor.min_rows` and `validate.max_null_increase`.
        path: What `collect` wrote.
        reference: What the champion learned from.
        window: The stretch of time.
        now: The time, aware; a window that has not ended yet is not judged by its volume.
        history: Numbers of rows of earlier windows.

    Returns:
        At least one finding per check; a window with fewer answers than `monitor.min_rows` is judged by
        its traffic and schema only.

    Raises:
        DataError: The file cannot be read.
    """
    with Rows([path]) as rows:
        total = rows.count()
        found = [check_volume(spec, total, window, now, history)]
        found.append(check_staleness(rows, total, window, history))
    if not total:
        return tuple(found)
    with Rows([path], answered=True) as rows:
        answered = rows.count()
        found.append(check_refusals(spec, total, answered))
        if not answered:
            return tuple(found)
        schema = list(_schema(rows, reference))
        found += schema
        wrong = {f.column for f in schema if f.status == "alert"}
        usable = [c for c in reference.profile.columns if c.name not in wrong]
        if answered < spec.monitor.min_rows:
            return (*found, *_passed("schema", schema))
        counts = _count(rows, usable, answered)
        groups: dict[Check, list[Finding]] = {
            "schema": schema,
            "nulls": list(_nulls(spec, reference, counts)),
            "range": [f for c in counts for f in _ranges(c)],
            "categories": [f for c in counts for f in _categories(rows, c)],
        }
    for check, findings in groups.items():
        found += ([] if check == "schema" else findings) + _passed(check, findings)
    return tuple(found)


def _passed(check: Check, found: Sequence[Finding]) -> list[Finding]:
    return [] if found else [Finding(check, None, "ok", f"{_PASSED[check]}.")]


def _schema(rows: Rows, reference: Reference) -> Iterator[Finding]:
    known = {column.name: column for column in reference.profile.columns}
    for name, column in known.items():
        if name not in rows.at:
            text = "must be among the logged features, got no such column. The log is incomplete: look at what serving writes."
            yield _finding("schema", name, "alert", text)
        elif (column.kind == "numeric") != rows.is_number(name) and _has_values(rows, name):
            text = f"must hold {'numbers' if column.kind == 'numeric' else 'texts'}, got type {rows.types[name]}. Something else than serving wrote the log."
            yield _finding("schema", name, "alert", text)
    for name in rows.at:
        if name not in known and name not in PREDICTIONS.names:
            text = "is logged and unknown to the champion. Nothing is lost: the model does not read it."
            yield _finding("schema", name, "warn", text)


def _has_values(rows: Rows, name: str) -> bool:
    return bool(rows.one(f"SELECT count({rows.at[name]}) FROM {rows.source}")[0])


def _count(rows: Rows, columns: Sequence[ColumnProfile], total: int) -> list[_Counts]:
    parts = {}
    for column in columns:
        name = column.name
        parts[name] = [f"count(*) FILTER ({rows.missing(name)})"]
        if column.kind == "numeric" and rows.is_number(name):
            finite, bounds = rows.finite(name), column.bounds()
            outside = f"{finite} NOT BETWEEN {bounds[0]!r} AND {bounds[1]!r}" if bounds else "false"
            parts[name] += [
                f"count(*) FILTER (isinf({rows.at[name]}::DOUBLE))",
                f"count(*) FILTER ({outside})",
                f"min({finite})",
                f"max({finite})",
            ]
    found = rows.per_column([c.name for c in columns], parts)
    return [_Counts(c, total, *found[c.name]) for c in columns]


def _nulls(spec: Spec, reference: Reference, counts: Sequence[_Counts]) -> Iterator[Finding]:
    limit, before = spec.validate_.max_null_increase, reference.profile.rows
    chances = adjusted(
        [proportions(c.nulls, c.rows, round(c.column.null_share * before), before) for c in counts]
    )
    for counted, chance in zip(counts, chances, strict=True):
        was, share = counted.column.null_share, counted.nulls / counted.rows
        grown = share - was
        text = f"{percent(share)} of values are missing, for the champion {percent(was)}"
        if share == 1 and was < 1:
            yield _finding(
                "nulls",
                counted.column.name,
                "alert",
                f"{text}. Find out what stopped at the source.",
                grown,
                limit,
            )
        elif chance >= ALPHA or abs(grown) < limit / 2:
            continue
        elif grown > limit:
            fix = "Find out what stopped at the source, or raise validate.max_null_increase."
            yield _finding("nulls", counted.column.name, "alert", f"{text}. {fix}", grown, limit)
        else:
            fix = "Missing at the source?" if grown > 0 else "Is a default filled in at the source?"
            yield _finding("nulls", counted.column.name, "warn", f"{text}. {fix}", grown, limit / 2)


def _ranges(counted: _Counts) -> Iterator[Finding]:
    column = counted.column
    infinite = counted.infinite / counted.rows
    if counted.infinite and infinite > column.infinite_share:
        text = f"{percent(infinite)} of values are infinite, for the champion {percent(column.infinite_share)}. Look for a division by zero at the source."
        status: Status = "alert" if infinite - column.infinite_share >= _OUTSIDE[1] else "warn"
        yield _finding("range", column.name, status, text, infinite, _OUTSIDE[1])
    outside = counted.outside / counted.rows
    if counted.outside < _FEW or outside < _OUTSIDE[0]:
        return
    status = "alert" if outside >= _OUTSIDE[1] else "warn"
    text = (
        f"{percent(outside)} of values ({counted.outside:,}) lie far outside the champion's range. "
        "Look for a changed unit or a marker such as -999."
    )
    seen = (
        f"{counted.low:.6g} to {counted.high:.6g}",
        f"{column.low:.6g} to {column.high:.6g} for the champion",
    )
    yield _finding("range", column.name, status, text, outside, _OUTSIDE[1], seen)


def _categories(rows: Rows, counted: _Counts) -> Iterator[Finding]:
    """Unknown categories; as many as data of the same kind brings anyway are expected."""
    column = counted.column
    present = counted.rows - counted.nulls
    if not column.categories or not present:
        return
    rows.offer("known", pa.table({"v": pa.array(list(column.categories), pa.string())}))
    new = (
        f"SELECT v, count(*) AS n FROM (SELECT {rows.at[column.name]}::VARCHAR AS v FROM {rows.source}) "
        "WHERE v IS NOT NULL AND v NOT IN (SELECT v FROM known) GROUP BY v"
    )
    unseen, kinds = map(int, rows.one(f"SELECT coalesce(sum(n), 0), count(*) FROM ({new})"))
    share = unseen / present
    if unseen < _FEW or share < _UNSEEN[0] + 2 * column.unseen_share:
        return
    status: Status = "alert" if share >= _UNSEEN[1] else "warn"
    some = shortened(str(v[0]) for v in rows.all(f"{new} ORDER BY n DESC, v LIMIT 3"))
    what = "category" if kinds == 1 else "categories"
    text = (
        f"{percent(share)} of values ({unseen:,}) are of {kinds:,} {what} unknown to the champion. "
        "A new value at the source, or a new spelling of an old one?"
    )
    limit = _UNSEEN[status == "alert"]
    yield _finding("categories", column.name, status, text, share, limit, some)


def _finding(
    check: Check,
    column: str,
    status: Status,
    text: str,
    value: float | None = None,
    threshold: float | None = None,
    examples: tuple[str, ...] = (),
) -> Finding:
    text = f"column {column!r}: {text}"
    return Finding(check, column, status, text, value, threshold, examples)
