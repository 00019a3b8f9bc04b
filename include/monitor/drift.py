"""`drift`: does live data look like what the champion learned from?

One finding per feature, one for the predictions, and one for the target where labels are there. A difference counts
when it is large (the spec's thresholds) and cannot be chance (a test on the same rows, corrected for the number of
columns): the first keeps large windows from crying about trifles, the second small ones from crying about noise.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from include.monitor.distance import METHOD_NAMES, Distance, Method, distance, pinned
from include.monitor.findings import Finding, Status
from include.monitor.phrases import count
from include.monitor.reference import Reference
from include.monitor.sample import Subject, SubjectCheck, subjects
from include.scoring.rows import Rows
from include.scoring.significance import adjusted
from include.spec.schema import Spec

ALPHA = 0.01  # chance of a warning or alert where nothing changed, over all columns of a window


def check_drift(
    spec: Spec,
    path: Path,
    reference: Reference,
    *,
    labels: pa.Table | None = None,
    seed: int = 0,
) -> tuple[Finding, ...]:
    """Compare the answers of a window with the reference; refused requests have no values to compare.

    Args:
        spec: Method, thresholds and `monitor.min_rows`.
        path: What `collect` wrote.
        reference: What the champion learned from.
        labels: Labels of a window, with a column `label`; None where the target is not looked at.
        seed: Of the sample.

    Returns:
        Findings `drift` (one per feature), `prediction_drift` and, with labels, `target_drift`. Too few rows
        give `insufficient_data`: one finding of the check, or of the column whose values are too few.

    Raises:
        DataError: A file cannot be read.
    """
    least = spec.monitor.min_rows
    with Rows([path], answered=True) as rows:
        total = rows.count()
    thin = []
    if labels is not None and labels.num_rows < least:
        thin = [_thin("target_drift", labels.num_rows, "label", least)]
        labels = None
    if total < least:
        return (
            _thin("drift", total, "prediction", least),
            _thin("prediction_drift", total, "prediction", least),
            *thin,
        )
    return (*_judge(spec, subjects(spec, path, reference, labels=labels, seed=seed)), *thin)


def _thin(check: SubjectCheck, number: int, noun: str, least: int) -> Finding:
    text = f"{count(number, noun)}, {least:,} are needed (monitor.min_rows)."
    return Finding(check, None, "insufficient_data", text, number, least)


def _judge(spec: Spec, found: Iterable[Subject]) -> list[Finding]:
    every = list(found)
    methods = [pinned(spec.monitor.drift.method, s.pair.kind) if s.pair else "psi" for s in every]
    measured = [
        distance(subject.pair, method) if subject.pair and not subject.pair.constant else None
        for subject, method in zip(every, methods, strict=True)
    ]
    chances = iter(adjusted([m.chance for m in measured if m]))
    return [
        _finding(spec, subject, method, result, next(chances) if result else 1.0)
        for subject, method, result in zip(every, methods, measured, strict=True)
    ]


def _finding(
    spec: Spec, subject: Subject, method: Method, measured: Distance | None, chance: float
) -> Finding:
    column = subject.name if subject.check == "drift" else None
    what = {
        "drift": f"column {subject.name!r}",
        "prediction_drift": "the predictions",
        "target_drift": f"the target {subject.name!r}",
    }[subject.check]
    if subject.pair is None:
        text = f"{what}: cannot be compared: {subject.reason}."
        return Finding(subject.check, column, "insufficient_data", text)
    if measured is None:
        return Finding(subject.check, column, "ok", f"{what}: the same value in every row.", 0.0)
    value, limits = measured.value, spec.monitor.drift
    large: Status = "alert" if value >= limits.alert else "warn" if value >= limits.warn else "ok"
    status: Status = large if chance < ALPHA else "ok"
    limit = limits.warn if status == "warn" else limits.alert
    text = f"{what}: {METHOD_NAMES[method]} {value:.3g}"
    said = "p < 0.001" if chance < 0.001 else f"p = {chance:.2g}"
    if status != large:
        rows = count(len(subject.pair.current), "row")
        text += f", which could be chance in {rows} ({said})"
    elif status != "ok":
        text += f", {status} from {limit:g} ({said})"
    return Finding(subject.check, column, status, f"{text}.", value, limit)
