"""`evergreen rollout` on a ledger of its own; what ends one for good is tested against a real registry."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner

from include.cli.group import evergreen
from include.cli.history import describe
from include.deploy import look
from include.deploy.judge import Judgement
from include.errors import DataError
from include.ledger.ledger import Ledger
from include.registry import rollouts
from include.registry.judgements import record
from include.settings import Settings

RUN = "churn__train/r+1"
ROLLOUT = {"id": "r1", "version": "2", "mode": "canary", "share": 0.0}


@pytest.fixture
def ledger(settings: Settings) -> Ledger:
    """A ledger, and a model with a spec."""
    (settings.models / "churn.yaml").write_text(
        "model: churn\ntask: binary\n"
        "ingest: {source: {kind: file, path: x.csv}, target: y}\ndeploy: {rollout: canary}\n"
    )
    return Ledger(settings.ledger_dsn)


def say(ledger: Ledger, action: str, **changes: Any) -> None:
    said = ROLLOUT | {"action": action, "step": -1} | changes
    ledger.record("churn", "rollout", f"rollout/{action}", said, RUN, datetime.now(UTC))


def run(runner: CliRunner, *arguments: str) -> str:
    result = runner.invoke(evergreen, ["rollout", "churn", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_none(runner: CliRunner, ledger: Ledger) -> None:
    assert ledger.head("churn") == 0
    assert run(runner) == "churn never had a rollout.\n"
    assert json.loads(run(runner, "--json")) == {"model": "churn", "rollout": None}
    for option in ("--stop", "--promote"):
        result = runner.invoke(evergreen, ["rollout", "churn", option])
        assert result.exit_code == 1
        assert "must go on to be" in result.stderr
    both = runner.invoke(evergreen, ["rollout", "churn", "--stop", "--promote"])
    assert both.exit_code == 2


def test_one_under_way(runner: CliRunner, ledger: Ledger) -> None:
    say(ledger, "begin", champion="1")
    say(ledger, "step", step=0, share=0.1)
    told = run(runner)
    assert told.startswith("Rollout of churn: version 2 against 1, canary\n10% of the traffic")
    assert "WAIT: no request has reached the challenger" in told
    said = json.loads(run(runner, "--json"))
    assert (said["rollout"]["share"], said["judgement"]["verdict"]) == (0.1, "WAIT")


def test_a_person_lets_it_take_over(runner: CliRunner, ledger: Ledger) -> None:
    say(ledger, "begin", champion="1")
    told = run(runner, "--promote", "--reason", "looks fine")
    assert "To be promoted: " in told
    assert "(command line): looks fine" in told


def test_what_the_judge_would_not_say_is_not_shown(
    runner: CliRunner, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def judge(*_: Any, decides: bool, **__: Any) -> Judgement:
        asked.append(decides)
        return Judgement("WAIT", "", {})

    monkeypatch.setattr(look, "judge", judge)
    write_rules("{rollout: ab, decide: labels}\nmonitor: {labels: {delay: 1d}}")
    at_decision(ledger)
    said = json.loads(run(runner, "--json"))
    assert asked == [True], "who is better, as its run asks"
    assert said["asked_at"] is None


def test_where_a_person_is_asked(runner: CliRunner, ledger: Ledger) -> None:
    write_rules("{rollout: ab}")
    say(ledger, "begin", champion="1", mode="ab")
    assert "A person is asked" not in run(runner)
    at_decision(ledger)
    told = run(runner, "--promote")
    assert "To be promoted: " in told
    assert "the run waits: http://127.0.0.1:" in told
    assert "/dags/churn__train/runs/r%2B1/tasks/deploy.decide" in told


def test_a_log_that_cannot_be_read_is_said(
    runner: CliRunner, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: Any, **__: Any) -> None:
        raise DataError("predictions", "must be Parquet that can be read, got rubbish", "Look.")

    monkeypatch.setattr(look, "gather", unreadable)
    say(ledger, "begin", champion="1")
    told = run(runner, "--promote")
    assert "To be promoted: " in told
    assert "WAIT: the prediction log cannot be read" in told


def test_a_broken_spec_fails_before_anything_is_written(
    runner: CliRunner, ledger: Ledger, settings: Settings
) -> None:
    say(ledger, "begin", champion="1")
    (settings.models / "churn.yaml").write_text("model: churn\n")
    assert runner.invoke(evergreen, ["rollout", "churn", "--promote"]).exit_code == 1
    assert [event.payload["action"] for event in ledger.events("churn")] == ["begin"]


def test_stopped_again_what_still_has_traffic_is_settled(
    runner: CliRunner, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: list[str] = []
    monkeypatch.setattr(rollouts, "settle", lambda _r, _l, name: settled.append(name))
    say(ledger, "begin", champion="1")
    say(ledger, "end", outcome="STOPPED", reason="it errs")
    result = runner.invoke(evergreen, ["rollout", "churn", "--stop"])
    assert (result.exit_code, settled) == (1, ["churn"])
    assert "must go on to be stopped" in result.stderr


def test_a_stop_says_that_the_run_may_wait_for_an_answer(
    runner: CliRunner, ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "settle", lambda *_: None)
    say(ledger, "begin", champion="1", mode="ab")
    (settings.models / "churn.yaml").write_text("model: churn\n")  # a stop needs no spec
    result = runner.invoke(evergreen, ["rollout", "churn", "--stop"])
    assert result.exit_code == 0, result.output
    assert "any answer ends it: http://127.0.0.1:" in result.stderr


def test_what_is_champion_is_not_stopped_but_rolled_back(runner: CliRunner, ledger: Ledger) -> None:
    say(ledger, "begin", champion="1")
    move = {"from": "1", "to": "2", "previous": "1", "reason": "it is better"}
    ledger.record("churn", "promotion", "p", move, RUN, datetime.now(UTC))
    result = runner.invoke(evergreen, ["rollout", "churn", "--stop"])
    assert result.exit_code == 1
    assert "`evergreen rollback churn` takes that back" in result.stderr
    assert len(ledger.events("churn", "rollout")) == 1


def write_rules(rules: str) -> None:
    path = Settings().models / "churn.yaml"
    path.write_text(path.read_text().replace("{rollout: canary}", rules))


def at_decision(ledger: Ledger) -> None:
    """The last step was judged GO."""
    say(ledger, "begin", champion="1", mode="ab")
    say(ledger, "step", step=1, share=0.5, mode="ab")
    standing = rollouts.latest(ledger, "churn")
    assert standing is not None
    said = {"verdict": "GO", "reason": "", "numbers": {}}
    record(ledger, "churn", standing, said, decides=False, actor="run", now=datetime.now(UTC))


def test_one_that_has_ended(runner: CliRunner, ledger: Ledger) -> None:
    say(ledger, "begin", champion="1")
    say(ledger, "end", outcome="STOPPED", reason="it errs")
    assert run(runner).endswith("STOPPED: it errs\n")
    assert json.loads(run(runner, "--json"))["judgement"] is None


def test_history_tells_of_it() -> None:
    said = ROLLOUT | {"action": "step", "share": 0.1, "step": 0}
    assert describe(said) == "step, canary of version 2, 10%"
    ended = said | {"action": "end", "outcome": "STOPPED", "reason": "it errs"}
    assert describe(ended) == "end, canary of version 2, STOPPED: it errs"
