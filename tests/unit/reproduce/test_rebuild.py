from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import include.reproduce.rebuild as rebuild_module
from include.errors import ModelError, SnapshotError
from include.reproduce.rebuild import compare, read_snapshot, rebuild
from include.reproduce.record import read_record
from tests.unit.reproduce.conftest import Made

Make = Callable[..., Made]
FOREST = "sklearn.ensemble.RandomForest"
SMALL = {"n_estimators": 8, "max_features": 1}
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("time", [{}, {"time": "at"}], ids=["hash", "time"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_every_task_is_reproduced_exactly(
    make_version: Make, task: str, time: dict[str, str]
) -> None:
    kind = "Regressor" if task == "regression" else "Classifier"
    forest = {"estimator": FOREST + kind, "params": SMALL}
    made = make_version(task, forest, {"max_depth": 3}, **time)
    result = rebuild(read_record(made.package), made.store, made.manifest)
    assert result.comparison.verdict == "identical"
    assert result.comparison.max_difference == 0
    assert result.comparison.equal_labels == (None if task == "regression" else 1)
    assert result.held_out
    assert result.trained_rows + result.comparison.rows == 300


def test_the_event_is_the_spec_s(make_version: Make) -> None:
    line = {"estimator": "sklearn.linear_model.LogisticRegression"}
    made = make_version("binary", line, {"C": 0.5}, positive="default")
    assert made.package.classes == ["paid", "default"]
    assert (
        rebuild(read_record(made.package), made.store, made.manifest).comparison.max_difference == 0
    )


@pytest.mark.parametrize("part", ["fixed", "params"])
def test_another_argument_is_another_model(make_version: Make, part: str) -> None:
    forest = {"estimator": f"{FOREST}Regressor", "params": SMALL}
    made = make_version("regression", forest, {"max_depth": 3})
    value = {"fixed": {**SMALL, "n_estimators": 9}, "params": {"max_depth": 4}}[part]
    package = replace(made.package, meta={**made.package.meta, part: value})
    found = rebuild(read_record(package), made.store, made.manifest).comparison
    assert found.verdict == "different"
    assert found.max_difference is not None
    assert found.max_difference > 1


def test_only_so_many_rows_are_compared(
    make_version: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_module, "MOST_ROWS", 7)
    made = make_version("regression", {"estimator": "sklearn.linear_model.Ridge"}, {"alpha": 1.0})
    assert rebuild(read_record(made.package), made.store, made.manifest).comparison.rows == 7


def test_without_a_holdout_training_rows_are_compared(make_version: Make) -> None:
    made = make_version("regression", {"estimator": "sklearn.linear_model.Ridge"}, {"alpha": 1.0})
    split = {**made.package.meta["split"], "share": 1e-9}
    package = replace(made.package, meta={**made.package.meta, "split": split})
    result = rebuild(read_record(package), made.store, made.manifest)
    assert (result.held_out, result.comparison.rows, result.trained_rows) == (False, 300, 300)


def test_an_estimator_that_is_gone_is_the_version_s_own_problem(make_version: Make) -> None:
    made = make_version("regression", {"estimator": "sklearn.linear_model.Ridge"}, {"alpha": 1.0})
    meta = {**made.package.meta, "estimator": "sklearn.linear_model.Rigde"}
    record = read_record(replace(made.package, meta=meta))
    message = r"^toy version 3: must name an estimator class, got unknown .*Did you mean .*Ridge"
    with pytest.raises(ModelError, match=message):
        rebuild(record, made.store, made.manifest)


def test_classes_must_be_those_of_the_data(make_version: Make) -> None:
    line = {"estimator": "sklearn.linear_model.LogisticRegression"}
    made = make_version("binary", line, {"C": 0.5})
    meta = {**made.package.meta, "classes": ["default", "settled"]}
    record = read_record(replace(made.package, meta=meta))
    with pytest.raises(ModelError, match=r"must have the classes \['default', 'settled'\].*'paid'"):
        rebuild(record, made.store, made.manifest)


def test_a_snapshot_that_is_gone(make_version: Make) -> None:
    made = make_version("regression", {"estimator": "sklearn.linear_model.Ridge"}, {"alpha": 1.0})
    meta = {**made.package.meta, "snapshot_id": "0" * 32}
    record = read_record(replace(made.package, meta=meta))
    with pytest.raises(SnapshotError, match=r"^toy version 3: .*must exist, got none.*backup"):
        read_snapshot(record, made.store)


def test_rows_must_be_those_of_the_name(make_version: Make) -> None:
    made = make_version("regression", {"estimator": "sklearn.linear_model.Ridge"}, {"alpha": 1.0})
    part = made.manifest.files[0]
    doubled = replace(made.manifest, files=(part, part))
    with pytest.raises(SnapshotError, match="must hold the rows it is named after, got rows that"):
        rebuild(read_record(made.package), made.store, doubled)


@pytest.mark.parametrize(
    ("stored", "again", "verdict", "largest"),
    [
        ([0.1, 0.2], [0.1, 0.2], "identical", 0.0),
        ([0.1, NAN], [0.1, NAN], "identical", 0.0),
        ([INF, 1.0], [INF, 1.0], "identical", 0.0),
        ([0.1, 0.2], [0.1, 0.2 + 5e-10], "equal", 5e-10),
        ([0.1, 0.2], [0.1, 0.2 + 5e-9], "different", 5e-9),
        ([1e6, 0.2], [1e6 + 5e-4, 0.2], "equal", 5e-4),
        ([1e6, 0.2], [1e6, 0.2 + 5e-4], "different", 5e-4),
        ([0.1, 0.2], [0.1, NAN], "different", None),
        ([0.1, 0.2], [0.1, INF], "different", None),
    ],
)
def test_verdicts(stored: Any, again: Any, verdict: str, largest: float | None) -> None:
    for left, right in ((stored, again), (again, stored)):
        found = compare(np.array(left), np.array(right), labels=False)
        assert (found.verdict, found.equal_labels, found.rows) == (verdict, None, 2)
        assert found.max_difference == (
            None if largest is None else pytest.approx(largest, rel=1e-3)
        )


def test_labels() -> None:
    binary = compare(np.array([0.4, 0.6, 0.5, 0.9]), np.array([0.6, 0.7, 0.4, 0.9]), labels=True)
    assert binary.equal_labels == 0.75
    stored = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    again = np.array([[0.2, 0.45, 0.35], [0.7, 0.2, 0.1]])
    assert compare(stored, again, labels=True).equal_labels == 0.5


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
    st.floats(1e-12, 0.1),
    st.integers(0, 19),
)
def test_any_difference_is_seen(values: list[float], step: float, place: int) -> None:
    stored = np.array(values)
    again = stored.copy()
    again[place % len(values)] += step
    moved = float(np.abs(again - stored).max())
    found = compare(stored, again, labels=True)
    assert found.max_difference == moved
    assert found.verdict == (
        "identical" if moved == 0 else "equal" if moved <= 1e-9 else "different"
    )
