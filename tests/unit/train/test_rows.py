from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from include.errors import DataError
from include.store.split import Split
from include.train.rows import load_rows
from tests.unit.train.conftest import FEATURES, World

Make = Callable[..., World]
TIMED = {"ingest": {"time": "at", "features": FEATURES}}


def test_rows_are_the_training_part_oldest_first(make_world: Make, frame: pd.DataFrame) -> None:
    world = make_world(frame.sample(frac=1, random_state=0), TIMED)
    rows = load_rows(*world.args)
    kept = frame[frame["at"].dt.tz_localize("UTC") <= pd.Timestamp(world.split.cutoff)]
    assert len(rows.inputs) == len(kept) == len(rows.target) < len(frame)
    assert list(rows.inputs.columns) == [*FEATURES["numeric"], *FEATURES["categorical"]]
    assert rows.times is not None
    assert (np.diff(rows.times) >= 0).all()
    assert rows.times[-1] == kept["at"].nunique() - 1
    assert sorted(rows.inputs["b"]) == sorted(kept["b"])
    assert rows.classes == [0, 1]


def test_rows_without_time_have_no_order(make_world: Make, frame: pd.DataFrame) -> None:
    rows = load_rows(*make_world(frame, {"ingest": {"features": FEATURES}}).args)
    assert rows.times is None
    assert 0.7 * len(frame) < len(rows.inputs) < 0.9 * len(frame)


def test_infinite_feature_is_named(make_world: Make, frame: pd.DataFrame) -> None:
    frame.loc[[3, 5], "b"] = np.inf
    with pytest.raises(DataError, match=r"column 'b': must hold finite numbers .* got 2 infinite"):
        load_rows(*make_world(frame, TIMED).args)


def test_single_class_in_the_training_part(make_world: Make, frame: pd.DataFrame) -> None:
    frame["y"] = (np.arange(len(frame)) > 395).astype(int)
    with pytest.raises(DataError, match=r"needs exactly two classes, got 1: 0"):
        load_rows(*make_world(frame, TIMED).args)


def test_constant_features(make_world: Make, frame: pd.DataFrame) -> None:
    frame["b"], frame["region"] = 1.5, None
    spec = {"ingest": {"features": {"numeric": ["b", "empty"], "categorical": ["region"]}}}
    with pytest.raises(DataError, match="at least one feature that varies, got 3 constant ones"):
        load_rows(*make_world(frame, spec).args)


@pytest.mark.parametrize("name", ["a", "b", "region"])
def test_one_varying_feature_is_enough(name: str, make_world: Make, frame: pd.DataFrame) -> None:
    if name == "a":  # only whether it is missing varies
        frame["a"] = np.where(frame["a"].isna(), np.nan, 2.0)
    kind = "categorical" if name == "region" else "numeric"
    spec = {"ingest": {"features": {kind: [name]}}}
    assert len(load_rows(*make_world(frame, spec).args).inputs) > 0


def test_constant_regression_target(make_world: Make, frame: pd.DataFrame) -> None:
    frame["y"] = 3.0
    spec = {"task": "regression", **TIMED}
    with pytest.raises(DataError, match=r"column 'y': must vary in the training part, got only 3"):
        load_rows(*make_world(frame, spec).args)


def test_nothing_left_to_train_on(make_world: Make, frame: pd.DataFrame) -> None:
    world = make_world(frame, TIMED)
    split = Split("time", "at", "2020-01-01T00:00:00Z", 0.2)
    with pytest.raises(DataError, match="must leave rows to train on, got all 400"):
        load_rows(world.spec, world.store, world.manifest, split)
