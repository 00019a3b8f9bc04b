from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.errors import DataError
from include.spec.schema import Spec
from include.store.features import (
    Features,
    category_texts,
    model_frame,
    resolve_features,
    target_array,
)
from include.store.snapshots import Column, Manifest

MakeSpec = Callable[..., Spec]
BOTH = Features(("n",), ("c",))


def manifest_of(**types: Any) -> Manifest:
    columns = tuple(Column(n, t, 0.0, None, None, None) for n, t in types.items())
    return Manifest("m", "0" * 32, 1, columns, (), None, None, "", "")


ALL = manifest_of(
    y="int",
    id="string",
    at="timestamp",
    a="float",
    b="bool",
    c="string",
    d="int",
    when="timestamp",
    mail="string",
)


def test_inferred_features(make_spec: MakeSpec) -> None:
    spec = make_spec(key="id", time="at", drop=["mail"])
    assert resolve_features(spec, ALL) == Features(("a", "b", "d"), ("c",))


def test_listed_features_keep_their_order(make_spec: MakeSpec) -> None:
    spec = make_spec(features={"numeric": ["d", "a"], "categorical": ["b", "c"]})
    features = resolve_features(spec, ALL)
    assert features.names == ("d", "a", "b", "c")
    assert Features.from_dict(features.to_dict()) == features


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            {"numeric": ["aa"]},
            r"ingest.features.numeric: feature 'aa' must be a column, got 'y', .*Did you mean 'a'",
        ),
        ({"numeric": ["c"]}, r"'c' must hold numbers, got type string"),
        (
            {"categorical": ["when"]},
            r"'when' must hold texts, numbers or booleans, got type timestamp",
        ),
    ],
)
def test_listed_features_are_checked(make_spec: MakeSpec, features: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        resolve_features(make_spec(features=features), ALL)


def test_nothing_to_learn_from(make_spec: MakeSpec) -> None:
    with pytest.raises(DataError, match="needs at least one column to learn from"):
        resolve_features(make_spec(key="id"), manifest_of(y="int", id="string"))


def check_convention(frame: pd.DataFrame) -> None:
    assert list(frame.columns) == ["n", "c"]
    assert frame.index.equals(pd.RangeIndex(len(frame)))
    assert frame["n"].dtype == np.float64
    assert frame["c"].dtype == object
    assert all(v is None or type(v) is str for v in frame["c"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], [1.0, 2.0]),
        ([True, None], [1.0, np.nan]),
        ([1.5, float("inf")], [1.5, np.inf]),
        (pd.array([1, None], dtype="Int64"), [1.0, np.nan]),
        (pd.array([True, None], dtype="boolean"), [1.0, np.nan]),
        (pd.array([1, None], dtype="int64[pyarrow]"), [1.0, np.nan]),
        (np.array([1, 2], dtype=np.int8), [1.0, 2.0]),
        ([Decimal("1.5"), pd.NA], [1.5, np.nan]),
        ([None, None], [np.nan, np.nan]),
    ],
)
@pytest.mark.parametrize("as_frame", [True, False])
def test_numeric_input(values: Any, expected: list[float], as_frame: bool) -> None:
    data: Any = {"n": values, "c": ["x", "y"], "more": [0, 0]}
    frame = model_frame(pd.DataFrame(data, index=[7, 7]) if as_frame else data, BOTH)
    check_convention(frame)
    np.testing.assert_array_equal(frame["n"], expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", None], ["a", None]),
        ([3, 4], ["3", "4"]),
        ([3.0, float("nan")], ["3", None]),
        ([2.5, 1e300], ["2.5", str(int(1e300))]),
        ([True, False], ["true", "false"]),
        ([True, None], ["true", None]),
        ([True, 1], ["true", "1"]),
        ([np.int64(1), np.bool_(True)], ["1", "true"]),
        (["", pd.NA], ["", None]),
        (pd.Categorical(["x", None]), ["x", None]),
        (pd.Categorical([2.0, None]), ["2", None]),
        (pd.array([7, None], dtype="Int64"), ["7", None]),
        (pd.array(["7", None], dtype="string"), ["7", None]),
        (pd.array(["7", None], dtype="string[pyarrow]"), ["7", None]),
        ([datetime(2026, 1, 2), None], ["2026-01-02T00:00:00", None]),
        ([float("inf"), -0.0], ["inf", "0"]),
        ([None, None], [None, None]),
    ],
)
@pytest.mark.parametrize("as_frame", [True, False])
def test_categorical_input(values: Any, expected: list[Any], as_frame: bool) -> None:
    data: Any = {"c": values, "n": [1, 2]}
    frame = model_frame(pd.DataFrame(data) if as_frame else data, BOTH)
    check_convention(frame)
    assert frame["c"].tolist() == expected


def test_arrow_input() -> None:
    table = pa.table({"c": pa.array([1, None]), "n": pa.array([None, 2]), "t": pa.array([1, 2])})
    frame = model_frame(table, BOTH)
    check_convention(frame)
    assert frame["c"].tolist() == ["1", None]


VALUE = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=5)


@given(st.lists(VALUE, max_size=12))
@settings(max_examples=150, deadline=None)
def test_a_row_alone_looks_as_among_others(values: list[Any]) -> None:
    """Serving sends one row at a time, training all at once: the category must be the same."""
    together = category_texts(values).tolist()
    alone = [category_texts([v])[0] for v in values]
    assert together == alone
    assert category_texts(together).tolist() == together


@given(
    st.lists(st.none() | st.floats() | st.integers(-(2**62), 2**62) | st.booleans(), max_size=12)
)
@settings(max_examples=100, deadline=None)
def test_model_frame_twice_is_model_frame(values: list[Any]) -> None:
    once = model_frame({"n": values, "c": values}, BOTH)
    check_convention(once)
    pd.testing.assert_frame_equal(model_frame(once, BOTH), once)


def test_wrong_input() -> None:
    with pytest.raises(DataError, match=r"feature 'c' must be a column, got 'n'"):
        model_frame({"n": [1]}, BOTH)
    with pytest.raises(DataError, match=r"'n' must hold numbers, got 'one'"):
        model_frame({"n": ["one"], "c": ["x"]}, BOTH)
    with pytest.raises(DataError, match=r"'n' must hold numbers, got \[1\]"):
        model_frame({"n": [[1]], "c": ["x"]}, BOTH)


# --- target ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "positive", "codes", "classes"),
    [
        (["No", "Yes", "No"], None, [0, 1, 0], ["No", "Yes"]),
        (["No", "Yes", "No"], "No", [1, 0, 1], ["Yes", "No"]),
        ([0, 1, 1], None, [0, 1, 1], [0, 1]),
        ([0.0, 1.0, 1.0], 0, [1, 0, 0], [1, 0]),
        ([9, 10, 9], None, [0, 1, 0], [9, 10]),
        ([True, False, True], None, [1, 0, 1], [False, True]),
        ([0.5, -1.0, 0.5], None, [1, 0, 1], [-1, 0.5]),
    ],
)
def test_binary_target(
    make_spec: MakeSpec, values: Any, positive: Any, codes: list[int], classes: list[Any]
) -> None:
    spec = make_spec(positive=positive)
    y, found = target_array(pd.DataFrame({"y": values}), spec)
    assert y.dtype == np.int64
    assert y.tolist() == codes
    assert found == classes
    assert [type(c) for c in found] == [type(c) for c in classes]
    again, kept = target_array(pd.DataFrame({"y": values[:1]}), spec, classes)
    assert again.tolist() == codes[:1]
    assert kept == classes


def test_multiclass_target(make_spec: MakeSpec) -> None:
    frame = pd.DataFrame({"y": ["b", "c", "a", "b"]})
    y, classes = target_array(frame, make_spec("multiclass"))
    assert y.tolist() == [1, 2, 0, 1]
    assert classes == ["a", "b", "c"]


def test_regression_target(make_spec: MakeSpec) -> None:
    y, classes = target_array(pd.DataFrame({"y": [1, 2]}), make_spec("regression"))
    assert y.dtype == np.float64
    assert classes == []


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        ("binary", [1, None], "every row must have a value, got 1 of 2 rows without"),
        ("binary", [], "every row must have a value, got no rows"),
        ("binary", ["a", "a"], "needs exactly two classes, got 1: 'a'"),
        (
            "binary",
            list("abcdefg"),
            "needs exactly two classes, got 7: 'a', 'b', 'c', 'd', 'e', ...",
        ),
        ("multiclass", ["a", "a"], "needs at least two classes, got 1"),
        ("regression", ["a", "b"], "task regression needs numbers, got 'a'"),
        ("regression", [1.0, float("inf")], "must be finite, got 1 infinite"),
    ],
)
def test_wrong_target(make_spec: MakeSpec, task: str, values: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        target_array(pd.DataFrame({"y": values}), make_spec(task))


def test_unknown_class_positive_and_column(make_spec: MakeSpec) -> None:
    with pytest.raises(DataError, match=r"must be one of \['a', 'b'\], got 'z'"):
        target_array(pd.DataFrame({"y": ["z"]}), make_spec(), ["a", "b"])
    with pytest.raises(DataError, match=r"ingest\.positive: must be a value of the target"):
        target_array(pd.DataFrame({"y": ["a", "b"]}), make_spec(positive="c"))
    with pytest.raises(DataError, match="target 'y' must be a column"):
        target_array(pd.DataFrame({"z": ["a", "b"]}), make_spec())
