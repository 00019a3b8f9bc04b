from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from threadpoolctl import threadpool_info

import include.train.tune as tune_module
from include.errors import ConflictError, ModelError
from include.settings import ROOT
from include.train.objective import Objective
from include.train.tune import Trial, TuneResult, best_candidate, tune
from tests.unit.train.conftest import FEATURES, World, make_spec

Make = Callable[..., World]

LOGISTIC = {
    "estimator": "sklearn.linear_model.LogisticRegression",
    "search": {"C": {"low": 0.001, "high": 10.0, "log": True}},
}
PICKY = """
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
import numpy as np, warnings
from sklearn.exceptions import ConvergenceWarning
class Picky(ClassifierMixin, BaseEstimator):
    fits = 0
    def __init__(self, level=0, bad=(), score="noise"):
        self.level, self.bad, self.score = level, bad, score
    def fit(self, X, y):
        type(self).fits += 1
        if self.level in self.bad:
            raise ValueError(f"level {self.level} is no good. Really")
        warnings.warn("slow", ConvergenceWarning)
        self.classes_ = np.unique(y)
        return self
    def predict_proba(self, X):
        p = 1 / (1 + np.exp(-self.level * np.nan_to_num(np.asarray(X)[:, 0])))
        return np.column_stack([1 - p, p])
    def predict(self, X):
        return self.predict_proba(X).argmax(axis=1)
"""


def spec_with(*candidates: dict[str, Any], **tune_settings: Any) -> dict[str, Any]:
    return {
        "ingest": {"time": "at", "features": FEATURES},
        "train": {
            "candidates": list(candidates),
            "tune": {"trials": 4, "folds": 2, "timeout": "1m", **tune_settings},
        },
    }


@pytest.fixture
def picky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of the user's own with an estimator that fails at some arguments."""
    (tmp_path / "picky_models.py").write_text(PICKY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("EVERGREEN_CODE_PREFIXES", "picky_models")
    import picky_models  # type: ignore[import-not-found]

    yield picky_models.Picky
    sys.modules.pop("picky_models")


def picky_candidate(bad: list[int], choices: list[int] | None = None) -> dict[str, Any]:
    return {
        "estimator": "picky_models.Picky",
        "params": {"bad": bad},
        "search": {"level": {"choices": choices or [-2, -1, 1, 2]}},
    }


def values(result: TuneResult) -> list[tuple[float | None, dict[str, Any]]]:
    return [(t.value, t.params) for t in result.trials]


def test_search_finds_and_repeats(make_world: Make, frame: pd.DataFrame, storage: str) -> None:
    world = make_world(frame, spec_with(LOGISTIC))
    seen: list[Trial] = []
    result = tune(*world.args, 0, storage=storage, study="one", progress=seen.append)
    assert [t.number for t in result.trials] == [0, 1, 2, 3]
    assert tuple(seen) == result.trials
    assert result.best_value == max(t.value for t in result.trials if t.value) > 0.75
    assert result.trials[0].params == {"C": 1.0}  # the estimator's own default comes first
    assert all(t.seconds > 0 and t.state == "COMPLETE" and not t.reason for t in result.trials)
    again = tune(*world.args, 0, storage=storage, study="other")
    assert values(again) == values(result)
    assert json.loads(json.dumps(result.to_dict()))["best_params"] == result.best_params


def test_finished_study_costs_nothing(
    make_world: Make, frame: pd.DataFrame, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(frame, spec_with(LOGISTIC))
    first = tune(*world.args, 0, storage=storage, study="one")
    monkeypatch.delattr(tune_module, "load_rows")
    assert tune(*world.args, 0, storage=storage, study="one") == first


KILLED = """
import json, os, signal, sys
import include.train.tune as tune_module
from include.spec.schema import Spec
from include.store.files import open_store
from include.store.snapshots import read_manifest
from include.store.split import Split
given = json.loads(sys.argv[1])
store = open_store(given["store"])
class Deadly(tune_module.Objective):
    calls = 0
    def __call__(self, *args):
        Deadly.calls += 1
        if Deadly.calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(*args)
tune_module.Objective = Deadly
tune_module.tune(
    Spec.model_validate(given["spec"]), store, read_manifest(store, "toy", given["snapshot"]),
    Split.from_dict(given["split"]), 0, storage=given["storage"], study="killed")
"""


def test_killed_search_resumes_where_it_was(
    make_world: Make, frame: pd.DataFrame, storage: str, tmp_path: Path
) -> None:
    world = make_world(frame, spec_with(LOGISTIC, trials=6))
    given = {
        "spec": world.spec.canonical(),
        "store": str(tmp_path / "store"),
        "snapshot": world.manifest.snapshot_id,
        "split": world.split.to_dict(),
        "storage": storage,
    }
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(given)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    seen: list[Trial] = []
    resumed = tune(*world.args, 0, storage=storage, study="killed", progress=seen.append)
    assert [t.number for t in seen] == [2, 3, 4, 5]  # the first two were not run again
    whole = tune(*world.args, 0, storage=storage, study="whole")
    assert values(resumed) == values(whole)


def test_process_that_lost_its_trial_goes_on(
    make_world: Make, frame: pd.DataFrame, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry starts while the first attempt still lives: both end with the same, complete result."""
    world = make_world(frame, spec_with(LOGISTIC))
    inner: list[TuneResult] = []
    plain = Objective.__call__

    def with_rival(self: Objective, *args: Any) -> float:
        if not inner:
            monkeypatch.setattr(Objective, "__call__", plain)
            inner.append(tune(*world.args, 0, storage=storage, study="shared"))
        return plain(self, *args)

    monkeypatch.setattr(Objective, "__call__", with_rival)
    outer = tune(*world.args, 0, storage=storage, study="shared")
    assert outer == inner[0]
    assert len(outer.trials) == 4


def test_no_search_space_is_one_trial(make_world: Make, frame: pd.DataFrame, storage: str) -> None:
    bare = {"estimator": "sklearn.ensemble.HistGradientBoostingClassifier"}
    result = tune(*make_world(frame, spec_with(bare)).args, 0, storage=storage, study="one")
    assert [t.params for t in result.trials] == [{}]
    assert result.best_params == {}


def test_failing_trial_is_recorded_and_survived(
    make_world: Make, frame: pd.DataFrame, storage: str, picky: Any, caplog: Any
) -> None:
    world = make_world(frame, spec_with(picky_candidate([-1, 2])))
    result = tune(*world.args, 0, storage=storage, study="one")
    states = {t.params["level"]: t.state for t in result.trials}
    assert states == {-2: "COMPLETE", -1: "FAIL", 1: "COMPLETE", 2: "FAIL"}
    assert result.best_params == {"level": 1}
    failed = next(t for t in result.trials if t.params["level"] == 2)
    assert failed.value is None
    assert failed.reason is not None
    assert "ValueError: level 2 is no good" in failed.reason
    assert caplog.text.count("before it converged") == 1  # once, not once a fit


def test_all_trials_fail(make_world: Make, frame: pd.DataFrame, storage: str, picky: Any) -> None:
    world = make_world(frame, spec_with(picky_candidate([-2, -1, 1, 2])))
    message = r"train\.candidates\[0\]: needs one trial that works, got 3 that failed, .*level -?\d is no good"
    with pytest.raises(ModelError, match=message):
        tune(*world.args, 0, storage=storage, study="one")
    fits = picky.fits
    with pytest.raises(ModelError, match=message):
        tune(*world.args, 0, storage=storage, study="one")
    assert picky.fits == fits == 3  # hopeless: neither the fourth level nor a second round


def test_same_arguments_are_not_fitted_twice(
    make_world: Make, frame: pd.DataFrame, storage: str, picky: Any
) -> None:
    candidate = picky_candidate([], [1, 2])
    candidate["search"]["score"] = {"choices": ["x", "y"]}
    world = make_world(frame, spec_with(candidate, trials=3))  # four combinations: sampled
    seen: list[Trial] = []
    tune(*world.args, 0, storage=storage, study="one", progress=seen.append)
    fitted = {json.dumps(t.params) for t in seen if t.seconds > 0}
    assert len(fitted) == len([t for t in seen if t.seconds > 0])
    assert fitted == {json.dumps(t.params) for t in seen}
    assert picky.fits == 2 * len(fitted)


def test_time_box(make_world: Make, frame: pd.DataFrame, storage: str) -> None:
    world = make_world(frame, spec_with(LOGISTIC, trials=50, timeout="10s"))
    ticks = iter(range(10_000))

    def clock() -> float:
        return float(next(ticks))  # every look at the clock takes a second

    result = tune(*world.args, 0, storage=storage, study="one", clock=clock)
    assert 1 <= len(result.trials) < 10
    assert result.trials[0].state == "COMPLETE"
    more = tune(*world.args, 0, storage=storage, study="one", clock=clock)
    assert len(more.trials) <= len(result.trials) + 1  # earlier attempts count: no second box


def test_first_trial_finishes_whatever_the_time(
    make_world: Make, frame: pd.DataFrame, storage: str
) -> None:
    world = make_world(frame, spec_with(LOGISTIC, timeout="1s"))
    hours = iter(range(0, 10**9, 3600))
    result = tune(*world.args, 0, storage=storage, study="one", clock=lambda: float(next(hours)))
    assert [t.state for t in result.trials] == ["COMPLETE"]


def test_hopeless_trials_are_stopped(
    make_world: Make, frame: pd.DataFrame, storage: str, picky: Any
) -> None:
    levels = [*range(1, 10), -5, -6, -7]
    world = make_world(frame, spec_with(picky_candidate([], levels), trials=12))
    result = tune(*world.args, 0, storage=storage, study="one")
    stopped = [t for t in result.trials if t.state == "PRUNED"]
    assert stopped
    assert all(t.value is None and "worse than the median" in (t.reason or "") for t in stopped)
    assert result.best_params["level"] > 0
    assert picky.fits == 2 * 12 - len(stopped)


def test_study_of_other_data_is_refused(
    make_world: Make, frame: pd.DataFrame, storage: str
) -> None:
    tune(*make_world(frame, spec_with(LOGISTIC)).args, 0, storage=storage, study="one")
    other = make_world(frame.iloc[:300], spec_with(LOGISTIC))
    with pytest.raises(ConflictError, match="must belong to the same data"):
        tune(*other.args, 0, storage=storage, study="one")


def test_more_trials_continue_the_same_study(
    make_world: Make, frame: pd.DataFrame, storage: str
) -> None:
    first = tune(*make_world(frame, spec_with(LOGISTIC)).args, 0, storage=storage, study="one")
    more = make_world(frame, spec_with(LOGISTIC, trials=6))
    result = tune(*more.args, 0, storage=storage, study="one")
    assert values(result)[:4] == values(first)
    assert len(result.trials) == 6


def test_loss_metrics_are_minimised(make_world: Make, frame: pd.DataFrame, storage: str) -> None:
    spec = spec_with(LOGISTIC)
    world = make_world(frame, {**spec, "evaluate": {"primary": {"metric": "log_loss"}}})
    result = tune(*world.args, 0, storage=storage, study="one")
    assert result.best_value == min(t.value for t in result.trials if t.value is not None)


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks(task: str, make_world: Make, frame: pd.DataFrame, storage: str) -> None:
    frame["y"] = frame["whole"] if task == "multiclass" else frame["b"] * 2 + frame["whole"]
    features = {"numeric": ["a", "b"], "categorical": ["region"]}
    spec = {
        "task": task,
        "ingest": {"time": "at", "features": features},
        "train": {"tune": {"trials": 2, "folds": 2}},
    }
    world = make_world(frame, spec)
    results = [tune(*world.args, n, storage=storage, study=f"s{n}") for n in (0, 1)]
    chosen, params = best_candidate(world.spec, [r.to_dict() for r in results])
    assert results[chosen].best_value == min(r.best_value for r in results)
    assert params == results[chosen].best_params


def test_one_thread_while_tuning(make_world: Make, frame: pd.DataFrame, storage: str) -> None:
    before = [p["num_threads"] for p in threadpool_info()]
    during: list[int] = []
    world = make_world(frame, spec_with(LOGISTIC))
    tune(
        *world.args,
        0,
        storage=storage,
        study="one",
        progress=lambda _: during.extend(p["num_threads"] for p in threadpool_info()),
    )
    assert during
    assert set(during) == {1}
    assert [p["num_threads"] for p in threadpool_info()][: len(before)] == before


def test_best_candidate_breaks_ties_by_order_and_skips_what_failed() -> None:
    spec = make_spec({})
    results = [None, *(TuneResult(n, "s", (), 0.8, {"n": n}) for n in (2, 1))]
    assert best_candidate(spec, results) == (1, {"n": 1})
    with pytest.raises(ModelError, match="needs one candidate that can be trained, got none"):
        best_candidate(spec, [None])
