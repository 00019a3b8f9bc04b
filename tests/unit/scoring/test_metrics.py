"""Our metrics are scikit-learn's, and NaN where those are undefined."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.scoring.metrics import score, statistic
from include.spec.metrics import METRICS
from tests.unit.scoring.cases import reference


def test_score_has_the_names_of_the_spec_and_the_values_of_sklearn(case: Any) -> None:
    for prediction in case.predictions:
        scores = score(case.task, case.y, prediction)
        assert tuple(scores) == METRICS[case.task]
        for metric, value in scores.items():
            expected = reference(case.task, metric, case.y, prediction)
            assert value == pytest.approx(expected, rel=1e-12), metric


@pytest.mark.parametrize("metric", METRICS["binary"])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_binary_metrics_with_any_ties_and_any_counts(metric: str, data: st.DataObject) -> None:
    rows = data.draw(st.integers(2, 30))
    y = np.array([0, 1, *data.draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows))])
    steps = st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0])
    p = np.array(data.draw(st.lists(steps, min_size=rows + 2, max_size=rows + 2)))
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows)))
    counts = np.array([1, 1, *counts], dtype=np.int64)
    expected = reference("binary", metric, np.repeat(y, counts), np.repeat(p, counts))
    assert statistic("binary", metric, y, p)(counts) == pytest.approx(expected, abs=1e-12)


def test_more_classes_known_than_seen_is_undefined_for_roc_auc_only() -> None:
    y = np.array([0, 1, 1, 0])
    p = np.array([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.5, 0.3, 0.2], [0.6, 0.2, 0.2]])
    scores = score("multiclass", y, p)
    assert math.isnan(scores.pop("roc_auc"))
    assert all(math.isfinite(v) for v in scores.values())
    assert scores["balanced_accuracy"] == 0.75


@pytest.mark.parametrize("truth", [0, 1])
def test_single_class_leaves_two_class_metrics_undefined(truth: int) -> None:
    scores = score("binary", np.full(5, truth), np.linspace(0.1, 0.9, 5))
    assert math.isnan(scores["roc_auc"])
    assert math.isnan(scores["balanced_accuracy"])
    assert math.isfinite(scores["log_loss"])
    assert math.isnan(scores["average_precision"]) == (truth == 0)
    assert math.isnan(scores["f1"]) == (truth == 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_prediction_that_is_not_finite_undoes_every_score(case: Any, bad: float) -> None:
    spoiled = case.predictions[0].copy()
    spoiled[3] = bad
    assert all(math.isnan(v) for v in score(case.task, case.y, spoiled).values())


def test_no_rows_score_nothing() -> None:
    assert all(math.isnan(v) for v in score("regression", np.empty(0), np.empty(0)).values())


def test_targets_of_zero_and_constant_targets_undo_mape_and_r2_only() -> None:
    scores = score("regression", np.zeros(4), np.array([0.0, 1.0, 0.5, 0.2]))
    assert {m for m, v in scores.items() if math.isnan(v)} == {"mape", "r2"}
