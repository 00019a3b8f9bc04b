"""PSI between two versions' predictions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.deploy.shift import of_classes, of_scores

DRAW = np.random.default_rng(0)
WIDE = DRAW.normal(0, 1, 5000)


def test_the_same_predictions_show_nothing() -> None:
    found = of_scores(WIDE, WIDE, (5000, 5000))
    assert found.psi == pytest.approx(0, abs=1e-12)
    assert found.chance == 1


def test_chance_alone_is_taken_off() -> None:
    values = [
        of_scores(DRAW.normal(0, 1, 500), DRAW.normal(0, 1, 100), (500, 100)) for _ in range(300)
    ]
    assert np.mean([v.psi for v in values]) == pytest.approx(values[0].expected, rel=0.25)
    assert np.mean([v.beyond_chance for v in values]) == pytest.approx(0, abs=0.03)
    assert sum(v.chance < 0.01 for v in values) <= 9


@pytest.mark.parametrize("value", [0.0, -5.0, 5.0, float("nan")])
def test_a_constant_is_far_from_anything(value: float) -> None:
    found = of_scores(WIDE, np.full(100, value), (5000, 100))
    assert found.beyond_chance > 1
    assert found.chance < 1e-10


def test_two_constants_differ() -> None:
    found = of_scores(np.zeros(200), np.full(200, -1.0), (200, 200))
    assert found.beyond_chance > 1
    assert of_scores(np.zeros(200), np.zeros(200), (200, 200)).psi == pytest.approx(0)


def test_rows_count_as_their_keys() -> None:
    other = DRAW.normal(0.5, 1, 1000)
    many, few = of_scores(WIDE, other, (5000, 1000)), of_scores(WIDE, other, (30, 30))
    assert many.chance < 1e-6 < 0.01 < few.chance
    assert few.expected > many.expected


def test_classes() -> None:
    first = {"a": 500, "b": 300, "c": 200}
    assert of_classes(first, {"a": 50, "b": 30, "c": 20}, (1000, 100)).psi < 0.01
    gone = of_classes(first, {"a": 100}, (1000, 100))
    assert gone.beyond_chance > 0.5
    assert gone.chance < 1e-6
    strange = of_classes(first, {"z": 100}, (1000, 100))
    assert strange.beyond_chance > 2


def test_very_many_classes_share_a_bin() -> None:
    first = {f"c{n}": 5 for n in range(900)}
    assert of_classes(first, first, (4500, 4500)).psi == pytest.approx(0)


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=60),
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=60),
)
def test_any_numbers_give_a_number(first: list[float], second: list[float]) -> None:
    found = of_scores(np.array(first), np.array(second), (len(first), len(second)))
    assert np.isfinite([found.psi, found.expected, found.chance]).all()
    assert found.psi >= -1e-12
    assert 0 <= found.chance <= 1
