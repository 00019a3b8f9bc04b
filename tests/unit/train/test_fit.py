from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import include.train.fit as fit_module
from include.errors import ModelError
from include.registry.trust import load_model
from include.store.features import model_frame
from include.store.split import holdout_mask
from include.train.fit import fit
from tests.unit.train.conftest import FEATURES, World

Make = Callable[..., World]
TIMED: dict[str, Any] = {"ingest": {"time": "at", "features": FEATURES}}


def test_fit_uses_everything_but_the_holdout(
    make_world: Make, frame: pd.DataFrame, tmp_path: Path
) -> None:
    world = make_world(frame, TIMED)
    out = tmp_path / "out"
    result = fit(*world.args, 1, {"max_leaf_nodes": 7}, out)
    assert result.rows == int((~holdout_mask(frame, world.split)).sum())
    assert result.model_path == out / "model.skops"
    assert result.sha256 == hashlib.sha256(result.model_path.read_bytes()).hexdigest()
    assert (result.classes, result.cutoff) == ([0, 1], world.split.cutoff)
    assert [p.name for p in out.iterdir()] == ["model.skops"]
    pipeline = load_model(result.model_path, result.sha256)
    assert pipeline[-1].max_leaf_nodes == 7
    assert pipeline[-1].random_state == 42
    chances = pipeline.predict_proba(model_frame(frame, result.features))
    assert chances.shape == (len(frame), 2)


def test_fit_twice_is_the_same_model(make_world: Make, frame: pd.DataFrame, tmp_path: Path) -> None:
    world = make_world(frame, TIMED)
    results = [fit(*world.args, 1, {}, tmp_path / name) for name in ("one", "two", "two")]
    inputs = model_frame(frame, results[0].features)
    first, again = (load_model(results[n].model_path).predict_proba(inputs) for n in (0, 2))
    np.testing.assert_array_equal(first, again)


def test_failing_fit_names_the_candidate(
    make_world: Make, frame: pd.DataFrame, tmp_path: Path
) -> None:
    neighbours = {
        "estimator": "sklearn.neighbors.KNeighborsClassifier",
        "params": {"metric": "precomputed"},
    }
    world = make_world(frame, {**TIMED, "train": {"candidates": [neighbours]}})
    with pytest.raises(
        ModelError, match=r"toy\.yaml: train\.candidates\[0\]: must be able to learn .*ValueError"
    ):
        fit(*world.args, 0, {}, tmp_path / "out")
    assert not (tmp_path / "out" / "model.skops").exists()


def test_model_that_changes_when_saved_is_refused(
    make_world: Make, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(frame, TIMED)
    other = fit(*world.args, 0, {"C": 0.001}, tmp_path / "other").model_path
    monkeypatch.setattr(fit_module, "load_model", lambda *_: load_model(other))
    with pytest.raises(ModelError, match=r"must predict the same after saving, got \d+ other"):
        fit(*world.args, 0, {"C": 5.0}, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
