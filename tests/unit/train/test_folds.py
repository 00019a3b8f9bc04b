from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.errors import DataError
from include.store.features import Features
from include.train.folds import expanding_folds, make_folds
from include.train.rows import TrainingRows


def rows_of(target: Any, times: Any = None, classes: int = 2) -> TrainingRows:
    return TrainingRows(
        inputs=pd.DataFrame({"a": np.zeros(len(target))}),
        target=np.asarray(target),
        classes=list(range(classes)),
        times=None if times is None else np.asarray(times),
        features=Features(("a",), ()),
    )


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200), st.integers(1, 8))
def test_expanding_folds_never_look_ahead(values: list[int], folds: int) -> None:
    times = np.unique(np.sort(values), return_inverse=True)[1].astype(np.int64)
    cut = expanding_folds(times, folds)
    assert len(cut) <= folds
    assert bool(cut) == (len(set(values)) > 1)
    for fold in cut:
        assert times[fold.train].max() < times[fold.test].min()  # also: no instant on both sides
        assert fold.train.stop == fold.test.start
    for earlier, later in itertools.pairwise(cut):
        assert earlier.test.stop == later.test.start  # every row validates at most once
    if cut:
        assert cut[-1].test.stop == len(times)


def test_expanding_folds_are_even_where_times_differ() -> None:
    cut = expanding_folds(np.arange(100, dtype=np.int64), 3)
    assert [(f.train.stop, f.test.stop) for f in cut] == [(25, 50), (50, 75), (75, 100)]


def test_folds_without_time_are_stratified_and_seeded() -> None:
    rows = rows_of([0] * 90 + [1] * 10)
    first, again = (make_folds(rows, "binary", 5, seed) for seed in (1, 1))
    other = make_folds(rows, "binary", 5, 2)
    assert [list(f.test) for f in first] == [list(f.test) for f in again]
    assert [list(f.test) for f in first] != [list(f.test) for f in other]
    assert [int(rows.target[f.test].sum()) for f in first] == [2] * 5


def test_folds_that_cannot_be_scored_are_left_out() -> None:
    target = [0, 1] * 30 + [0] * 60  # the second half has one class: nothing to rank
    folds = make_folds(rows_of(target, np.arange(120)), "binary", 3, 0)
    assert [(f.train.stop, f.test.stop) for f in folds] == [(30, 60)]


def test_folds_that_miss_a_class_are_used_only_when_none_has_all() -> None:
    early = make_folds(rows_of([0, 1] * 20 + [2, 0, 1] * 20, np.arange(100), 3), "multiclass", 4, 0)
    assert early[0].train.stop > 40
    late = make_folds(rows_of([0, 1] * 45 + [2, 0] * 5, np.arange(100), 3), "multiclass", 4, 0)
    assert len(late) == 4


@pytest.mark.parametrize(
    ("target", "times", "message"),
    [
        ([0, 1] * 3, None, "at least 8 rows in the training part, got 6"),
        ([0, 1] * 30, [0] * 60, "at least two different times"),
        ([0] * 50 + [1] * 10, range(60), "two classes on both sides of at least one fold"),
    ],
)
def test_unusable_folds(target: list[int], times: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_folds(rows_of(target, times), "binary", 3, 0)


def test_regression_without_time() -> None:
    folds = make_folds(rows_of(np.linspace(0, 1, 20), classes=0), "regression", 4, 0)
    assert sorted(np.concatenate([f.test for f in folds])) == list(range(20))
