"""The stage end to end: real snapshots, real pipelines, real files."""

from __future__ import annotations

import json
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.svm import LinearSVC

from include.errors import DataError, ModelError
from include.evaluate.holdout import load_holdout
from include.scoring.model import Unloadable
from include.store.features import Features
from include.store.split import Split
from tests.unit.evaluate.world import GOOD, POOR, World, changed, make_frame

TASKS: Any = ["binary", "multiclass", "regression"]


def read(result: Any) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"JSON has no {constant}")

    data: dict[str, Any] = json.loads(result.verdict_json.read_text(), parse_constant=refuse)
    return data


@pytest.fixture
def binary(tmp_path: Path) -> World:
    return World("binary", tmp_path)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("timed", [True, False])
def test_a_clearly_better_challenger_replaces_the_champion(
    task: Any, timed: bool, tmp_path: Path
) -> None:
    world = World(task, tmp_path, timed)
    manifest = world.snapshot(make_frame(task, 1500))
    split = world.split(manifest)
    champion = world.fit(manifest, split, POOR, version="1")
    result = world.judge(manifest, split, world.fit(manifest, split), champion)
    assert result.verdict == "PROMOTE"
    assert "of version 1" in result.reason
    data = read(result)
    assert data["challenger"]["metrics"] == pytest.approx(result.metrics)
    assert data["champion"]["metrics"] == pytest.approx(result.champion_metrics)
    assert data["against_champion"]["low"] > 0
    assert data["rows"] == pytest.approx(300, abs=60)
    assert [c["passed"] for c in data["checks"]] == [True] * 3
    page = result.verdict_md.read_text()
    assert page.startswith("# world: PROMOTE\n\n")
    assert "| champion (1) |" in page
    for plot in result.plots:
        head = plot.read_bytes()
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        assert len(head) < 100_000
        width, height = struct.unpack(">II", head[16:24])
        assert 300 < width < 1600
        assert 200 < height < 1200


@pytest.mark.parametrize("task", TASKS)
def test_a_first_model_must_beat_the_trivial_baseline(task: Any, tmp_path: Path) -> None:
    world = World(task, tmp_path)
    frame = make_frame(task, 1200)
    manifest = world.snapshot(frame)
    split = world.split(manifest)
    assert world.judge(manifest, split, world.fit(manifest, split)).verdict == "PROMOTE"
    shuffled = frame.assign(target=np.random.default_rng(0).permutation(frame["target"]))
    noise = world.snapshot(shuffled)
    result = world.judge(noise, split, world.fit(noise, split))
    assert result.verdict == "REJECT"
    assert "trivial baseline" in result.reason
    assert result.champion_metrics is None


def test_the_same_model_again_is_held(binary: World) -> None:
    manifest = binary.snapshot(make_frame("binary", 800))
    split = binary.split(manifest)
    model = binary.fit(manifest, split)
    result = binary.judge(manifest, split, model, replace(model, version="1"))
    assert result.verdict == "HOLD"
    assert read(result)["against_champion"]["improvement"] == 0


def test_a_clearly_worse_challenger_is_rejected(binary: World) -> None:
    manifest = binary.snapshot(make_frame("binary", 1500))
    split = binary.split(manifest)
    poor = binary.fit(manifest, split, POOR)
    result = binary.judge(manifest, split, poor, binary.fit(manifest, split, version="1"))
    assert result.verdict == "REJECT"


def test_approval_by_hand_is_waited_for(tmp_path: Path) -> None:
    world = World("regression", tmp_path, approval={"manual": {}})
    manifest = world.snapshot(make_frame("regression", 600))
    split = world.split(manifest)
    assert world.judge(manifest, split, world.fit(manifest, split)).verdict == "NEEDS_APPROVAL"


# --- rows nobody trained on -----------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["challenger", "champion"])
def test_no_version_is_judged_on_rows_it_trained_on(binary: World, who: str) -> None:
    manifest = binary.snapshot(make_frame("binary", 400))
    split = binary.split(manifest)
    model = binary.fit(manifest, split)
    models = {"challenger": model, "champion": replace(model, version="1")}
    models[who] = replace(models[who], cutoff="2030-01-01T00:00:00Z")
    with pytest.raises(ModelError, match=r"must not be judged on rows it trained on: .*2030"):
        binary.judge(manifest, split, models["challenger"], models["champion"])


@pytest.mark.parametrize(("timed", "cutoff"), [(True, None), (False, "2024-01-01T00:00:00Z")])
def test_a_champion_split_in_another_way_cannot_be_compared(
    tmp_path: Path, timed: bool, cutoff: str | None
) -> None:
    world = World("binary", tmp_path, timed)
    manifest = world.snapshot(make_frame("binary", 800))
    split = world.split(manifest)
    champion = replace(world.fit(manifest, split, POOR, version="1"), cutoff=cutoff)
    result = world.judge(manifest, split, world.fit(manifest, split), champion)
    assert result.verdict == "HOLD"
    assert "may have trained on rows of this holdout" in result.reason


@pytest.mark.parametrize(
    ("change", "comparable"),
    [
        ({}, True),
        ({"share": 0.5}, True),
        ({"share": 0.05}, False),
        ({"column": "age"}, False),
        ({"kind": "time"}, False),
    ],
)
def test_hashed_holdouts_are_comparable_where_one_lies_in_the_other(
    tmp_path: Path, change: dict[str, Any], comparable: bool
) -> None:
    world = World("binary", tmp_path, timed=False)
    manifest = world.snapshot(make_frame("binary", 800))
    split = world.split(manifest)
    champion = world.fit(manifest, split, POOR, version="1")
    champion = replace(champion, split=replace(split, **change))
    result = world.judge(manifest, split, world.fit(manifest, split), champion)
    assert (result.champion_metrics is not None) == comparable
    assert ("was drawn by other columns or was smaller" in result.reason) != comparable


def test_a_champion_that_cannot_be_loaded_keeps_its_place(binary: World) -> None:
    manifest = binary.snapshot(make_frame("binary", 800))
    split = binary.split(manifest)
    challenger = binary.fit(manifest, split)
    broken = Unloadable(
        ModelError("version 1", "its digest must be the recorded one", "Restore it.")
    )
    result = binary.judge(
        manifest, split, challenger, replace(challenger, pipeline=broken, version="1")
    )
    assert result.verdict == "HOLD"
    assert "its digest must be the recorded one" in result.reason


# --- what goes wrong ------------------------------------------------------------------------------------


def _raise(_: Any) -> Any:
    raise ValueError("no kernel for this")


def _nan(answer: Any) -> Any:
    return np.where(np.arange(len(answer))[:, None] == 3, np.nan, answer)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_raise, "got ValueError: no kernel for this"),
        (_nan, "version 1 could not be scored: predicts NaN or infinity for 1 of 160 rows"),
        (lambda p: p * 3, "probabilities must lie in 0..1"),
    ],
)
def test_a_champion_that_cannot_answer_keeps_its_place(
    binary: World, change: Any, said: str
) -> None:
    manifest = binary.snapshot(make_frame("binary", 800))
    split = binary.split(manifest)
    champion = changed(binary.fit(manifest, split, POOR, version="1"), change)
    result = binary.judge(manifest, split, binary.fit(manifest, split), champion)
    assert result.verdict == "HOLD"
    assert said in result.reason
    assert result.champion_metrics is None
    assert said in read(result)["champion"]["failure"] or "predicts NaN" in result.reason


def test_a_champion_whose_features_are_gone_keeps_its_place(binary: World) -> None:
    manifest = binary.snapshot(make_frame("binary", 800))
    split = binary.split(manifest)
    gone = replace(binary.fit(manifest, split, version="1"), features=Features(("income",), ()))
    result = binary.judge(manifest, split, binary.fit(manifest, split), gone)
    assert result.verdict == "HOLD"
    assert (
        "version 1 could not be scored: version 1: feature 'income' must be a column, got 'id'"
        in result.reason
    )


def test_a_champion_with_other_classes_keeps_its_place(binary: World) -> None:
    manifest = binary.snapshot(make_frame("binary", 800))
    split = binary.split(manifest)
    other = replace(binary.fit(manifest, split, version="1"), classes=["0", "1"])
    result = binary.judge(manifest, split, binary.fit(manifest, split), other)
    assert result.verdict == "HOLD"
    assert "must know only the classes ['no', 'yes'], got '0'" in result.reason


def test_a_champion_with_its_classes_the_other_way_round_is_compared_rightly(
    binary: World,
) -> None:
    manifest = binary.snapshot(make_frame("binary", 800))
    split = binary.split(manifest)
    model = binary.fit(manifest, split)
    turned = replace(changed(model, lambda p: p[:, ::-1]), classes=["yes", "no"], version="1")
    result = binary.judge(manifest, split, model, turned)
    assert result.champion_metrics == pytest.approx(result.metrics)


def test_a_challenger_that_predicts_nan_is_rejected_without_plots(binary: World) -> None:
    manifest = binary.snapshot(make_frame("binary", 800))
    split = binary.split(manifest)
    result = binary.judge(manifest, split, changed(binary.fit(manifest, split), _nan))
    assert result.verdict == "REJECT"
    assert "the challenger predicts NaN or infinity for 1 of 160 rows" in result.reason
    assert result.metrics == {}
    assert result.plots == ()
    assert read(result)["challenger"]["metrics"]["roc_auc"] is None


def test_a_challenger_that_raises_is_an_error(binary: World) -> None:
    manifest = binary.snapshot(make_frame("binary", 400))
    split = binary.split(manifest)
    broken = changed(binary.fit(manifest, split), _raise)
    with pytest.raises(ModelError, match=r"version 2: must predict 80 rows .* no kernel for this"):
        binary.judge(manifest, split, broken)


def test_a_classifier_without_probabilities_is_an_error_with_a_way_out(binary: World) -> None:
    manifest = binary.snapshot(make_frame("binary", 400))
    split = binary.split(manifest)
    svc = binary.fit(manifest, split, estimator=LinearSVC())
    with pytest.raises(ModelError, match=r"got LinearSVC without predict_proba.*CalibratedClass"):
        binary.judge(manifest, split, svc)


def test_a_challenger_without_its_features_is_an_error(binary: World) -> None:
    manifest = binary.snapshot(make_frame("binary", 400))
    split = binary.split(manifest)
    model = replace(binary.fit(manifest, split), features=Features(("ago",), ()))
    with pytest.raises(
        DataError, match=r"version 2: feature 'ago' must be a column.*Did you mean 'age'"
    ):
        binary.judge(manifest, split, model)


@pytest.mark.parametrize("task", TASKS)
def test_an_empty_holdout_is_held(task: Any, tmp_path: Path) -> None:
    world = World(task, tmp_path, rules={"slices": [{"column": "region", "max_regression": 1}]})
    manifest = world.snapshot(make_frame(task, 400))
    split = world.split(manifest)
    model = world.fit(manifest, split)
    late = world.split(manifest, not_before="2030-01-01T00:00:00Z")
    result = world.judge(manifest, late, model, replace(model, version="1"))
    assert result.verdict == "HOLD"
    assert "the holdout has 0 rows, 50 are needed" in result.reason
    assert result.plots == ()
    read(result)


def test_a_holdout_of_one_class_is_held(binary: World) -> None:
    frame = make_frame("binary", 600)
    frame.loc[400:, "target"] = "no"
    manifest = binary.snapshot(frame)
    split = binary.split(manifest)
    result = binary.judge(manifest, split, binary.fit(manifest, split))
    assert result.verdict == "HOLD"
    assert "roc_auc is undefined on 120 rows" in result.reason


def test_a_class_that_only_the_newest_rows_have_counts_as_missed_by_all(tmp_path: Path) -> None:
    world = World("multiclass", tmp_path)
    frame = make_frame("multiclass", 1000)
    frame.loc[990:, "target"] = "novel"
    manifest = world.snapshot(frame)
    split = world.split(manifest)
    result = world.judge(manifest, split, world.fit(manifest, split))
    assert result.metrics["accuracy"] < 0.95
    assert result.metrics["log_loss"] > 10 / 200 * 30


def test_a_missing_target_is_an_error(binary: World) -> None:
    frame = make_frame("binary", 400)
    manifest = binary.snapshot(frame)
    split = binary.split(manifest)
    model = binary.fit(manifest, split)
    frame.loc[399, "target"] = None
    with pytest.raises(DataError, match="every row must have a value, got 1 of 80"):
        binary.judge(binary.snapshot(frame), split, model)


# --- slices and the old holdout -------------------------------------------------------------------------


def test_slices_are_judged_reported_or_missing(tmp_path: Path) -> None:
    world = World("binary", tmp_path)
    world.rules = {"slices": [{"column": "region", "max_regression": 0.05, "min_rows": 50}]}
    frame = make_frame("binary", 2000)
    frame.loc[frame["region"] == "south", "region"] = None
    manifest = world.snapshot(frame)
    split = world.split(manifest)
    champion = world.fit(manifest, split, POOR, version="1")
    challenger = world.fit(manifest, split)
    result = world.judge(manifest, split, challenger, champion)
    assert result.verdict == "PROMOTE"
    data = read(result)
    assert {s["value"] for s in data["slices"]} == {"north", "(missing)", "tiny"}
    judged = {c["name"] for c in data["checks"] if c["name"].startswith("slice.")}
    assert judged == {"slice.region=north", "slice.region=(missing)"}
    assert "too small (< 50 rows)" in result.verdict_md.read_text()
    assert sum(s["rows"] for s in data["slices"]) == data["rows"]

    world.rules = {"slices": [{"column": "regoin", "max_regression": 0.05}]}
    result = world.judge(manifest, split, challenger, champion)
    assert result.verdict == "HOLD"
    assert "the slice column 'regoin' has no values on the holdout" in result.reason


def test_a_challenger_that_fails_one_region_is_rejected(tmp_path: Path) -> None:
    world = World("binary", tmp_path)
    world.rules = {"slices": [{"column": "region", "max_regression": 0.1, "min_rows": 50}]}
    manifest = world.snapshot(make_frame("binary", 3000))
    split = world.split(manifest)
    champion = world.fit(manifest, split, POOR, version="1")
    good = world.fit(manifest, split)

    class Unfair:
        classes_ = good.pipeline.classes_

        def predict_proba(self, rows: pd.DataFrame) -> Any:
            fair = good.pipeline.predict_proba(rows)
            return np.where((rows["region"] == "south").to_numpy()[:, None], 1 - fair, fair)

    result = world.judge(manifest, split, replace(good, pipeline=Unfair()), champion)
    assert result.verdict == "REJECT"
    assert "where region=south" in result.verdict_md.read_text()


@pytest.fixture
def two_eras(binary: World) -> Any:
    """Return old and new snapshots, where the new world is the old one upside down."""
    old = make_frame("binary", 1000, seed=1, start="2024-01-01")
    new = make_frame("binary", 2000, seed=2, start="2024-06-01")
    new["target"] = new["target"].map({"yes": "no", "no": "yes"})
    before, after = binary.snapshot(old), binary.snapshot(new)
    old_split = binary.split(before)
    champion = binary.fit(before, old_split, version="1")
    split = binary.split(after, not_before=old_split.cutoff)
    return (before, old_split), champion, after, split, binary.fit(after, split)


def test_the_old_holdout_is_reported_and_guards_only_where_asked(
    binary: World, two_eras: Any
) -> None:
    legacy, champion, after, split, challenger = two_eras
    result = binary.judge(after, split, challenger, champion, legacy=legacy)
    assert result.verdict == "PROMOTE"
    data = read(result)
    assert data["legacy"]["rows"] == 200
    assert data["legacy"]["seen"] == 200
    assert data["legacy"]["challenger"]["roc_auc"] < 0.4 < data["legacy"]["champion"]["roc_auc"]
    assert "It is reported only" in result.verdict_md.read_text()

    binary.rules = {"legacy": {"max_regression": 0.1}}
    result = binary.judge(after, split, challenger, champion, legacy=legacy)
    assert result.verdict == "REJECT"
    assert "on the champion's old holdout" in result.reason


def test_an_old_holdout_that_is_gone_holds_only_where_it_guards(
    binary: World, two_eras: Any
) -> None:
    (before, old_split), champion, after, split, challenger = two_eras
    gone = (replace(before, files=(replace(before.files[0], name="gone.parquet"),)), old_split)
    assert binary.judge(after, split, challenger, champion, legacy=gone).verdict == "PROMOTE"
    binary.rules = {"legacy": {"max_regression": 0.1}}
    result = binary.judge(after, split, challenger, champion, legacy=gone)
    assert result.verdict == "HOLD"
    assert "old holdout could not be scored" in result.reason
    assert binary.judge(after, split, challenger, champion).verdict == "HOLD"


# --- promises -------------------------------------------------------------------------------------------


def test_each_version_is_asked_once_and_twice_gives_the_same_files(binary: World) -> None:
    manifest = binary.snapshot(make_frame("binary", 800))
    split = binary.split(manifest)
    models = [
        changed(binary.fit(manifest, split, features, version=v), lambda p: p)
        for features, v in ((GOOD, "2"), (POOR, "1"))
    ]
    first = read(binary.judge(manifest, split, *models))
    assert [m.pipeline.calls for m in models] == [1, 1]
    again = binary.judge(manifest, split, *models)
    assert {**read(again), "seconds": None} == {**first, "seconds": None}
    left = {p.name for p in (binary.folder / "out").rglob("*") if p.is_file()}
    assert left == {"verdict.json", "verdict.md", *(p.name for p in again.plots)}


def test_only_the_held_out_rows_are_kept_in_memory(binary: World) -> None:
    frame = make_frame("binary", 100_000)
    manifest = binary.snapshot(frame, row_group=5000)
    split = Split("time", "seen_at", frame["seen_at"].iloc[-301].isoformat(), 0.003)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    holdout = load_holdout(binary.spec, binary.store, manifest, split, GOOD.names)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert holdout.rows == 300
    assert list(holdout.frame) == ["target", *GOOD.names]
    assert kept < 100_000 * 100  # the training part's targets: a pointer and a text each
    assert pa.total_allocated_bytes() - before < 2**20
