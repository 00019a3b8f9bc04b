import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from include.errors import DataError
from include.monitor import reference as room
from include.monitor.profile import MOST_CATEGORIES, ColumnProfile, Profile, build_profile
from include.monitor.reference import Reference, build_reference, load_reference
from include.scoring.model import LoadedModel, predict
from include.store.features import Features, model_frame
from include.store.snapshots import Manifest, read_frame
from include.store.split import holdout_mask
from tests.unit.evaluate import world as gate

METRICS = {"roc_auc": 0.9, "undefined": float("nan")}


class Made:
    """A version and its reference."""

    def __init__(self, folder: Path, task: str = "binary", rows: int = 600) -> None:
        self.world = gate.World(task, folder)
        self.frame = gate.make_frame(task, rows)
        self.manifest: Manifest = self.world.snapshot(self.frame)
        self.split = self.world.split(self.manifest)
        self.model: LoadedModel = self.world.fit(self.manifest, self.split)
        self.out = folder / "reference"

    def build(self) -> Reference:
        return build_reference(
            self.world.spec, self.world.store, self.manifest, self.model, METRICS, self.out
        )


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def test_inputs_are_the_snapshot_as_the_model_sees_it(made):
    reference = made.build()
    inputs = pd.read_parquet(reference.inputs)
    assert list(inputs) == ["age", "use", "region", "target"]  # never the key or the time
    assert np.allclose(inputs["use"], made.frame["use"])
    assert (inputs["target"] == made.frame["target"]).all()
    assert (reference.version, reference.metrics) == ("2", {"roc_auc": 0.9})


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_scores_are_the_versions_own_on_its_holdout(tmp_path, task):
    made = Made(tmp_path, task)
    scored = pd.read_parquet(made.build().scored)
    held = made.frame[holdout_mask(read_frame(made.world.store, made.manifest), made.split)]
    assert len(scored) == len(held) < len(made.frame)
    predicted = predict(
        made.model, model_frame(held, made.model.features), task, made.model.classes
    )
    if task == "regression":
        assert np.allclose(scored["_score"], predicted)
        assert [float(t) for t in scored["_prediction"]] == list(scored["_score"])
        assert np.allclose(scored["target"], held["target"])
    else:
        assert (scored["target"].to_numpy() == held["target"].to_numpy()).all()
        score = predicted if task == "binary" else predicted.max(axis=1)
        assert np.allclose(scored["_score"], score)
        best = (predicted > 0.5).astype(int) if task == "binary" else predicted.argmax(axis=1)
        assert [made.model.classes[b] for b in best] == list(scored["_prediction"])


def test_samples_are_bounded_and_the_same_every_time(made, monkeypatch):
    whole = pd.read_parquet(made.build().inputs)
    monkeypatch.setattr(room, "SAMPLE_ROWS", 100)
    one = pd.read_parquet(made.build().inputs)
    assert len(one) == 100
    assert one["use"].is_unique
    assert one["use"].isin(whole["use"]).all()
    assert one.equals(pd.read_parquet(made.build().inputs))
    assert len(pd.read_parquet(made.build().scored)) == 100


def test_what_was_built_can_be_loaded(made):
    assert made.build() == load_reference(made.out)
    assert sorted(p.name for p in made.out.iterdir()) == sorted(
        ["inputs.parquet", "scored.parquet", "reference.json"]
    )


def test_building_twice_at_once_ends_in_one_whole_reference(made):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: made.build(), range(4)))
    assert len({f.version for f in found}) == 1
    assert len(list(made.out.iterdir())) == 3
    assert pq.read_table(found[0].inputs).num_rows == 600


@pytest.mark.parametrize("damage", ["missing", "json", "format", "sample"])
def test_a_damaged_reference_is_told_from_a_whole_one(made, damage):
    facts = made.build().inputs.with_name("reference.json")
    if damage == "missing":
        facts.unlink()
    elif damage == "json":
        facts.write_text(facts.read_text()[:50])
    elif damage == "format":
        facts.write_text(json.dumps({**json.loads(facts.read_text()), "format": 99}))
    else:
        (made.out / "scored.parquet").unlink()
    with pytest.raises(DataError, match="must hold a version's reference of format 1, got"):
        load_reference(made.out)


def test_a_version_that_does_not_say_how_it_was_split_is_scored_on_the_specs_holdout(made):
    assert made.model.split is None
    assert pq.read_table(made.build().scored).num_rows == 120


# --- the profile ----------------------------------------------------------------------------------------


def profile_of(folder: Path, frame: pd.DataFrame, features: Features, **ends: str) -> Profile:
    path = folder / "rows.parquet"
    frame.to_parquet(path)
    start, end = ends.get("start"), ends.get("end")
    manifest = Manifest("toy", "0" * 32, len(frame), (), (), start, end, "a test", "")
    return build_profile([path], manifest, features)


def test_a_profile_is_over_every_row(tmp_path):
    values = np.arange(1000.0)
    values[:100], values[100:150] = np.nan, np.inf
    frame = pd.DataFrame({"n": values, "c": ["a"] * 600 + ["b"] * 300 + [None] * 100})
    profile = profile_of(
        tmp_path,
        frame,
        Features(("n",), ("c",)),
        start=datetime(2026, 1, 1).isoformat(),
        end=datetime(2026, 1, 11).isoformat(),
    )
    number, text = profile.columns
    assert (number.null_share, number.infinite_share) == (0.1, 0.05)
    assert (number.low, number.high) == (150, 999)
    assert number.bounds() == (150 - 849, 999 + 849)
    assert number.quantiles[3] == pytest.approx(574.5, abs=10)
    assert (text.null_share, text.categories) == (0.1, {"a": 600, "b": 300})
    assert (profile.rows, profile.rows_per_day) == (1000, 100)
    assert Profile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile


def test_categories_are_written_as_the_model_reads_them(tmp_path):
    frame = pd.DataFrame({"f": [3.0, 2.5, np.nan], "b": [True, False, True], "i": [1, 1, 2]})
    profile = profile_of(tmp_path, frame, Features((), ("f", "b", "i")))
    assert [set(c.categories or {}) for c in profile.columns] == [
        {"3", "2.5"},
        {"true", "false"},
        {"1", "2"},
    ]
    assert profile.columns[0].unseen_share == 1
    assert profile.columns[2].unseen_share == pytest.approx(1 / 3)


def test_columns_of_too_many_categories_and_without_values(tmp_path):
    rows = MOST_CATEGORIES + 1
    frame = pd.DataFrame({"id": [f"v{i}" for i in range(rows)], "none": [np.nan] * rows})
    number, text = profile_of(tmp_path, frame, Features(("none",), ("id",))).columns
    assert (text.categories, text.unseen_share) == (None, 0)
    assert (number.low, number.quantiles, number.bounds()) == (None, (), None)


def test_bounds_of_a_constant_and_of_an_endless_range():
    assert ColumnProfile("x", "numeric", 0, low=0.0, high=0.0).bounds() == (-1, 1)
    assert ColumnProfile("x", "numeric", 0, low=-1e308, high=1e308).bounds() is None
