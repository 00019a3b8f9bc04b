"""`evergreen drift --backtest`: what the monitor would have said about the past, for other thresholds too.

Owns the count of alarms. What a threshold makes of a replayed window is arithmetic, done by the very rules that
decide live.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from include.monitor.decide import Outcome, decide, features_needed
from include.monitor.findings import Finding
from include.monitor.performance import judge
from include.monitor.replay import Replayed, with_drift
from include.monitor.windows import latest_window
from include.spec.schema import Drift, Performance, Spec

THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)
DROPS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # of the spec's own
Kind = Literal["drift", "decay"]


@dataclass(frozen=True)
class Row:
    """What one threshold would have done.

    Attributes:
        kind: Drift or decay.
        threshold: `monitor.drift.alert`, or `monitor.performance.max_drop`.
        own: Whether it is the spec's.
        violations: Windows that violate.
        alarms: Windows after which a retrain would have been asked for, drift confirmed by k of n.
        false_per_100: Alarms per 100 windows before the drift began; None where that is not known.
        delay: Windows from the first one with drift to the first alarm, both counted; None where that is not known,
            or there was none.
    """

    kind: Kind
    threshold: float
    own: bool
    violations: int
    alarms: int
    false_per_100: float | None
    delay: int | None


def outcomes(spec: Spec, replayed: Sequence[Replayed]) -> list[Outcome]:
    """Decide each window by the spec's thresholds, with the windows before it as its history.

    Args:
        spec: Its thresholds, share, k and n count; `retrain.on` does not: what would be wished for is shown.
        replayed: What `replay` gave, all of it, oldest first.
    """
    asking = spec.model_copy(
        update={"retrain": spec.retrain.model_copy(update={"on": ("drift", "decay")})}
    )
    history: dict[str, list[Mapping[str, Any]]] = {}
    decided = []
    for one in replayed:
        past = history.setdefault(one.version, [])
        findings = (*one.quality, *_judged(spec.monitor.drift, one.drift), *_decayed(spec, one))
        outcome = decide(asking, findings, past, window=one.window.key)
        past.append(
            {
                "window": one.window.key,
                "drifts": outcome.drifts,
                "broken": outcome.broken,
            }
        )
        decided.append(outcome)
    return decided


def table(
    spec: Spec,
    replayed: Sequence[Replayed],
    *,
    began: datetime | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[Row]:
    """Count the alarms of each threshold: of drift, then of decay where the spec watches a metric.

    Args:
        spec: Everything but the threshold is its own.
        replayed: What `replay` gave.
        began: When the drift began, aware: alarms after windows that ended before were false. None: not known.
        thresholds: Values of `monitor.drift.alert` to try beside the spec's.
    """
    own = spec.monitor.drift.alert
    rows = [
        _row("drift", with_drift(spec, value), replayed, value, math.isclose(value, own), began)
        for value in sorted({*thresholds, own})
        if value == own or not math.isclose(value, own)
    ]
    watched = spec.monitor.performance
    if watched is not None and any(one.performance for one in replayed):
        for factor in DROPS:
            drop = watched.max_drop * factor
            tried = _with_drop(spec, watched, drop)
            rows.append(_row("decay", tried, replayed, drop, factor == 1.0, began))
    return rows


def level(rules: Drift, drift: Sequence[Finding]) -> float:
    """Return the largest threshold at which a window violates; 0 where it does at none.

    Args:
        rules: Share and critical features.
        drift: What the check of drift found, as `Replayed.drift` has it.
    """
    features = [f for f in drift if f.check == "drift" and f.column is not None]
    proven = [f for f in features if f.status == "alert"]
    values = sorted((f.value or 0.0 for f in proven), reverse=True)
    needed = features_needed(rules, len(features))
    enough = [values[needed - 1]] if len(values) >= needed else []
    critical = [f.value or 0.0 for f in proven if f.column in rules.critical]
    said = [f.value or 0.0 for f in drift if f.check == "prediction_drift" and f.status == "alert"]
    return max([0.0, *enough, *critical, *said])


def alarm_at(spec: Spec, one: Replayed, kind: Kind) -> datetime:
    """Return the end of the window after which the monitor would have spoken: decay waits for its labels."""
    delayed = spec.monitor.labels
    if kind == "drift" or delayed is None:
        return one.window.end
    length = spec.monitor.window
    due = one.window.end + delayed.delay
    known = latest_window(due, length).end
    return known if known >= due else known + length


def _row(
    kind: Kind,
    spec: Spec,
    replayed: Sequence[Replayed],
    threshold: float,
    own: bool,
    began: datetime | None,
) -> Row:
    decided = outcomes(spec, replayed)
    violations = [o.drifts if kind == "drift" else o.decays for o in decided]
    loud = [
        one
        for one, outcome in zip(replayed, decided, strict=True)
        if any(wish.source == kind for wish in outcome.wishes)
    ]
    row = Row(kind, threshold, own, sum(violations), len(loud), None, None)
    if began is None:
        return row
    calm = sum(one.window.end <= began for one in replayed)
    false = sum(one.window.end <= began for one in loud)
    right = [alarm_at(spec, one, kind) for one in loud if one.window.end > began]
    first = latest_window(began, spec.monitor.window).end
    delay = (right[0] - first) // spec.monitor.window if right else None
    return replace(row, false_per_100=100 * false / calm if calm else None, delay=delay)


def _with_drop(spec: Spec, watched: Performance, drop: float) -> Spec:
    changed = watched.model_copy(update={"max_drop": drop})
    monitor = spec.monitor.model_copy(update={"performance": changed})
    return spec.model_copy(update={"monitor": monitor})


def _judged(rules: Drift, drift: Sequence[Finding]) -> Iterator[Finding]:
    """Yield what the check would have found at the rules' thresholds."""
    for finding in drift:
        value = finding.value or 0.0
        if finding.status != "alert":
            yield finding
        elif value >= rules.alert:
            yield replace(finding, threshold=rules.alert)
        elif value >= rules.warn:
            yield replace(finding, status="warn", threshold=rules.warn)
        else:
            yield replace(finding, status="ok", threshold=rules.alert)


def _decayed(spec: Spec, one: Replayed) -> Iterator[Finding]:
    if one.performance is not None and spec.monitor.performance is not None:
        yield judge(spec.monitor.performance, one.performance)
