"""The past, window by window, as the monitor would have looked at it.

What is slow, the statistics of a window, is computed here, once per window and for no threshold in particular.
"""

# ruff: noqa: S608  queries are put together from positions, never from names or values of the data

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from include.errors import DataError
from include.monitor.collect import Collected, collect
from include.monitor.drift import check_drift
from include.monitor.findings import Finding
from include.monitor.performance import Measurement, join, measure
from include.monitor.quality import check_quality
from include.monitor.reference import Reference
from include.monitor.windows import Window, latest_window
from include.scoring.metrics import Floats
from include.scoring.rows import Rows
from include.spec.schema import Spec
from include.store.files import Store
from include.store.labels import read_labels
from include.store.parts import day_of
from include.store.predictions import copy_window, part_keys

_ANY = 1e-12  # a threshold that everything passes which cannot be chance
_MOST_WINDOWS = 5000
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class Replayed:
    """What is known of one window of the past.

    Attributes:
        window: The stretch of time.
        version: The version that answered most of it.
        rows: Its predictions.
        quality: What the checks of quality found.
        drift: What the check of drift found, at a threshold of nothing: an alert is what cannot be chance.
        performance: The live metric; None where the spec watches none, or labels are not due yet.
    """

    window: Window
    version: str
    rows: int
    quality: tuple[Finding, ...]
    drift: tuple[Finding, ...]
    performance: Measurement | None


def find_windows(
    spec: Spec, store: Store, now: datetime, start: datetime | None, end: datetime | None
) -> list[Window]:
    """Return the windows to replay, oldest first: those that lie in the log, and between `start` and `end`.

    Raises:
        DataError: The log holds nothing there, or too many windows.
    """
    first, last = start or datetime(1970, 1, 2, tzinfo=UTC), min(end or now, now)
    days = [day_of(key) for key in part_keys(store, spec.model, first.date(), last.date())]
    known = sorted(day for day in days if day is not None)
    length = spec.monitor.window
    if known:
        first = max(first, _midnight(known[0]))
        newest = _midnight(known[-1]) + timedelta(days=1)
        last = min(last, latest_window(newest + length - _TICK, length).end)
    window, found = latest_window(last, length), list[Window]()
    while known and window.end > first and len(found) <= _MOST_WINDOWS:
        found.append(window)
        window = Window(window.start - length, window.start)
    if not found or len(found) > _MOST_WINDOWS:
        span = f"from {start:%Y-%m-%d}" if start else "so far"
        got = "none" if not found else f"more than {_MOST_WINDOWS:,}"
        raise DataError(
            f"prediction log of {spec.model}",
            f"must hold windows to replay {span}, got {got}",
            "Let serving log predictions first, or choose other dates.",
        )
    return found[::-1]


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def replay(
    spec: Spec,
    store: Store,
    windows: Sequence[Window],
    reference_of: Callable[[str], Reference],
    *,
    now: datetime,
) -> Iterator[Replayed]:
    """Look at windows of the past as the monitor would have, one after the other.

    Windows without a prediction before the first one that has some are left out.

    Args:
        spec: The model's spec as it is now.
        store: Where the log and the labels are.
        windows: As `find_windows` returns them.
        reference_of: Returns the reference of a version.
        now: Labels that are due later than this are not waited for.
    """
    counts: dict[str, list[int]] = {}
    draws: dict[str, Floats] = {}
    version: str | None = None
    strict = with_drift(spec, _ANY)
    with tempfile.TemporaryDirectory(prefix="evergreen-backtest-") as folder:
        for window in windows:
            version = _busiest(spec, store, window, Path(folder)) or version
            if version is None:
                continue
            found = collect(spec, store, window, version, out=Path(folder))
            reference, before = reference_of(version), counts.setdefault(version, [])
            yield Replayed(
                window,
                version,
                found.rows,
                check_quality(
                    spec, found.path, reference, window, now=window.end, history=tuple(before)
                ),
                check_drift(strict, found.path, reference),
                _performance(spec, store, found, reference, now, draws),
            )
            before.append(found.rows)


def _busiest(spec: Spec, store: Store, window: Window, folder: Path) -> str | None:
    """Return the version that answered most of a window; None where nothing was answered."""
    path = folder / "all.parquet"
    if not copy_window(store, spec.model, window.start, window.end, path):
        return None
    with Rows([path], answered=True) as rows:
        version = rows.at["_version"]
        found = rows.one(
            f"SELECT {version} AS v FROM {rows.source} GROUP BY v ORDER BY count(*) DESC, v LIMIT 1"
        )
    return str(found[0]) if found else None


def _performance(
    spec: Spec,
    store: Store,
    found: Collected,
    reference: Reference,
    now: datetime,
    draws: dict[str, Floats],
) -> Measurement | None:
    delayed, watched = spec.monitor.labels, spec.monitor.performance
    if delayed is None or watched is None or found.window.end + delayed.delay > now:
        return None
    # Labels that came later than this the pass that judged the window did not know.
    last = found.window.end + delayed.delay + spec.monitor.window
    labels = read_labels(store, spec.model, found.window.start, min(now, last))
    joined = join(spec, found.path, labels)
    return measure(spec, watched, joined, reference, holdout_draws=draws)


def with_drift(spec: Spec, alert: float) -> Spec:
    """Return the spec with another threshold of drift."""
    drift = spec.monitor.drift
    changed = drift.model_copy(update={"alert": alert, "warn": min(drift.warn, alert)})
    monitor = spec.monitor.model_copy(update={"drift": changed})
    return spec.model_copy(update={"monitor": monitor})
