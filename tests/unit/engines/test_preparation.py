"""The preparation is scikit-learn's, bit for bit."""

from __future__ import annotations

import json
import warnings
from array import array
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.naive_bayes import ComplementNB

from include.engines.preparation import Category, Numbers, Preparation, Step
from include.engines.reading import limits, read_preparation
from include.engines.row import row_plan
from include.engines.unsupported import Unsupported
from include.store.features import Features, model_frame
from tests.unit.engines.world import FEATURES, fit, plain, rows

# One for each way training prepares columns: as they are, imputed, scaled and imputed, scaled to 0..1.
ESTIMATORS = {
    "native": (HistGradientBoostingRegressor(max_iter=2), "regression"),
    "trees": (GradientBoostingRegressor(n_estimators=2, max_leaf_nodes=3), "regression"),
    "linear": (Ridge(), "regression"),
    "positive": (ComplementNB(), "binary"),
}


@cache
def prepared(kind: str) -> tuple[Any, Preparation]:
    """Return a fitted ColumnTransformer and what was read from it, by way of its stored form."""
    estimator, task = ESTIMATORS[kind]
    prepare = fit(estimator, task).steps[0][1]
    read = read_preparation(prepare, FEATURES)
    return prepare, Preparation.from_dict(json.loads(json.dumps(read.to_dict(), allow_nan=False)))


def expected(prepare: Any, frame: pd.DataFrame) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unknown categories, which are the point
        made = prepare.transform(frame)
    return made.toarray() if hasattr(made, "toarray") else np.asarray(made)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_rows_like_the_training_data(kind: str) -> None:
    prepare, preparation = prepared(kind)
    frame = rows(500, seed=1)
    made = preparation.matrix(plain(frame))
    assert made.dtype == np.float64
    np.testing.assert_array_equal(made, expected(prepare, frame))
    arrays = {name: frame[name].to_numpy() for name in frame}
    np.testing.assert_array_equal(preparation.matrix(arrays), made)


NUMBERS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=True, allow_infinity=False, width=64),
    st.floats(999_999.99, 1_000_000.01),
)
TEXTS = st.one_of(
    st.none(), st.text(max_size=5), st.sampled_from(["north", "süd", "", "m1", "m7", "m599"])
)
ROW = st.fixed_dictionaries(
    {name: NUMBERS for name in FEATURES.numeric} | {name: TEXTS for name in FEATURES.categorical}
)


@pytest.mark.parametrize("kind", ESTIMATORS)
@settings(max_examples=40, deadline=None)
@given(found=st.lists(ROW, min_size=1, max_size=4))
def test_any_row_alone_and_among_others(kind: str, found: list[dict[str, Any]]) -> None:
    prepare, preparation = prepared(kind)
    columns = {name: [row[name] for row in found] for name in FEATURES.names}
    with np.errstate(all="ignore"):
        wanted = expected(prepare, model_frame(columns, FEATURES))
        made = preparation.matrix(columns)
        first = preparation.matrix({name: values[:1] for name, values in columns.items()})
    np.testing.assert_array_equal(made, wanted)
    np.testing.assert_array_equal(first, wanted[:1])
    plan = row_plan(preparation)
    if plan is not None:
        row = array("d", plan.empty)
        if plan.fill(columns, row):
            np.testing.assert_array_equal(row, wanted[0])


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_one_row_without_numpy(kind: str) -> None:
    prepare, preparation = prepared(kind)
    plan, frame = row_plan(preparation), rows(200, seed=4)
    if kind == "positive":  # scaling to 0..1 is left to the matrix
        assert plan is None
        return
    assert plan is not None
    wanted, columns, row = expected(prepare, frame), plain(frame), array("d", plan.empty)
    for number in range(len(frame)):
        assert plan.fill({name: values[number:] for name, values in columns.items()}, row)
        np.testing.assert_array_equal(row, wanted[number])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400, "3"])
def test_what_is_no_ordinary_number_is_left_to_the_matrix(value: Any) -> None:
    _, preparation = prepared("linear")
    plan = row_plan(preparation)
    assert plan is not None
    columns = plain(rows(1, seed=2)) | {"age": [value]}
    assert not plan.fill(columns, array("d", plan.empty))
    assert plan.fill(columns | {"age": [3]}, array("d", plan.empty))


@pytest.mark.parametrize(
    "strict",
    [
        Preparation((Numbers(("x",), ()),), largest=np.inf, missing=False),
        Preparation((Category("c", {"a": 1.0}, np.nan, -1.0),), largest=9.0, missing=False),
        Preparation((Category("c", {"a": 1e9}, -1.0, -1.0),), largest=9.0, missing=True),
        Preparation((Numbers(("x",), (Step("standard", np.ones(1), np.zeros(1)),)),)),
    ],
)
def test_constants_the_estimator_would_refuse_are_left_to_the_matrix(strict: Preparation) -> None:
    assert row_plan(strict) is None


def test_one_row_is_held_to_the_estimators_limit() -> None:
    _, preparation = prepared("native")
    plan = row_plan(Preparation(preparation.blocks, largest=1e7))
    assert plan is not None
    columns = plain(rows(1, seed=2))
    assert plan.fill(columns | {"tiny": [1e7]}, array("d", plan.empty))
    assert not plan.fill(columns | {"tiny": [-1.1e7]}, array("d", plan.empty))


@pytest.mark.parametrize("value", [3, 3.0, True, "3"])
def test_categories_of_other_types_are_written_as_in_training(value: object) -> None:
    features = Features(("x",), ("c",))
    frame = model_frame({"x": [1.0, 2.0, 3.0], "c": ["3", "true", "b"]}, features)
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OrdinalEncoder

    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    prepare = ColumnTransformer([("c", encode, ["c"])]).fit(frame)
    made = read_preparation(prepare, features).matrix({"x": [0], "c": [value]})
    wanted = prepare.transform(model_frame({"x": [0.0], "c": [value]}, features))
    np.testing.assert_array_equal(made, wanted)
    assert made[0, 0] >= 0


def test_the_estimators_own_limits_are_kept() -> None:
    row = np.zeros((1, 3))
    data, numbers = np.random.default_rng(0).normal(size=(50, 3)), np.arange(50.0)
    hist = HistGradientBoostingRegressor(max_iter=2).fit(data, numbers)
    assert limits(hist, row) == (np.inf, True)
    ridge = Ridge().fit(data, numbers)
    assert limits(ridge, row) == (np.finfo(np.float64).max, False)
    boosted = GradientBoostingRegressor(n_estimators=2).fit(data, numbers)
    assert limits(boosted, row) == (np.finfo(np.float32).max, False)


def test_what_the_estimator_refuses_is_refused() -> None:
    _, preparation = prepared("native")
    strict = Preparation(preparation.blocks, largest=1e3, missing=True)
    columns = plain(rows(3, seed=2)) | {"tiny": [1.0, None, -2e3]}
    with pytest.raises(ValueError, match="row 2 that is missing or too large"):
        strict.matrix(columns)
    _, scaled = prepared("linear")
    with pytest.raises(ValueError, match="infinite"):
        scaled.matrix(columns | {"tiny": [1.0, np.inf, 0.0]})


def test_what_training_never_builds_is_not_read() -> None:
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import PolynomialFeatures

    frame = rows(50, seed=3)
    other = ColumnTransformer([("n", PolynomialFeatures(), ["whole", "member"])])
    frame["whole"] = frame["whole"].fillna(0)
    with pytest.raises(Unsupported, match="PolynomialFeatures for numbers"):
        read_preparation(other.fit(frame), FEATURES)
