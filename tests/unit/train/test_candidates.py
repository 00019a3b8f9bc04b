from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from include.errors import ModelError
from include.settings import get_settings
from include.spec.schema import Candidate, Spec
from include.train.candidates import check_candidates, make_estimator, resolve_estimator

PREFIXES = ("sklearn.", "xgboost.", "lightgbm.", "include.")


def spec_of(*candidates: dict[str, Any], task: str = "binary", **train: Any) -> Spec:
    return Spec.model_validate(
        {
            "model": "toy",
            "task": task,
            "ingest": {"source": {"kind": "file", "path": "x.csv"}, "target": "y"},
            "train": {"candidates": list(candidates), **train},
        }
    )


def build(path: str, task: str = "binary", params: dict[str, Any] | None = None) -> Any:
    spec = spec_of({"estimator": path, "params": params or {}}, task=task)
    return make_estimator(spec, spec.candidates[0], {})


def test_default_candidates_have_no_problem() -> None:
    for task in ("binary", "multiclass", "regression"):
        assert check_candidates(spec_of(task=task), PREFIXES) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("os.path.join", r"must lie under an allowed prefix \(sklearn\."),
        ("sklearn.linear_model.LogisticRegresion", r"Did you mean 'sklearn\.linear_model\.Log"),
        ("sklearn.linear.LogisticRegression", r"Did you mean 'sklearn\.linear_model\.Log"),
        (
            "sklearn.ensemble.HistGradientBoostingClasifier",
            r"Did you mean 'sklearn\.ensemble\.HistGradientBoostingClassifier'",
        ),
        ("sklearn.preprocessing.StandardScaler", r"must name a class with fit, predict"),
        ("sklearn.base.clone", r"must name a class with fit, predict"),
        ("xgboost.XGBClassifier", r"needs the package xgboost, got none installed"),
    ],
)
def test_unknown_estimator_names_the_nearest(path: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resolve_estimator(Candidate(estimator=path), PREFIXES)


def test_error_names_file_and_key() -> None:
    spec = spec_of(
        {"estimator": "sklearn.linear_model.LogisticRegression"},
        {"estimator": "sklearn.linear_model.Nothing"},
    )
    with pytest.raises(
        ModelError, match=r"^include/models/toy\.yaml: train\.candidates\[1\]\.estimator: "
    ):
        make_estimator(spec, spec.candidates[1], {})


def test_check_lists_all_problems_at_once() -> None:
    spec = spec_of(
        {"estimator": "sklearn.linear_model.Nothing"},
        {
            "estimator": "sklearn.linear_model.LogisticRegression",
            "params": {"max_itr": 5},
            "search": {"c": {"low": 1, "high": 2}},
        },
        {"estimator": "sklearn.linear_model.Ridge"},
        {
            "estimator": "sklearn.linear_model.LogisticRegression",
            "search": {"C": {"low": -1.0, "high": 2.0}, "solver": {"choices": ["lbfgs", "lbgfs"]}},
        },
    )
    problems = dict(check_candidates(spec, PREFIXES))
    assert list(problems) == [
        "train.candidates[0].estimator",
        "train.candidates[1].params.max_itr",
        "train.candidates[1].search.c",
        "train.candidates[2].estimator",
        "train.candidates[3].search.C",
        "train.candidates[3].search.solver",
    ]
    assert "Did you mean 'max_iter'?" in problems["train.candidates[1].params.max_itr"]
    assert "must be a classifier" in problems["train.candidates[2].estimator"]
    assert "got C=-1.0. The 'C' parameter" in problems["train.candidates[3].search.C"]
    assert "'lbgfs'" in problems["train.candidates[3].search.solver"]
    # `evergreen check` cuts each at the first full stop into what is wrong and what to do.
    assert all(len(text.split(". ", 1)) == 2 for text in problems.values())


@pytest.mark.parametrize(
    ("path", "task", "near"),
    [
        ("sklearn.ensemble.RandomForestRegressor", "binary", "RandomForestClassifier"),
        ("sklearn.ensemble.RandomForestClassifier", "regression", "RandomForestRegressor"),
        ("sklearn.cluster.KMeans", "multiclass", "correct `task`"),
    ],
)
def test_wrong_task(path: str, task: str, near: str) -> None:
    with pytest.raises(ModelError, match=rf"for task {task}, got '{path}'\..*{near}"):
        build(path, task)


def test_estimator_that_needs_others_is_refused() -> None:
    with pytest.raises(ModelError, match="missing 1 required positional argument: 'estimators'"):
        build("sklearn.ensemble.VotingClassifier")


def test_seed_and_single_thread_are_imposed() -> None:
    forest = build(
        "sklearn.ensemble.RandomForestClassifier", params={"n_jobs": -1, "n_estimators": 3}
    )
    assert (forest.random_state, forest.n_jobs, forest.n_estimators) == (42, None, 3)
    kept = build("sklearn.ensemble.RandomForestClassifier", params={"random_state": 7})
    assert kept.random_state == 7


def test_foreign_estimator_gets_one_thread_and_keyword_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "foreign_boost.py").write_text(
        "from sklearn.base import BaseEstimator, ClassifierMixin\n"
        "class Boost(ClassifierMixin, BaseEstimator):\n"
        "    def __init__(self, n_jobs=None, random_state=None):\n"
        "        self.n_jobs, self.random_state = n_jobs, random_state\n"
        "    def fit(self, X, y): return self\n"
        "    def predict(self, X): return X\n"
        "    def predict_proba(self, X): return X\n"
    )
    (tmp_path / "broken_boost.py").write_text("raise RuntimeError('half. finished')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("EVERGREEN_CODE_PREFIXES", "foreign_boost,broken_boost")
    assert (build("foreign_boost.Boost").n_jobs, build("foreign_boost.Boost").random_state) == (
        1,
        42,
    )
    with pytest.raises(ModelError, match=r"must be importable, got RuntimeError .*half; finished"):
        build("broken_boost.Boost")
    sys.modules.pop("foreign_boost")


def test_classifier_without_probabilities_is_calibrated() -> None:
    wrapped = build("sklearn.svm.LinearSVC", params={"C": 0.5})
    assert hasattr(wrapped, "predict_proba")
    assert (wrapped.estimator.C, wrapped.estimator.random_state) == (0.5, 42)
    assert not hasattr(build("sklearn.svm.LinearSVR", "regression"), "estimator")


def test_default_prefixes_come_from_the_settings() -> None:
    assert get_settings().allowed_prefixes[:4] == PREFIXES
