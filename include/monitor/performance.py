"""`performance`: how good the champion's answers turned out to be, once the labels are in.

Owns coverage and decay. Decay is judged against the champion's own holdout, and only where the whole interval of the
difference lies beyond the limit: luck on either side is no decay. Nor are a few labels: who gets one is no accident.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from include.monitor.findings import Finding, Status
from include.monitor.phrases import percent
from include.monitor.reference import Reference
from include.scoring.answers import Answers, Unreadable, answers_of
from include.scoring.bootstrap import RESAMPLES, Interval, interval, resample
from include.scoring.labelled import Labelled, join_labels
from include.scoring.metrics import LABEL_METRICS, Floats, statistic
from include.spec.metrics import HIGHER_IS_BETTER
from include.spec.schema import Performance, Spec

__all__ = ["Measurement", "check_performance", "join_labels", "judge", "measure"]

_SEED = 0


@dataclass(frozen=True)
class Measurement:
    """The live metric of one matured window beside the champion's own.

    Attributes:
        metric: The metric.
        rows: Labelled rows it was computed from.
        live: Its live value; None where it cannot be computed.
        holdout: The champion's value on its holdout; None where it is not known.
        interval: Of the improvement, live over holdout (so negative is worse), at the spec's one-sided confidence;
            None where there is none.
        problem: Why it cannot be judged; None where it can.
        doubt: Why it proves no decay all the same; None where it may.
    """

    metric: str
    rows: int
    live: float | None = None
    holdout: float | None = None
    interval: Interval | None = None
    problem: str | None = None
    doubt: str | None = None


def check_performance(
    spec: Spec, path: Path, labels: pa.Table, reference: Reference, *, labels_due: bool = True
) -> tuple[Finding, ...]:
    """Judge a matured window: how much of it is labelled, and whether the champion got worse.

    Args:
        spec: The model's spec; without `monitor.labels` there is nothing to judge.
        path: Parquet file of the window, as `collect` wrote it.
        labels: Labels as `include.store.labels.read_labels` returns them.
        reference: The champion's.
        labels_due: Whether a window without any label is worth an alert; false where labels never came before.

    Returns:
        One finding of coverage, and one of performance where the spec watches a metric.

    Raises:
        DataError: A file cannot be read.
    """
    if spec.monitor.labels is None:
        return ()
    joined = join(spec, path, labels)
    found = [_coverage(spec, spec.monitor.labels.min_coverage, joined, labels_due)]
    if spec.monitor.performance is not None:
        measured = measure(spec, spec.monitor.performance, joined, reference)
        found.append(judge(spec.monitor.performance, measured))
    return tuple(found)


def join(spec: Spec, path: Path, labels: pa.Table) -> Labelled:
    """Join a window with its labels, as the spec's labels and metric need it."""
    watched, delayed = spec.monitor.performance, spec.monitor.labels
    if delayed is None:
        raise ValueError("needs monitor.labels")
    lists = spec.task == "multiclass" and watched is not None
    lists = lists and watched is not None and watched.metric not in LABEL_METRICS
    return join_labels(path, labels, delayed.delay, probability=lists)


# --- coverage -------------------------------------------------------------------------------------------


def _coverage(spec: Spec, least: float, joined: Labelled, labels_due: bool) -> Finding:
    share = joined.coverage
    if share is None:
        return Finding("coverage", None, "insufficient_data", "no prediction to have a label")
    told = f"{joined.labelled:,} of {joined.predictions:,} predictions have a label ({share:.0%})"
    status: Status = "ok"
    if joined.predictions < spec.monitor.min_rows:
        status = "insufficient_data"
        told += f", too few predictions to judge by ({spec.monitor.min_rows:,} needed)"
    elif not joined.labelled:
        status = "alert" if labels_due else "warn"
        told = f"none of {joined.predictions:,} predictions has a label, although labels are due by now"
    elif share < least:
        status = "warn"
        told += f", fewer than {percent(least)}: the labelled ones may not stand for all"
    return Finding("coverage", None, status, told, share, least)


def _doubt(spec: Spec, joined: Labelled) -> str | None:
    """Return why the labelled predictions may not stand for all; None where enough of them are labelled."""
    share, labels = joined.coverage, spec.monitor.labels
    if labels is None or share is None or share >= labels.min_coverage:
        return None
    least = percent(labels.min_coverage)
    return f"only {percent(share)} have a label, {least} are needed (monitor.labels.min_coverage)"


# --- performance ----------------------------------------------------------------------------------------


def measure(
    spec: Spec,
    watched: Performance,
    joined: Labelled,
    reference: Reference,
    *,
    holdout_draws: dict[str, Floats] | None = None,
) -> Measurement:
    """Compute the live metric and the interval of its difference from the champion's holdout.

    The holdout's value is an estimate too. Where the reference holds the holdout's answers, both sides are resampled,
    independently of each other; otherwise the holdout's value is taken as exact.

    Args:
        spec: The model's spec.
        watched: Its metric and confidence.
        joined: The window's labelled answers.
        reference: The champion's.
        holdout_draws: Keeps the holdout's resampled scores by version, for who measures many windows.

    Source: Efron and Tibshirani (1993), chapter 8.3 (two samples), https://doi.org/10.1201/9780429246593
    """
    metric, nothing = watched.metric, Measurement(watched.metric, joined.labelled)
    holdout = reference.metrics.get(metric)
    if joined.labelled < spec.monitor.min_rows:
        short = f"{joined.labelled:,} labelled predictions, {spec.monitor.min_rows:,} needed"
        return _without(nothing, holdout, short)
    try:
        classes, scored = _classes(spec, reference), pq.read_table(reference.scored)
        live = answers_of(spec.task, metric, joined.rows, "label", classes, scored)
    except Unreadable as error:
        return _without(nothing, holdout, str(error))
    rows = len(live.y)
    if rows < spec.monitor.min_rows:
        what = "numbers" if spec.task == "regression" else "classes of the target"
        return _without(nothing, holdout, f"{live.foreign:,} labels are no {what}")
    value = _score(spec, metric, live)
    if not math.isfinite(value):
        return _without(nothing, holdout, f"{metric} is undefined on the {rows:,} labelled rows")
    if holdout is None:
        why = f"the champion's {metric} on its holdout is not known"
        return Measurement(metric, rows, live=value, problem=why)
    drawn = resample(spec.task, metric, live.y, [live.prediction], seed=_SEED)
    draws: dict[str, Floats] = {} if holdout_draws is None else holdout_draws
    if reference.version not in draws:
        held = _held(spec, metric, scored, classes, joined.rows)
        draws[reference.version] = _holdout_draws(spec, metric, held, holdout)
    other = draws[reference.version]
    bounds = interval(
        metric,
        drawn[:, 0],
        other,
        (value, holdout),
        confidence=2 * watched.confidence - 1,  # so that each end alone has the spec's confidence
        rows=rows,
    )
    return Measurement(metric, rows, value, holdout, bounds, doubt=_doubt(spec, joined))


def judge(watched: Performance, measured: Measurement) -> Finding:
    """Turn a measurement into a finding.

    Args:
        watched: The spec's limit and confidence.
        measured: What `measure` returned.
    """
    bounds, holdout = measured.interval, measured.holdout
    if measured.problem or bounds is None or holdout is None or measured.live is None:
        told = f"{measured.metric} is not judged: {measured.problem or 'nothing to compare with'}"
        return Finding("performance", None, "insufficient_data", told, measured.live)
    up = HIGHER_IS_BETTER[measured.metric]
    limit = holdout - watched.max_drop if up else holdout + watched.max_drop
    told = (
        f"{measured.metric} {measured.live:.4g} on {measured.rows:,} labelled predictions, {holdout:.4g} on the "
        f"holdout: drop {-bounds.improvement:.3g} ({-bounds.high:.3g} to {-bounds.low:.3g}, each end with "
        f"{watched.confidence:.0%} confidence), {watched.max_drop:g} allowed"
    )
    status: Status = "ok"
    if bounds.high < -watched.max_drop and measured.doubt:
        status = "warn"
        told = f"{told}; no proof of decay: {measured.doubt}"
    elif bounds.high < -watched.max_drop:
        status = "alert"
    elif bounds.improvement < -watched.max_drop:
        status = "warn"
        told = f"{told}; perhaps by chance"
    return Finding("performance", None, status, told, measured.live, limit)


def _without(nothing: Measurement, holdout: float | None, problem: str) -> Measurement:
    return Measurement(nothing.metric, nothing.rows, holdout=holdout, problem=problem)


def _score(spec: Spec, metric: str, answers: Answers) -> float:
    once = np.ones(len(answers.y), dtype=np.int64)
    return statistic(spec.task, metric, answers.y, answers.prediction)(once)


def _classes(spec: Spec, reference: Reference) -> list[str]:
    if spec.task == "regression":
        return []
    target = spec.ingest.target
    known = pq.read_table(reference.inputs, columns=[target]).column(target).unique()
    return sorted(str(value) for value in known.to_pylist() if value is not None)


def _held(
    spec: Spec, metric: str, scored: pa.Table, classes: Sequence[str], evidence: pa.Table
) -> Answers | None:
    """Return the holdout's answers; None where the reference does not keep what the metric needs."""
    try:
        held = answers_of(spec.task, metric, scored, spec.ingest.target, classes, evidence)
    except Unreadable:
        return None
    return held if math.isfinite(_score(spec, metric, held)) else None


def _holdout_draws(spec: Spec, metric: str, held: Answers | None, holdout: float) -> Floats:
    """Return the holdout's resampled scores; its value over and over where it is taken as exact."""
    if held is None:
        return np.full(RESAMPLES, holdout)
    # another seed: the two samples have nothing to do with each other
    return resample(spec.task, metric, held.y, [held.prediction], seed=_SEED + 1)[:, 0]
