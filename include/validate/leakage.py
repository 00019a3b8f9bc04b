"""Leakage: features that give the target away.

Looks at one deterministic sample of rows (all of them up to `SAMPLE` rows): a leak shows on any of them, so that
a sample loses nothing. Three questions: does one feature alone order or name the target almost perfectly, does it
equal it, and do several numeric features add up to it?
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from include.validate.findings import Finding, column_name, count, sentence
from include.validate.linear import Combination, find_combination
from include.validate.scan import NUMERIC, Scan
from include.validate.subject import Subject

SAMPLE = 50_000
THRESHOLD = 0.999
_R2 = THRESHOLD**2  # of a correlation of THRESHOLD
_CELLS = 10_000_000  # numbers in the sample at once: 80 MB
_LEAST_ROWS = 30
_LEAST_PER_CLASS = 10
_LEAST_PRESENT = 0.05  # a feature that is rarely known may still give the target away where it is
_FEW_VALUES = 50  # a numeric feature of so few values is looked at as a category too
_FEW_TERMS = 8
_AGREE = 0.9  # least rank correlation beside a high linear one
_TABLE = 5_000_000  # categories x classes: more are ids, from which nothing can be learnt

Floats = np.ndarray[Any, np.dtype[np.float64]]
Codes = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Leak:
    """How well one feature alone predicts the target."""

    column: str
    measure: str
    value: float


def check_leakage(subject: Subject, scan: Scan) -> list[Finding]:
    """No feature gives the target away, alone or in a sum; severity is `validate.leakage`."""
    severity, spec = subject.spec.validate_.leakage, subject.spec
    target = subject.statistics.get(spec.ingest.target)
    if severity == "off":
        return [_passed("switched off by validate.leakage")]
    if target is None or not subject.features.names:
        return []
    if spec.task == "regression" and target.type not in NUMERIC:
        return []  # said by the target check
    sample = _draw(subject, scan)
    if sample.size < _LEAST_ROWS:
        return [_passed(f"not looked at: {count(sample.size, 'row')} with a target are too few")]
    leaks = list(_single(sample, spec.task == "regression"))
    found = [_alone(leak, sample, severity) for leak in leaks]
    if spec.task == "regression":
        known = {leak.column for leak in leaks}
        rest = {n: v for n, v in sample.numeric.items() if n not in known}
        combination = find_combination(rest, sample.value)
        if combination:
            found.append(_sum(combination, sample, spec.ingest.target, severity))
    return found or [_passed(f"no feature gives the target away ({sample.text})")]


@dataclass(frozen=True)
class Sample:
    """Rows with a known target.

    Args:
        numeric: Numeric features, float64 with NaN for missing.
        coded: Categorical features as codes; missing is a category.
        value: The target as numbers (regression), else empty.
        classes: The target as codes 0..n-1 (classification), else empty.
        half: Which of two random halves a row belongs to.
        text: Which rows these are, for messages.
    """

    numeric: dict[str, Floats]
    coded: dict[str, Codes]
    value: Floats
    classes: Codes
    half: Mask
    text: str

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.half)


def _draw(subject: Subject, scan: Scan) -> Sample:
    target, rows = subject.spec.ingest.target, subject.manifest.rows
    regression = subject.spec.task == "regression"
    numeric = [n for n in subject.features.numeric if n in subject.statistics]
    coded = [n for n in subject.features.categorical if n in subject.statistics]
    limit = max(1000, min(SAMPLE, _CELLS // (len(numeric) + len(coded) + 2)))
    values = [*numeric, target] if regression else numeric
    codes = coded if regression else [*coded, target]
    arrays = scan.sample(values, codes, target, rows, limit)
    known = np.isfinite(arrays[target]) if regression else _frequent(arrays[target])
    hashes = arrays[""][known]
    empty = np.empty(0)
    text = f"{'all ' if len(hashes) == rows else ''}{count(len(hashes), 'row')}"
    if rows > limit:
        text = f"a sample of {len(hashes):,} of {rows:,} rows, chosen by row hash"
    return Sample(
        numeric={n: arrays[n][known] for n in numeric},
        coded={n: _codes(arrays[n][known]) for n in coded},
        value=arrays[target][known] if regression else empty,
        classes=empty.astype(np.int64) if regression else _codes(arrays[target][known]),
        half=((hashes >> np.uint64(32)) & np.uint64(1)).astype(bool),
        text=text,
    )


def _frequent(target: np.ndarray[Any, Any]) -> Mask:
    """Return which rows belong to a class that is frequent enough to judge by, all if fewer than two are."""
    _, inverse, sizes = np.unique(target, return_inverse=True, return_counts=True)
    frequent = sizes >= _LEAST_PER_CLASS
    if frequent.sum() < 2:
        frequent[:] = True
    mask: Mask = frequent[inverse]
    return mask


def _single(sample: Sample, regression: bool) -> Iterator[Leak]:
    judge_numeric = _numeric_regression if regression else _numeric_classes
    for name, values in sample.numeric.items():
        leak = judge_numeric(name, values, sample)
        if leak is None and (codes := _few(values)) is not None:
            leak = _category(name, codes, sample, regression)
        if leak:
            yield leak
    for name, codes in sample.coded.items():
        leak = _category(name, codes, sample, regression)
        if leak:
            yield leak


def _few(values: Floats) -> Codes | None:
    """Return codes of a numeric feature with few values or with missing ones, else None."""
    missing = np.isnan(values)
    different = np.unique(values[~missing][:5000])
    if (
        len(different) <= _FEW_VALUES
        and len(different := np.unique(values[~missing])) <= _FEW_VALUES
    ):
        return np.where(missing, len(different), np.searchsorted(different, values)).astype(
            np.int64
        )
    # Whether the value is there may tell by itself, as with the date of a cancellation.
    return missing.astype(np.int64) if missing.any() else None


def _numeric_regression(name: str, values: Floats, sample: Sample) -> Leak | None:
    there = np.isfinite(values)
    if there.sum() < max(_LEAST_ROWS, _LEAST_PRESENT * sample.size):
        return None
    x, y = values[there], sample.value[there]
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    if np.array_equal(x, y):
        return Leak(name, "equality", 1.0)
    linear = abs(_correlation(x, y))
    ranked = abs(_correlation(_ranks(x), _ranks(y)))
    if ranked >= THRESHOLD:
        return Leak(name, "rank correlation", ranked)
    # One row far out makes any two columns correlate; their ranks say whether the others agree.
    if linear >= THRESHOLD and ranked >= _AGREE:
        return Leak(name, "correlation", linear)
    return None


def _numeric_classes(name: str, values: Floats, sample: Sample) -> Leak | None:
    """Judge by the area under the ROC curve between classes that lie next to each other on the feature.

    With two classes that is the usual area; with more, a feature that separates all of them does so pairwise.
    """
    there = np.isfinite(values)
    if there.sum() < max(_LEAST_ROWS, _LEAST_PRESENT * sample.size):
        return None
    x, y = values[there], sample.classes[there]
    sizes = np.bincount(y)
    judged = np.flatnonzero(sizes >= _LEAST_PER_CLASS)
    if len(judged) < 2 or len(judged) < len(np.unique(sample.classes)):
        return None
    ranks = _ranks(x)
    order = judged[np.argsort((np.bincount(y, weights=ranks) / np.maximum(sizes, 1))[judged])]
    worst = 1.0
    for low, high in pairwise(order):
        pair = (y == low) | (y == high)
        worst = min(worst, _auc(x[pair], y[pair] == high))
        if worst < THRESHOLD:
            return None
    return Leak(name, "AUC", worst)


def _category(name: str, codes: Codes, sample: Sample, regression: bool) -> Leak | None:
    """Learn each category's target on one half of the rows and judge it on the other.

    A category seen once would explain its own row perfectly; on the other half it explains nothing.
    """
    learn, judge = sample.half, ~sample.half
    if min(learn.sum(), judge.sum()) < _LEAST_ROWS // 2:
        return None
    if regression:
        value = _category_r2(codes, sample.value, learn, judge)
        return Leak(name, "R² of its categories' means", value) if value >= _R2 else None
    counts = np.bincount(sample.classes[learn]), np.bincount(sample.classes[judge])
    if (
        min(len(c) for c in counts) < 2
        or min(c[c > 0].min() for c in counts) < _LEAST_PER_CLASS // 3
    ):
        return None
    classes = int(sample.classes.max()) + 1
    if (int(codes.max()) + 1) * classes > _TABLE:
        return None
    if classes == 2:
        means = _means(codes, sample.classes.astype(float), learn)
        value, measure = _auc(means[codes[judge]], sample.classes[judge] == 1), "AUC"
    else:
        value = _category_recall(codes, sample.classes, classes, learn, judge)
        measure = "balanced accuracy"
    return Leak(name, measure, value) if value >= THRESHOLD else None


def _category_r2(codes: Codes, y: Floats, learn: Mask, judge: Mask) -> float:
    spread = float(np.var(y[judge]))
    if spread == 0:
        return 0.0
    error = y[judge] - _means(codes, y, learn)[codes[judge]]
    return 1 - float(np.mean(error**2)) / spread


def _category_recall(codes: Codes, y: Codes, classes: int, learn: Mask, judge: Mask) -> float:
    """Return the mean recall over classes when each category answers with its most frequent class."""
    table = np.zeros((int(codes.max()) + 1, classes), dtype=np.int64)
    np.add.at(table, (codes[learn], y[learn]), 1)
    answer = np.where(table.any(axis=1), table.argmax(axis=1), -1)
    right = answer[codes[judge]] == y[judge]
    sizes = np.bincount(y[judge], minlength=classes)
    hits = np.bincount(y[judge], weights=right, minlength=classes)
    return float(np.mean(hits[sizes > 0] / sizes[sizes > 0]))


def _means(codes: Codes, y: Floats, learn: Mask) -> Floats:
    """Return the target's mean in each category of the learning half; unseen ones get the mean of all."""
    width = int(codes.max()) + 1
    sizes = np.bincount(codes[learn], minlength=width)
    sums = np.bincount(codes[learn], weights=y[learn], minlength=width)
    means: Floats = np.where(sizes > 0, sums / np.maximum(sizes, 1), y[learn].mean())
    return means


def _codes(values: np.ndarray[Any, Any]) -> Codes:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _ranks(values: Floats) -> Floats:
    """Return ranks from 0, equal values sharing the middle of theirs."""
    _, inverse, sizes = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(sizes) - (sizes + 1) / 2)[inverse]
    return ranks


def _correlation(x: Floats, y: Floats) -> float:
    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.abs(x).max(), y / np.abs(y).max()  # large numbers must not overflow when squared
    # Not `x @ y`: for vectors this short, BLAS spends its time waking threads (20 times slower on a busy machine).
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


def _auc(x: Floats, positive: Mask) -> float:
    """Return the area under the ROC curve of `x`, in whichever direction is better.

    Source: Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747 (the Mann-Whitney statistic).
    """
    ones = int(positive.sum())
    zeros = len(positive) - ones
    area = float(_ranks(x)[positive].sum() - ones * (ones - 1) / 2) / (ones * zeros)
    return max(area, 1 - area)


def _alone(leak: Leak, sample: Sample, severity: str) -> Finding:
    got = (
        "the target itself"
        if leak.measure == "equality"
        else f"{leak.measure} {leak.value:.4f} on its own"
    )
    rule = f"must not give the target away, got {got} ({sample.text})"
    message = sentence(column_name(leak.column), rule, _fix(leak.column))
    observed = {"columns": [leak.column], "measure": leak.measure, "value": leak.value}
    return Finding("leakage", leak.column, _severity(severity), message, observed, THRESHOLD)


def _sum(combination: Combination, sample: Sample, target: str, severity: str) -> Finding:
    names = list(combination.terms)
    observed: dict[str, Any] = {"columns": names, "terms": combination.terms}
    if len(names) > _FEW_TERMS:
        rule = f"features must not add up to the target, got {target} as an exact sum of {len(names)} numeric features ({sample.text})"
        fix = "Is the target computed from its own features? Then leave those out that are known only with it."
        return Finding("leakage", None, "warn", sentence("snapshot", rule, fix), observed, None)
    rule = f"must not add up to the target, got {combination.text} = {target} ({sample.text})"
    where = "columns " + ", ".join(repr(n) for n in names)
    fix = _fix(*names)
    observed |= {"constant": combination.constant}
    return Finding("leakage", None, _severity(severity), sentence(where, rule, fix), observed, None)


def _fix(*names: str) -> str:
    them = "it" if len(names) == 1 else "them"
    return (
        f"Known only together with the target? Name {them} in ingest.drop. "
        "Known before, and right? Set validate.leakage to warn."
    )


def _severity(setting: str) -> Any:
    return "error" if setting == "error" else "warn"


def _passed(text: str) -> Finding:
    return Finding("leakage", None, "ok", text)
