from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from include.spec.schema import Candidate
from include.train.search import SeededSampler, combinations, make_space
from include.train.study import STALE

SEARCH: dict[str, Any] = {
    "rate": {"low": 0.01, "high": 1.0, "log": True},
    "leaves": {"low": 2, "high": 64},
    "kind": {"choices": ["a", "b", None]},
}


def space_of(search: dict[str, Any]) -> Any:
    return make_space(Candidate(estimator="sklearn.linear_model.Ridge", search=search))


def run(trials: int, *, seed: int = 1, defaults: Any = None, die_at: tuple[int, ...] = ()) -> Any:
    """Run a search of a known function; at `die_at` trials are lost as a dead process loses them."""
    space = space_of(SEARCH)
    sampler = SeededSampler(seed, trials, space, defaults or {})
    study = optuna.create_study(sampler=sampler)
    tried: list[dict[str, Any]] = []
    while len(tried) < trials:
        trial = study.ask(space)
        if trial.number in die_at:
            trial.set_user_attr(STALE, True)
            study.tell(trial, state=TrialState.FAIL)
            study.sampler = SeededSampler(seed, trials, space, defaults or {})  # a new process
            continue
        tried.append(trial.params)
        study.tell(trial, abs(trial.params["rate"] - 0.3) + abs(trial.params["leaves"] - 20))
    return tried


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_spaces() -> None:
    space = space_of(SEARCH)
    assert list(space) == ["kind", "leaves", "rate"]
    assert type(space["leaves"]).__name__ == "IntDistribution"
    assert type(space["rate"]).__name__ == "FloatDistribution"
    assert space["rate"].log
    assert space["kind"].choices == ("a", "b", None)


def test_same_seed_same_search() -> None:
    assert run(14) == run(14)
    assert run(14) != run(14, seed=2)


def test_lost_trials_change_nothing_about_the_others() -> None:
    assert run(14, die_at=(0, 4, 9)) == run(14)


def test_search_learns() -> None:
    late = run(30)[20:]
    assert sum(abs(p["leaves"] - 20) for p in late) / len(late) < 10


def test_first_trial_takes_the_defaults_that_lie_in_the_space() -> None:
    first = run(4, defaults={"rate": 0.1, "leaves": 31, "kind": "zzz"})[0]
    assert (first["rate"], first["leaves"]) == (0.1, 31)
    outside = run(4, defaults={"rate": 7.0, "leaves": 2.5, "kind": None})[0]
    assert outside["kind"] is None
    assert outside["rate"] <= 1.0


def test_small_space_is_listed_once_each() -> None:
    space = space_of({"n": {"low": 1, "high": 3}, "kind": {"choices": ["a", "b"]}})
    sampler = SeededSampler(0, 10, space, {})
    study = optuna.create_study(sampler=sampler)
    assert sampler.listed is not None
    tried = []
    for _ in sampler.listed:
        trial = study.ask(space)
        tried.append((trial.params["n"], trial.params["kind"]))
        study.tell(trial, 0.0)
    assert sorted(tried) == [(n, k) for n in (1, 2, 3) for k in ("a", "b")]
    assert tried != sorted(tried)


def test_combinations_are_bounded() -> None:
    assert combinations({}, 1, 0) == [{}]
    assert combinations(space_of({"n": {"low": 1, "high": 3}}), 2, 0) is None
    assert combinations(space_of({"x": {"low": 0.0, "high": 1.0}}), 10**6, 0) is None
