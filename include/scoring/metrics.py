"""Metrics by task: what each name of `include.spec.metrics` means, computed from row counts.

Every metric is a *statistic*: a function of how often each row occurs. Counting each row once gives the
score; counting it as a bootstrap resample drew it gives the resample's score, without copying rows
(`include.scoring.bootstrap`). All agree with scikit-learn wherever the metric is defined, and are NaN
where it is not, so that nothing undefined can pass a gate.

Conventions: classification targets are codes 0..k-1. A binary prediction is the probability of code 1,
shape (n,); a multiclass one has shape (n, k); a regression one has shape (n,). The label is the most
probable class, the lower code on a tie, as the estimators' own `predict` has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.spec.metrics import METRICS, Task

Floats = NDArray[np.floating[Any]]
Codes = NDArray[np.integer[Any]]
Counts = NDArray[np.int64]
Statistic = Callable[[Counts], float]

LABEL_METRICS = frozenset({"accuracy", "balanced_accuracy", "f1", "precision", "recall"})


def score(task: Task, y: NDArray[Any], prediction: Floats) -> dict[str, float]:
    """Compute every metric of a task.

    Args:
        task: Kind of prediction.
        y: True codes (classification) or values (regression), shape (n,).
        prediction: Probabilities or values; see the module's conventions.

    Returns:
        One value per name in `METRICS[task]`; NaN where a metric is undefined: no rows, a prediction
        that is not finite, only one class in `y` (for the metrics that need two), a target of zero
        (`mape`), a constant target (`r2`).
    """
    once = np.ones(len(y), dtype=np.int64)
    return {metric: statistic(task, metric, y, prediction)(once) for metric in METRICS[task]}


def statistic(task: Task, metric: str, y: NDArray[Any], prediction: Floats) -> Statistic:
    """Prepare one metric of one model, so that many resamples of the same rows are cheap.

    Args:
        task: Kind of prediction.
        metric: A name of `METRICS[task]`.
        y: True codes or values, shape (n,).
        prediction: Probabilities or values; see the module's conventions.

    Returns:
        A function of the rows' counts, int64 of shape (n,), giving the metric or NaN.
    """
    if not len(y) or not np.isfinite(prediction).all():
        return _undefined
    if metric in LABEL_METRICS:
        return label_statistic(metric, y, labels(task, prediction), class_count(task, prediction))
    if task == "regression":
        return _regression(metric, np.asarray(y, dtype=float), np.asarray(prediction, dtype=float))
    return _probabilistic(task, metric, np.asarray(y), np.asarray(prediction))


def labels(task: Task, prediction: Floats) -> Codes:
    """Return the most probable code of each row, shape (n,)."""
    if task == "binary":
        return (prediction > 0.5).astype(np.int64)
    return np.asarray(prediction.argmax(axis=1))


def class_count(task: Task, prediction: Floats) -> int:
    """Return the number of classes a classification prediction speaks of."""
    return 2 if task == "binary" else int(prediction.shape[1])


def label_statistic(metric: str, y: Codes, label: Codes, classes: int) -> Statistic:
    """Prepare a metric of labels: binary ones are of code 1, multiclass ones the macro average.

    A precision without any predicted positive is 0, as in scikit-learn. The macro average runs over the
    classes that occur in `y` or among the labels (`balanced_accuracy`: in `y`).
    """
    hit = y == label
    right = y[hit]

    def value(counts: Counts) -> float:
        true = np.bincount(y, counts, classes)
        said = np.bincount(label, counts, classes)
        both = np.bincount(right, counts[hit], classes)
        return _from_confusion(metric, true, said, both)

    return value


def _from_confusion(
    metric: str, true: NDArray[Any], said: NDArray[Any], both: NDArray[Any]
) -> float:
    """Compute a label metric from per-class counts: of truth, of labels, of right labels."""
    if not true.sum():
        return float("nan")
    if metric == "accuracy":
        return float(both.sum() / true.sum())
    binary = len(true) == 2
    if metric == "balanced_accuracy":
        seen = true > 0
        undefined = binary and not seen.all()
        return float("nan") if undefined else float((both[seen] / true[seen]).mean())
    if binary and not true[1]:
        return float("nan")
    per_class = {
        "precision": (both, said),
        "recall": (both, true),
        "f1": (2 * both, true + said),
    }
    above, below = per_class[metric]
    ratio = np.divide(above, below, out=np.zeros(len(true)), where=below > 0)
    return float(ratio[1] if binary else ratio[(true + said) > 0].mean())


def _probabilistic(task: Task, metric: str, y: Codes, prediction: Floats) -> Statistic:
    if metric == "log_loss":
        return _mean(log_losses(task, y, prediction))
    if metric == "brier":
        return _mean((prediction - y) ** 2)
    if metric == "average_precision":
        return _average_precision(y, prediction)
    if task == "binary":
        return _roc_auc(y == 1, prediction)
    per_class = [_roc_auc(y == code, prediction[:, code]) for code in range(prediction.shape[1])]
    return lambda counts: float(np.mean([auc(counts) for auc in per_class]))


def log_losses(task: Task, y: Codes, prediction: Floats) -> Floats:
    """Return each row's log loss in nats; probabilities are clipped to the type's epsilon."""
    eps = np.finfo(prediction.dtype).eps
    if task == "binary":
        given = np.where(y == 1, prediction, 1 - prediction)
    else:
        given = prediction[np.arange(len(y)), y]
    losses: Floats = -np.log(np.clip(given.astype(float), eps, 1 - eps))
    return losses


def _roc_auc(positive: NDArray[np.bool_], predicted: Floats) -> Statistic:
    """Prepare the area under the ROC curve as the Mann-Whitney statistic, ties counted half.

    For each positive row the number of negatives below and up to its score is looked up in the running
    sum of the negatives' counts, so a resample needs no sort and stays in exact integers.

    Source: Hanley and McNeil (1982), https://doi.org/10.1148/radiology.143.1.7063747
    """
    above, below = np.flatnonzero(positive), np.flatnonzero(~positive)
    above = above[np.argsort(predicted[above])]  # sorted, so that the look-ups walk forward
    below = below[np.argsort(predicted[below])]
    under = np.searchsorted(predicted[below], predicted[above], side="left")
    up_to = np.searchsorted(predicted[below], predicted[above], side="right")
    tied = bool((under != up_to).any())
    running = np.zeros(len(below) + 1, dtype=np.int64)

    def value(counts: Counts) -> float:
        np.cumsum(counts.take(below), out=running[1:])
        positives = counts.take(above)
        pairs = int(running[-1]) * int(positives.sum())
        if not pairs:
            return float("nan")
        if not tied:
            return int(positives @ running.take(under)) / pairs
        return int(positives @ (running.take(under) + running.take(up_to))) / (2 * pairs)

    return value


def _average_precision(y: Codes, predicted: Floats) -> Statistic:
    """Prepare average precision: precision at each distinct score, weighted by the gain in recall.

    Source: https://scikit-learn.org/stable/modules/generated/sklearn.metrics.average_precision_score.html
    """
    order = np.argsort(-predicted)
    descending = predicted[order]
    hits = order[y[order] == 1]
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))  # ends of tied groups
    hits_upto = np.cumsum(y[order] == 1)[last]
    holds_hit = np.diff(hits_upto, prepend=0) > 0
    last, hits_upto = last[holds_hit], hits_upto[holds_hit] - 1

    def value(counts: Counts) -> float:
        found = np.cumsum(counts.take(hits)).take(hits_upto)
        if not len(found) or not found[-1]:
            return float("nan")
        among = np.cumsum(counts.take(order)).take(last)
        gain = np.diff(found, prepend=0)
        precision = np.divide(found, among, out=np.zeros(len(found)), where=among > 0)
        return _weighted_sum(gain, precision) / int(found[-1])

    return value


def _regression(metric: str, y: Floats, prediction: Floats) -> Statistic:
    error = np.abs(prediction - y)
    if metric == "mae":
        return _mean(error)
    if metric == "median_ae":
        return _median(error)
    if metric == "mape":
        if (np.abs(y) <= np.finfo(float).eps).any():
            return _undefined
        return _mean(error / np.abs(y))
    if metric == "rmse":
        squared = _mean(error**2)
        return lambda counts: float(np.sqrt(squared(counts)))
    return _r2(y, error**2)


def _r2(y: Floats, squared_error: Floats) -> Statistic:
    """Prepare the coefficient of determination; NaN where the target does not vary."""
    if np.ptp(y) == 0:
        return _undefined
    centred = y - y.mean()
    squares = centred**2

    def value(counts: Counts) -> float:
        around_zero = _weighted_sum(counts, squares)
        total = around_zero - _weighted_sum(counts, centred) ** 2 / int(counts.sum())
        if total <= 1e-12 * around_zero:  # one value drawn over and over; what is left is rounding
            return float("nan")
        return 1 - _weighted_sum(counts, squared_error) / total

    return value


def _mean(losses: Floats) -> Statistic:
    return lambda counts: _weighted_sum(counts, losses) / int(counts.sum())


def _weighted_sum(counts: Counts, values: Floats) -> float:
    """Sum without BLAS, whose threads cost more than they bring here and round by their number."""
    return float(np.einsum("i,i->", counts.astype(float), values))


def _median(values: Floats) -> Statistic:
    order = np.argsort(values)
    ascending = values[order]

    def value(counts: Counts) -> float:
        running = np.cumsum(counts.take(order))
        total = int(running[-1])
        middle = np.searchsorted(running, [(total - 1) // 2, total // 2], side="right")
        return float(ascending[middle].mean())

    return value


def _undefined(_: Counts) -> float:
    return float("nan")
