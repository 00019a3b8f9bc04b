"""A resample scored by counts equals the same rows copied out and scored with scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from include.scoring.bootstrap import improvement, interval, resample
from include.scoring.metrics import score, statistic
from include.spec.metrics import HIGHER_IS_BETTER, METRICS
from tests.unit.scoring.cases import make_case, reference

EVERY = [(task, metric) for task, metrics in METRICS.items() for metric in metrics]


@pytest.mark.parametrize(("task", "metric"), EVERY)
def test_counts_give_what_copied_rows_give(task: Any, metric: str) -> None:
    case = make_case(task, rows=150, seed=3)
    rng = np.random.default_rng(1)
    values = [statistic(task, metric, case.y, p) for p in case.predictions]
    for _ in range(25):
        rows = rng.integers(0, 150, 150)
        counts = np.bincount(rows, minlength=150)
        for value, p in zip(values, case.predictions, strict=True):
            assert value(counts) == pytest.approx(reference(task, metric, case.y[rows], p[rows]))


@pytest.mark.parametrize(("task", "metric"), EVERY)
def test_resamples_have_the_spread_of_a_naive_bootstrap(task: Any, metric: str) -> None:
    case = make_case(task, rows=200, seed=5)
    ours = resample(task, metric, case.y, case.predictions, resamples=600, seed=2)
    rng = np.random.default_rng(8)
    naive = []
    for _ in range(120):
        rows = rng.integers(0, 200, 200)
        naive.append([reference(task, metric, case.y[rows], p[rows]) for p in case.predictions])
    got, want = ours[:, 0] - ours[:, 1], np.diff(np.array(naive), axis=1)[:, 0] * -1
    assert got.std() == pytest.approx(want.std(), rel=0.25)
    assert got.mean() == pytest.approx(want.mean(), abs=4 * want.std() / math.sqrt(120))


@pytest.mark.parametrize("task", list(METRICS))
def test_same_seed_same_result_and_another_seed_another(task: Any) -> None:
    case = make_case(task, rows=60)
    first, again, other = (
        resample(task, METRICS[task][0], case.y, case.predictions, resamples=20, seed=s)
        for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("metric", METRICS["binary"])
def test_identical_models_never_differ(metric: str) -> None:
    case = make_case("binary", rows=80)
    twice = (case.predictions[0], case.predictions[0].copy())
    scores = resample("binary", metric, case.y, twice, resamples=50)
    assert (scores[:, 0] == scores[:, 1]).all()


def test_a_rare_class_missing_from_many_resamples_leaves_the_lower_end_open() -> None:
    y = np.array([1, 1] + [0] * 58)
    p = np.linspace(1, 0, 60)
    scores = resample("binary", "roc_auc", y, (p, 1 - p), resamples=500)
    found = interval("roc_auc", *scores.T, (1.0, 0.0), confidence=0.95, rows=60)
    assert found.improvement == 1.0
    assert 40 < found.undefined < 100  # exp(-2) of 500
    assert found.low == -math.inf
    assert found.high == math.inf


def test_a_few_undefined_resamples_only_widen() -> None:
    scores = np.linspace(0, 1, 1000)
    zero = np.zeros(1000)
    clean = interval("roc_auc", scores, zero, (0.5, 0.0), confidence=0.9, rows=9)
    scores[::100] = math.nan
    holes = interval("roc_auc", scores, zero, (0.5, 0.0), confidence=0.9, rows=9)
    assert holes.low < clean.low < clean.high < holes.high
    assert holes.undefined == 10


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("metric", ["roc_auc", "f1", "log_loss"])
def test_a_prediction_that_is_not_finite_leaves_nothing_known(metric: str, bad: float) -> None:
    case = make_case("binary", rows=50)
    spoiled = case.predictions[0].copy()
    spoiled[0] = bad
    scores = resample("binary", metric, case.y, (spoiled, case.predictions[1]), resamples=30)
    assert np.isnan(scores[:, 0]).all()
    assert np.isfinite(scores[:, 1]).all()


def test_no_rows_or_no_resamples_leave_nothing_known() -> None:
    scores = resample("regression", "rmse", np.empty(0), (np.empty(0),) * 2, resamples=5)
    assert np.isnan(scores).all()
    found = interval("rmse", np.empty(0), np.empty(0), (1.0, 2.0), confidence=0.9, rows=0)
    assert math.isnan(found.low)


@pytest.mark.parametrize("metric", HIGHER_IS_BETTER)
def test_improvement_is_positive_where_the_first_is_better(metric: str) -> None:
    better, worse = (2.0, 1.0) if HIGHER_IS_BETTER[metric] else (1.0, 2.0)
    assert improvement(metric, better, worse) == 1.0
    assert improvement(metric, worse, better) == -1.0


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        y = rng.normal(size=150)
        models = (y + rng.normal(0, 1, 150), y + rng.normal(0, 1, 150))  # equally good
        scores = resample("regression", "mae", y, models, resamples=200, seed=seed)
        found = interval("mae", *scores.T, _points(y, models), confidence=0.9, rows=150)
        covered += found.low <= 0 <= found.high
    assert 165 <= covered <= 195  # 180 expected; four standard deviations are 17


def test_many_rows_need_no_copies_of_them() -> None:
    import tracemalloc

    case = make_case("binary", rows=50_000)
    tracemalloc.start()
    resample("binary", "roc_auc", case.y, case.predictions, resamples=20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20


def _points(y: Any, models: Any) -> Any:
    return tuple(score("regression", y, m)["mae"] for m in models)
