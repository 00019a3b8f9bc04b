from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from include.errors import ModelError
from include.scoring.metrics import score as gate_score
from include.spec.metrics import METRICS, Task
from include.train.scoring import score


class Fixed:
    """An estimator that predicts what it is told."""

    def __init__(self, prediction: Any, classes: Any = None) -> None:
        self.prediction, self.classes_ = np.asarray(prediction), classes

    def predict(self, inputs: Any) -> Any:
        return self.prediction

    predict_proba = predict


def prediction_of(task: Task, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Return target, estimator output and the gate's form of it."""
    if task == "regression":
        given = rng.normal(5, 1, 200)
        return rng.normal(5, 1, 200), given, given
    classes = 2 if task == "binary" else 4
    chances = rng.dirichlet(np.ones(classes), 200)
    return rng.integers(0, classes, 200), chances, chances[:, 1] if task == "binary" else chances


@pytest.mark.parametrize(("task", "metric"), [(t, m) for t in METRICS for m in METRICS[t]])
def test_search_and_gate_mean_the_same_by_a_metric(task: Task, metric: str) -> None:
    target, output, gate_form = prediction_of(task, np.random.default_rng(3))
    classes = output.shape[1] if output.ndim == 2 else 0
    found = score(task, metric, Fixed(output), None, target, classes)
    assert found == pytest.approx(gate_score(task, target, gate_form)[metric], rel=1e-9)


def test_class_the_estimator_never_saw_has_no_chance() -> None:
    target = np.array([0, 2, 2, 1])
    estimator = Fixed([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.5, 0.5]], classes=[0, 2])
    assert score("multiclass", "accuracy", estimator, None, target, 3) == 0.75
    assert score("multiclass", "roc_auc", estimator, None, target, 3) == pytest.approx(
        (1 + 0.5 + 1) / 3
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_predictions_that_are_no_numbers_fail(bad: float) -> None:
    with pytest.raises(ModelError, match="must predict finite numbers"):
        score("regression", "rmse", Fixed([1.0, bad]), None, np.array([1.0, 2.0]), 0)


def test_undefined_score_fails() -> None:
    with (
        pytest.warns(UserWarning, match="R\\^2 score is not well-defined"),
        pytest.raises(ModelError, match="r2 must be finite, got nan"),
    ):
        score("regression", "r2", Fixed([1.0]), None, np.array([1.0]), 0)
