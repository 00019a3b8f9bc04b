"""`evergreen rollout` on a ledger of its own; what ends one for good is tested against a real registry."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner

from include.cli.group import evergreen
from include.cli.history import describe
from include.ledger.ledger import Ledger
from include.settings import Settings

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
    ledger.record("churn", "rollout", f"rollout/{action}", said, "run", datetime.now(UTC))


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
