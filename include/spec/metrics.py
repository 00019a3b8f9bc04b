"""The metrics a spec may name: for which task, and which direction is better.

Only names live here, so that a Dag file can check a spec without importing scikit-learn;
`include.scoring.metrics` computes them.
"""

from __future__ import annotations

from typing import Literal

Task = Literal["binary", "multiclass", "regression"]

HIGHER_IS_BETTER: dict[str, bool] = {
    "roc_auc": True,
    "average_precision": True,
    "accuracy": True,
    "balanced_accuracy": True,
    "f1": True,
    "precision": True,
    "recall": True,
    "log_loss": False,
    "brier": False,
    "r2": True,
    "rmse": False,
    "mae": False,
    "median_ae": False,
    "mape": False,
}
_BINARY = (
    "roc_auc",
    "average_precision",
    "log_loss",
    "brier",
    "accuracy",
    "balanced_accuracy",
    "f1",
    "precision",
    "recall",
)
METRICS: dict[Task, tuple[str, ...]] = {
    "binary": _BINARY,
    "multiclass": tuple(m for m in _BINARY if m not in ("average_precision", "brier")),
    "regression": ("rmse", "mae", "r2", "median_ae", "mape"),
}
DEFAULT_PRIMARY: dict[Task, str] = {
    "binary": "roc_auc",
    "multiclass": "log_loss",
    "regression": "rmse",
}
