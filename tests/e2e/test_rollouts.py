"""Canaries under live traffic: a good one takes over; one that fails, dawdles or collapses goes home by itself."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from include.registry.rollouts import TAG_ROLLOUT, Standing, latest
from include.stack.airflow_client import RunResult
from tests.e2e.stack import Stack, wait_until
from tests.models import DAYS, example_columns, small_spec, write_days, write_spec
from tests.people import People

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
STEPS = (20, 50)
DEPLOY = {
    "rollout": "canary",
    "steps": list(STEPS),
    "hold": "20s",
    "patience": "4m",
    "min_rows": 40,
    "max_latency_ratio": 1000.0,  # the machine of the tests is busy with other things
}
GOOD = "sklearn.linear_model.LogisticRegression"
CHALLENGERS = {
    "good": GOOD,
    "failing": "tests.faulty.Failing",
    "slow": "tests.faulty.Slow",
    "collapsed": "tests.faulty.Collapsed",
}
REASONS = {"failing": "failed on", "slow": r"p50|p95", "collapsed": "differ by PSI"}


@dataclass(frozen=True)
class Rolled:
    """How a rollout ended, and what people got meanwhile."""

    run: RunResult
    standing: Standing
    traffic: People

    @property
    def states(self) -> dict[str, str | None]:
        return {task.name: task.state for task in self.run.tasks}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own, which may load the faulty estimators."""
    it = Stack(tmp_path_factory.mktemp("rollouts"), code_prefixes="tests.faulty")
    try:
        it.up()
        yield it
    finally:
        it.down()


def write(stack: Stack, model: str, estimator: str, **changes: Any) -> Path:
    candidate = {
        "estimator": estimator,
        "params": {"max_iter": 300},
        "search": {"C": {"low": 0.5, "high": 2}},
    }
    train = {"candidates": [candidate], "tune": {"trials": 1, "timeout": "1m", "folds": 2}}
    deploy = DEPLOY | ({"max_latency_ratio": 4.0} if model == "slow" else {})
    spec = small_spec(model, stack.data(model), train=train, deploy=deploy, **changes)
    return write_spec(stack.models, spec)


@pytest.fixture(scope="module")
def rolled(stack: Stack) -> dict[str, Rolled]:
    """Train a champion of each model, then a challenger, all at the same time and under traffic."""
    for model in CHALLENGERS:
        write_days(stack.data(model))
        write(stack, model, GOOD)
    for model in CHALLENGERS:
        stack.trigger(model, "first")
    for model in CHALLENGERS:
        assert stack.wait(model, "first", 600).state == "success"
        wait_until(f"{model} serves", lambda model=model: stack.serves(model) == "1", 60)
    traffic = {}
    try:
        for model, estimator in CHALLENGERS.items():
            columns = example_columns(stack.data(model), 60)
            traffic[model] = People(stack.serving, model, columns)
            write_days(stack.data(model), first=DAYS, days=6)
            write(stack, model, estimator)
        for model in CHALLENGERS:
            stack.trigger(model, "second")
        found = {}
        for model in CHALLENGERS:
            run = stack.wait(model, "second", 900)
            standing = latest(stack.ledger, model)
            assert standing is not None
            found[model] = Rolled(run, standing, traffic[model])
        time.sleep(5)  # of traffic after the end
    finally:
        for people in traffic.values():
            people.stop()
    return found


@pytest.mark.parametrize("model", REASONS)
def test_a_bad_canary_goes_home_by_itself(
    stack: Stack, rolled: dict[str, Rolled], model: str
) -> None:
    it = rolled[model]
    assert it.run.state == "success", "a verdict is no failure"
    assert it.standing.outcome == "STOPPED"
    assert re.search(REASONS[model], it.standing.reason), it.standing.reason
    assert it.states["deploy.step_20"] == "success"
    assert (it.states["deploy.step_50"], it.states["deploy.promote"]) == ("skipped", "skipped")
    assert stack.registry.aliases(model) == {"champion": "1"}
    assert TAG_ROLLOUT not in stack.registry.model_tags(model)
    assert stack.serves(model) == "1"


@pytest.mark.parametrize("model", REASONS)
def test_no_more_than_its_share_is_affected(
    stack: Stack, rolled: dict[str, Rolled], model: str
) -> None:
    it = rolled[model]
    began = it.standing.began.timestamp()
    (ended,) = [
        event for event in stack.ledger.events(model, "rollout") if event.payload["action"] == "end"
    ]
    over = datetime.fromisoformat(ended.at).timestamp()
    during = it.traffic.between(began, over)
    assert len(during) > 100
    by_challenger = sum(version == "2" for _, _, version in during)
    share = STEPS[0] / 100
    slack = 3 * (share * (1 - share) / len(during)) ** 0.5
    assert by_challenger / len(during) <= share + slack
    if model != "failing":
        assert by_challenger > 0
    assert {status for _, status, _ in it.traffic.answers} == {200}, "nobody got an error"
    later = it.traffic.between(over + 4, over + 1e9)  # serving looks every 1.5 s
    assert {version for _, _, version in later} == {"1"}


def test_a_good_canary_takes_over(stack: Stack, rolled: dict[str, Rolled]) -> None:
    it = rolled["good"]
    assert it.run.state == "success"
    assert (it.standing.outcome, it.standing.step) == ("PROMOTED", 1), it.standing.reason
    assert all(it.states[f"deploy.step_{n}"] == "success" for n in STEPS)
    assert it.states["deploy.promote"] == "success"
    assert stack.registry.aliases("good") == {"champion": "2", "previous_champion": "1"}
    assert stack.serves("good") == "2"
    assert {status for _, status, _ in it.traffic.answers} == {200}
    judged = stack.ledger.events("good", "judgement")
    assert [(e.payload["share"], e.payload["verdict"]) for e in judged] == [
        (0.2, "GO"),
        (0.5, "GO"),
    ]
    assert all(e.payload["numbers"]["challenger"]["rows"] >= 40 for e in judged)


def test_the_ledger_holds_every_step(stack: Stack, rolled: dict[str, Rolled]) -> None:
    for model in rolled:
        said = [e.payload["action"] for e in stack.ledger.events(model, "rollout")]
        steps = 2 if model == "good" else 1
        assert said == ["begin", *["step"] * steps, "end"]
        assert stack.ledger.verify(model).ok
