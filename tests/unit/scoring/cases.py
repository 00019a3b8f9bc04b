"""Predictions of known quality, with ties, for every task, and scikit-learn's word on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from include.spec.metrics import Task


@dataclass(frozen=True)
class Case:
    task: Task
    y: NDArray[Any]
    predictions: tuple[NDArray[np.float64], ...]


def make_case(task: Task, rows: int = 400, seed: int = 0, models: int = 2) -> Case:
    rng = np.random.default_rng(seed)
    if task == "regression":
        y = rng.normal(10, 3, rows)
        return Case(task, y, tuple(y + rng.normal(0, 1 + m / 4, rows) for m in range(models)))
    if task == "binary":
        truth = rng.random(rows)
        y = (rng.random(rows) < truth).astype(np.int64)
        noisy = (truth + rng.normal(0, 0.1 + m / 20, rows) for m in range(models))
        return Case(task, y, tuple(np.clip(p, 0.01, 0.99).round(2) for p in noisy))
    logits = rng.normal(0, 1.5, (rows, 4))
    y = np.array([rng.choice(4, p=_softmax(row)) for row in logits])
    noisy = (logits + rng.normal(0, 0.5 + m / 4, logits.shape) for m in range(models))
    return Case(task, y, tuple(_softmax(p.round(1)) for p in noisy))


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def reference(task: str, metric: str, y: Any, p: Any) -> float:
    """Compute a metric the way a person would with scikit-learn."""
    if task == "regression":
        return {
            "rmse": sk.root_mean_squared_error,
            "mae": sk.mean_absolute_error,
            "r2": sk.r2_score,
            "median_ae": sk.median_absolute_error,
            "mape": sk.mean_absolute_percentage_error,
        }[metric](y, p)
    binary = task == "binary"
    classes = [0, 1] if binary else list(range(p.shape[1]))
    label = (p > 0.5).astype(int) if binary else p.argmax(axis=1)
    average = {"average": "binary" if binary else "macro", "zero_division": 0}
    return {
        "roc_auc": lambda: (
            sk.roc_auc_score(y, p) if binary else sk.roc_auc_score(y, p, multi_class="ovr")
        ),
        "average_precision": lambda: sk.average_precision_score(y, p),
        "log_loss": lambda: sk.log_loss(y, p, labels=classes),
        "brier": lambda: sk.brier_score_loss(y, p),
        "accuracy": lambda: sk.accuracy_score(y, label),
        "balanced_accuracy": lambda: sk.balanced_accuracy_score(y, label),
        "f1": lambda: sk.f1_score(y, label, **average),
        "precision": lambda: sk.precision_score(y, label, **average),
        "recall": lambda: sk.recall_score(y, label, **average),
    }[metric]()
