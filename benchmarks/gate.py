"""Seconds the gate's paired bootstrap takes per metric, beside a plain loop over scikit-learn.

Usage: PYTHONPATH=. python benchmarks/gate.py [--rows 100000] [--resamples 2000] [--naive 20]

Two models, the same rows. The plain loop copies out each resample's rows and calls scikit-learn; it is timed
on a few resamples and extrapolated, and its scores on those must agree with the statistic used here.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import metrics as sk

from include.scoring.bootstrap import resample
from include.scoring.metrics import labels, statistic
from include.spec.metrics import METRICS, Task


def data(task: Task, rows: int, classes: int = 4) -> tuple[Any, list[Any]]:
    """Return targets and two models' predictions without ties, the worst case."""
    rng = np.random.default_rng(0)
    if task == "regression":
        y = rng.normal(50, 10, rows)
        return y, [y + rng.normal(0, s, rows) for s in (3, 4)]
    if task == "binary":
        truth = rng.random(rows) ** 2
        y = (rng.random(rows) < truth).astype(np.int64)
        return y, [np.clip(truth + rng.normal(0, s, rows), 0.001, 0.999) for s in (0.1, 0.2)]
    logits = rng.normal(0, 2, (rows, classes))
    y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    noisy = [np.exp(logits + rng.normal(0, s, logits.shape)) for s in (0.3, 0.6)]
    return y, [p / p.sum(axis=1, keepdims=True) for p in noisy]


def plain(task: Task, metric: str) -> Callable[[Any, Any], float]:
    """Return scikit-learn's function of (y, prediction) for a metric."""
    regression: dict[str, Callable[[Any, Any], float]] = {
        "rmse": sk.root_mean_squared_error,
        "mae": sk.mean_absolute_error,
        "r2": sk.r2_score,
        "median_ae": sk.median_absolute_error,
        "mape": sk.mean_absolute_percentage_error,
    }
    if task == "regression":
        return regression[metric]
    of_labels = {
        "accuracy": sk.accuracy_score,
        "balanced_accuracy": sk.balanced_accuracy_score,
        "f1": sk.f1_score,
        "precision": sk.precision_score,
        "recall": sk.recall_score,
    }
    if metric in of_labels:
        averaged = metric in ("f1", "precision", "recall") and task == "multiclass"
        more = {"average": "macro"} if averaged else {}
        return lambda y, p: float(of_labels[metric](y, labels(task, p), **more))
    if metric == "roc_auc" and task == "multiclass":
        return lambda y, p: float(sk.roc_auc_score(y, p, multi_class="ovr"))
    of_probabilities: dict[str, Callable[[Any, Any], float]] = {
        "roc_auc": sk.roc_auc_score,
        "average_precision": sk.average_precision_score,
        "log_loss": sk.log_loss,
        "brier": sk.brier_score_loss,
    }
    return of_probabilities[metric]


def naive_seconds(task: Task, metric: str, y: Any, models: list[Any], times: int) -> float:
    """Return the seconds one resample takes the plain way, after checking it agrees with ours."""
    rng = np.random.default_rng(1)
    draws = [rng.integers(0, len(y), len(y)) for _ in range(times)]
    score = plain(task, metric)
    start = time.perf_counter()
    found = [[score(y[rows], p[rows]) for p in models] for rows in draws]
    seconds = (time.perf_counter() - start) / times
    ours = [statistic(task, metric, y, p) for p in models]
    counts = np.bincount(draws[0], minlength=len(y))
    np.testing.assert_allclose([value(counts) for value in ours], found[0], rtol=1e-9)
    return seconds


def main() -> None:
    """Time every metric a spec may name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument(
        "--naive", type=int, default=20, help="resamples the plain loop is timed on"
    )
    args = parser.parse_args()
    print(f"{args.resamples:,} resamples of {args.rows:,} rows, two models, one thread")
    print(f"{'task':<11} {'metric':<18} {'seconds':>8} {'plain loop':>11} {'ratio':>7}")
    for task, metrics in METRICS.items():
        y, models = data(task, args.rows)
        for metric in metrics:
            start = time.perf_counter()
            resample(task, metric, y, models, resamples=args.resamples)
            seconds = time.perf_counter() - start
            naive = naive_seconds(task, metric, y, models, args.naive) * args.resamples
            ratio = naive / seconds
            print(
                f"{task:<11} {metric:<18} {seconds:>8.2f} {naive:>11.0f} {ratio:>6.0f}x", flush=True
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the process: {peak:,.0f} MB")


if __name__ == "__main__":
    main()
