"""Paired bootstrap: how sure a difference between models on the same rows is.

Rows are drawn with replacement, independently and equally likely. Every model is scored on the same draw, so what
makes a row hard for all of them cancels out of the difference. A draw is kept as counts per row, never as copied rows: memory is a
few vectors of the length of the holdout, whatever the number of resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.scoring.metrics import (
    LABEL_METRICS,
    Counts,
    Floats,
    Statistic,
    class_count,
    label_statistic,
    labels,
    statistic,
)
from include.spec.metrics import HIGHER_IS_BETTER, Task

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """How much better one model is than another, with its uncertainty.

    Attributes:
        metric: The metric compared.
        improvement: Difference on all rows, positive where the first model is better, in the metric's unit.
        low: Lower end of the interval of the improvement; minus infinity where it cannot be told.
        high: Upper end; plus infinity where it cannot be told.
        confidence: Two-sided confidence: each end is crossed with probability (1 - confidence) / 2.
        rows: Rows both models were scored on.
        resamples: Resamples drawn.
        undefined: Resamples on which the metric is undefined, such as those of a single class.
    """

    metric: str
    improvement: float
    low: float
    high: float
    confidence: float
    rows: int
    resamples: int
    undefined: int


def resample(
    task: Task,
    metric: str,
    y: NDArray[Any],
    predictions: Sequence[Floats],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Score several models on the same bootstrap resamples.

    Args:
        task: Kind of prediction.
        metric: A name of `METRICS[task]`.
        y: True codes or values, shape (n,).
        predictions: One prediction per model, as in `include.scoring.metrics`.
        resamples: How many resamples of n rows to draw.
        seed: Seed of the draws; the same seed gives the same result on any machine.

    Returns:
        Scores of shape (resamples, models); NaN where a resample leaves the metric undefined.
    """
    rng = np.random.default_rng(seed)
    scores = np.full((resamples, len(predictions)), np.nan)
    if not len(y):
        return scores
    statistics, draws = _by_row(task, metric, y, predictions, rng)
    if metric in LABEL_METRICS and all(np.isfinite(p).all() for p in predictions):
        statistics, draws = _by_kind(task, metric, y, predictions, rng) or (statistics, draws)
    for number, counts in zip(range(resamples), draws, strict=False):
        scores[number] = [value(counts) for value in statistics]
    return scores


def interval(
    metric: str, challenger: Floats, other: Floats, points: tuple[float, float], *,
    confidence: float, rows: int,
) -> Interval:  # fmt: skip
    """Turn two models' scores on the same resamples into the interval of the improvement.

    The percentile interval: the ends are order statistics of the resampled differences, rounded outwards.
    A resample on which a score is undefined counts as the worst one for the lower end and as the best one
    for the upper end, so that what cannot be computed widens the interval and never narrows it.

    Args:
        metric: The metric compared; lower-is-better ones are turned round.
        challenger: Scores of the first model, shape (resamples,).
        other: Scores of the second model on the same resamples.
        points: Both models' scores on all rows.
        confidence: Two-sided confidence, between 0 and 1.
        rows: Rows behind the scores.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13,
        https://doi.org/10.1201/9780429246593
    """
    differences = improvement(metric, challenger, other)
    known = np.isfinite(differences)
    tail = (1 - confidence) / 2
    low = high = math.nan
    if len(differences):
        low = np.quantile(np.where(known, differences, -np.inf), tail, method="lower")
        high = np.quantile(np.where(known, differences, np.inf), 1 - tail, method="higher")
    return Interval(
        metric=metric,
        improvement=float(improvement(metric, points[0], points[1])),
        low=float(low),
        high=float(high),
        confidence=confidence,
        rows=rows,
        resamples=len(differences),
        undefined=int((~known).sum()),
    )


def improvement(metric: str, challenger: Any, other: Any) -> Any:
    """Return the difference of two scores (numbers or arrays), positive where the first is better."""
    return challenger - other if HIGHER_IS_BETTER[metric] else other - challenger


Plan = tuple[list[Statistic], Iterator[Counts]]


def _by_row(
    task: Task,
    metric: str,
    y: NDArray[Any],
    predictions: Sequence[Floats],
    rng: np.random.Generator,
) -> Plan:
    """Draw counts of rows, without end."""

    def draws() -> Iterator[Counts]:
        while True:
            yield np.bincount(rng.integers(0, len(y), size=len(y)), minlength=len(y))

    return [statistic(task, metric, y, p) for p in predictions], draws()


def _by_kind(
    task: Task,
    metric: str,
    y: NDArray[Any],
    predictions: Sequence[Floats],
    rng: np.random.Generator,
) -> Plan | None:
    """Draw counts of kinds of rows: equal truth and equal labels. The distribution of the scores is the same.

    Returns:
        None where there are too many kinds for a multinomial draw to be faster than drawing rows.
    """
    classes = class_count(task, predictions[0])
    columns = np.column_stack([y, *(labels(task, p) for p in predictions)])
    kinds, times = np.unique(columns, axis=0, return_counts=True)
    if len(kinds) * 20 > len(y):
        return None
    statistics = [
        label_statistic(metric, kinds[:, 0], kinds[:, model], classes)
        for model in range(1, columns.shape[1])
    ]

    def draws() -> Iterator[Counts]:
        while True:
            yield rng.multinomial(len(y), times / len(y))

    return statistics, draws()
