"""How far two versions agree, and how sure that is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from include.deploy.agreement import of_classes, of_scores

DRAW = np.random.default_rng(0)
SCORES = DRAW.beta(2, 5, 1000)


@pytest.mark.parametrize(
    ("ours", "value"),
    [
        (SCORES, 1.0),
        (SCORES**3 / 7 + 2, 1.0),  # another calibration
        (1 - SCORES, -1.0),
        (DRAW.permutation(SCORES), 0.0),
        (np.full(1000, 0.5), 0.0),  # always the same, whatever is asked
    ],
)
def test_numbers_are_compared_by_their_order(ours: np.ndarray, value: float) -> None:
    found = of_scores(SCORES, ours, 1000)
    assert found.value == pytest.approx(value, abs=0.07)
    assert 0 <= found.error < 0.04


def test_one_extreme_value_changes_nothing() -> None:
    ours = SCORES.copy()
    ours[0] = 1e9
    assert of_scores(SCORES, ours, 1000).value > 0.99


def test_a_champion_that_tells_no_rows_apart_is_not_contradicted() -> None:
    assert of_scores(np.full(1000, 0.5), SCORES, 1000).value == 1.0
    assert of_classes({("a", "a"): 50, ("a", "b"): 50}, 100).value == 1.0


def test_nothing_to_compare() -> None:
    nothing = np.full(10, math.nan)
    assert math.isnan(of_scores(nothing, nothing, 10).value)
    assert math.isnan(of_classes({}, 0).value)
    assert of_scores(SCORES, SCORES[::-1], 3).error == math.inf


def test_its_error_is_what_samples_show() -> None:
    both = stats.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], seed=0)
    found = [of_scores(*both.rvs(100).T, 100) for _ in range(300)]
    spread = np.std([f.value for f in found])
    assert np.mean([f.error for f in found]) == pytest.approx(spread, rel=0.15)


def test_classes_are_compared_beyond_chance() -> None:
    assert of_classes({("a", "a"): 50, ("b", "b"): 50}, 100).value == 1.0
    assert of_classes({("a", "b"): 50, ("b", "a"): 50}, 100).value == -1.0
    by_chance = {("a", "a"): 81, ("a", "b"): 9, ("b", "a"): 9, ("b", "b"): 1}
    assert of_classes(by_chance, 100).value == pytest.approx(0.0)
    assert of_classes({("a", "a"): 40, ("a", "b"): 10, ("b", "b"): 50}, 100).value == 0.8


def test_few_rows_of_a_rare_class_are_not_sure() -> None:
    """Three and four of a hundred, none of them the same: that may be."""
    found = of_classes({("a", "a"): 93, ("b", "a"): 3, ("a", "b"): 4}, 100)
    assert found.value < 0
    assert found.value + 3 * found.error > 0.2
