"""Rollouts of a training Dag under live traffic, without a scheduler; the triggers run in the task's own process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest

from include.registry.rollouts import TAG_ROLLOUT, Standing, latest
from tests.integration.pipeline.world import Run, World, start_world
from tests.models import DAYS, example_columns, write_days
from tests.people import People

pytestmark = pytest.mark.server
GOOD = "sklearn.linear_model.LogisticRegression"
MODEL = "rolled"
RULES = {
    "rollout": "canary",
    "steps": [30],
    "hold": "20s",
    "patience": "3m",
    "min_rows": 30,
    "max_latency_ratio": 4.0,  # the machine of the tests is busy with other things
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world that may load the faulty estimators, with a champion."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVERGREEN_CODE_PREFIXES", "tests.faulty")
        with start_world(tmp_path_factory.mktemp("rollouts")) as it:
            write_days(it.data(MODEL))
            write(it, GOOD)
            assert it.run(f"{MODEL}__train").state == "success"
            yield it


def write(world: World, estimator: str, **rules: Any) -> None:
    candidate = {
        "estimator": estimator,
        "params": {"max_iter": 300},
        "search": {"C": {"low": 0.5, "high": 2}},
    }
    train = {"candidates": [candidate], "tune": {"trials": 1, "timeout": "1m", "folds": 2}}
    world.write_spec(MODEL, train=train, deploy=RULES | rules)


@contextmanager
def people(world: World) -> Iterator[People]:
    it = People(world.settings.serving, MODEL, example_columns(world.data(MODEL), 60))
    try:
        yield it
    finally:
        it.stop()


def roll(world: World, estimator: str, day: int, **rules: Any) -> tuple[Run, Standing, People]:
    """Train and roll out a challenger while people ask."""
    write_days(world.data(MODEL), first=DAYS + day, days=1)
    write(world, estimator, **rules)
    with people(world) as asking:
        run = world.run(f"{MODEL}__train")
    standing = latest(world.ledger, MODEL)
    assert standing is not None, run
    return run, standing, asking


def ended_at(world: World) -> float:
    ends = [e for e in world.ledger.events(MODEL, "rollout") if e.payload["action"] == "end"]
    return datetime.fromisoformat(ends[-1].at).timestamp()


def assert_all_answered(asking: People) -> None:
    assert len(asking.answers) > 50
    assert {status for _, status, _ in asking.answers} == {200}, "nobody got an error"


@pytest.mark.parametrize(
    ("estimator", "day", "reason", "mode"),
    [
        ("tests.faulty.Failing", 0, "failed on", "canary"),
        ("tests.faulty.Collapsed", 1, "differ by PSI", "canary"),
        ("tests.faulty.Slow", 2, "p50|p95", "canary"),
        ("tests.faulty.Collapsed", 3, "differ by PSI", "shadow"),
    ],
)
def test_a_bad_challenger_goes_home_by_itself(
    world: World, estimator: str, day: int, reason: str, mode: str
) -> None:
    run, standing, asking = roll(world, estimator, day, rollout=mode)
    assert run.state == "success", "a verdict is no failure"
    step = "deploy.shadow" if mode == "shadow" else "deploy.step_30"
    assert (run.tasks[step], run.tasks["deploy.promote"]) == ("success", "skipped")
    assert (standing.outcome, standing.rollout.mode) == ("STOPPED", mode)
    assert re.search(reason, standing.reason), standing.reason
    assert world.registry.aliases(MODEL) == {"champion": "1"}
    assert TAG_ROLLOUT not in world.registry.model_tags(MODEL)
    assert_all_answered(asking)
    during = asking.between(standing.began.timestamp(), ended_at(world))
    theirs = [version for _, _, version in during if version != "1"]
    share = 0.0 if mode == "shadow" else 0.3
    slack = 3 * (share * (1 - share) / max(1, len(during))) ** 0.5
    assert len(theirs) / len(during) <= share + slack
    later = {version for when, _, version in asking.answers if when > ended_at(world) + 4}
    assert later <= {"1"}


def test_without_traffic_it_stops_after_its_patience(world: World) -> None:
    write_days(world.data(MODEL), first=DAYS + 4, days=1)
    write(world, GOOD, patience="20s", hold="5s")
    run = world.run(f"{MODEL}__train")
    standing = latest(world.ledger, MODEL)
    assert standing is not None
    assert (run.state, standing.outcome) == ("success", "STOPPED")
    assert "no request has reached the challenger" in standing.reason
    assert world.serves(MODEL) == "1"


def test_a_good_one_takes_over(world: World) -> None:
    run, standing, asking = roll(world, GOOD, 5)
    assert run.state == "success"
    assert standing.outcome == "PROMOTED", standing.reason
    assert world.registry.aliases(MODEL)["champion"] == standing.rollout.version
    assert TAG_ROLLOUT not in world.registry.model_tags(MODEL)
    assert_all_answered(asking)
    (judged,) = world.ledger.events(MODEL, "judgement")[-1:]
    assert judged.payload["verdict"] == "GO"
    assert judged.payload["numbers"]["challenger"]["rows"] >= 30
    assert world.serves(MODEL) == standing.rollout.version
