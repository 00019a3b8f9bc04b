"""The primary metric on validation rows, as the search sees it.

Owns the small mapping from the spec's metric names to scikit-learn's functions. The gate has its own, richer
implementation in `include.scoring.metrics`; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from include.errors import ModelError
from include.spec.metrics import Task

_REGRESSION: dict[str, Callable[..., float]] = {
    "rmse": metrics.root_mean_squared_error,
    "mae": metrics.mean_absolute_error,
    "r2": metrics.r2_score,
    "median_ae": metrics.median_absolute_error,
    "mape": metrics.mean_absolute_percentage_error,
}
_LABELS: dict[str, Callable[..., float]] = {
    "accuracy": metrics.accuracy_score,
    "balanced_accuracy": metrics.balanced_accuracy_score,
}
_AVERAGED: dict[str, Callable[..., float]] = {
    "f1": metrics.f1_score,
    "precision": metrics.precision_score,
    "recall": metrics.recall_score,
}


def score(
    task: Task, metric: str, estimator: Any, inputs: Any, target: NDArray[Any], classes: int
) -> float:
    """Score a fitted estimator.

    Args:
        task: Kind of prediction.
        metric: A name of `include.spec.metrics.METRICS[task]`.
        estimator: Fitted; a classifier knows probabilities.
        inputs: What the estimator takes, n rows.
        target: Class codes or values, shape (n,).
        classes: Number of classes of the whole training part; the estimator may have seen fewer.

    Returns:
        The metric in its own unit and direction.

    Raises:
        ModelError: The predictions or the score are not finite.
    """
    if task == "regression":
        predicted = np.asarray(estimator.predict(inputs), dtype=float).reshape(len(target))
    else:
        predicted = probabilities(estimator, inputs, classes)
    if not np.isfinite(predicted).all():
        raise ModelError(type(estimator).__name__, "must predict finite numbers, got others", "")
    if task == "regression":
        value = float(_REGRESSION[metric](target, predicted))
    else:
        value = _classification(task, metric, target, predicted)
    if not np.isfinite(value):
        raise ModelError(type(estimator).__name__, f"{metric} must be finite, got {value}", "")
    return value


def probabilities(estimator: Any, inputs: Any, classes: int) -> NDArray[np.float64]:
    """Return class probabilities, shape (n, classes); zero for classes the estimator never saw."""
    known = np.asarray(estimator.predict_proba(inputs), dtype=float)
    if known.shape[1] == classes:
        return known
    full = np.zeros((len(known), classes))
    full[:, np.asarray(estimator.classes_, dtype=int)] = known
    return full


def _classification(
    task: Task, metric: str, target: NDArray[Any], predicted: NDArray[np.float64]
) -> float:
    if metric == "log_loss":
        codes = np.arange(predicted.shape[1])
        return float(metrics.log_loss(target, predicted, labels=codes))
    if metric == "brier":
        return float(np.mean((predicted[:, 1] - target) ** 2))
    if metric == "average_precision":
        return float(metrics.average_precision_score(target, predicted[:, 1]))
    if metric == "roc_auc":
        return _roc_auc(task, target, predicted)
    labels = predicted.argmax(axis=1)
    if metric in _LABELS:
        return float(_LABELS[metric](target, labels))
    average = "binary" if task == "binary" else "macro"
    return float(_AVERAGED[metric](target, labels, average=average, zero_division=0))


def _roc_auc(task: Task, target: NDArray[Any], predicted: NDArray[np.float64]) -> float:
    if task == "binary":
        return float(metrics.roc_auc_score(target, predicted[:, 1]))
    # One class against the rest, macro; scikit-learn's own refuses a fold that lacks a class.
    areas = [
        metrics.roc_auc_score(target == code, predicted[:, code]) for code in np.unique(target)
    ]
    return float(np.mean(areas))
