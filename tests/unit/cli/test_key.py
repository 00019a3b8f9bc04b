"""`./evergreen key`: keys are shown once, and our own clients are never locked out."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner, Result

from include.cli.group import evergreen
from include.ledger.keys import hash_key, key_id
from include.ledger.ledger import Ledger
from include.settings import Settings


def run(runner: CliRunner, *args: str) -> Result:
    result = runner.invoke(evergreen, ["key", *args])
    assert result.exit_code == 0, result.output
    return result


def test_the_first_key_gives_our_own_clients_one(settings: Settings, runner: CliRunner) -> None:
    assert settings.client_key == ""
    result = run(runner, "add", "ann", "--models", "churn, fraud", "--expires", "90d")
    text = result.stdout.strip()
    own, ann = sorted(Ledger(settings.ledger_dsn).api_keys(), key=lambda key: key.name != "ann")[
        ::-1
    ]
    assert (ann.hash, ann.models) == (hash_key(text), ("churn", "fraud"))
    assert own.hash == hash_key(settings.client_key)
    assert settings.client_key_file.stat().st_mode & 0o777 == 0o600
    assert "may ask churn, fraud until" in result.stderr
    assert "From now on serving asks every caller for a key." in result.stderr
    assert settings.client_key not in result.output
    again = run(runner, "add", "bob")
    assert len(Ledger(settings.ledger_dsn).api_keys()) == 3
    assert "From now on" not in again.stderr


def test_with_a_key_in_the_environment_none_is_made(
    settings: Settings, runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_SERVING_KEY", "x" * 32)
    run(runner, "add", "ann")
    assert len(Ledger(settings.ledger_dsn).api_keys()) == 1
    assert not settings.client_key_file.exists()
    assert Settings().client_key == "x" * 32
    assert "x" * 32 not in repr(Settings())


def test_a_key_file_of_another_ledger_is_replaced(settings: Settings, runner: CliRunner) -> None:
    settings.client_key_file.write_text("eg_0123456789ab.gone\n")
    run(runner, "add", "ann")
    ids = {key.id for key in Ledger(settings.ledger_dsn).api_keys()}
    assert key_id(settings.client_key) in ids


def test_list_shows_no_secret(settings: Settings, runner: CliRunner) -> None:
    assert "No keys" in run(runner, "list").output
    text = json.loads(run(runner, "add", "ann [x]", "--json").stdout)["key"]
    shown = run(runner, "list")
    assert "ann [x]" in shown.output
    assert text.partition(".")[2] not in shown.output
    listed = json.loads(run(runner, "list", "--json").stdout)
    assert "hash" not in listed[0]


def test_rotate_and_revoke(settings: Settings, runner: CliRunner) -> None:
    added = json.loads(run(runner, "add", "ann", "--json").stdout)
    rotated = json.loads(run(runner, "rotate", added["id"], "--grace", "1h", "--json").stdout)
    left = datetime.fromisoformat(rotated["replaces"]["expires_at"]) - datetime.now(UTC)
    assert 3500 < left.total_seconds() <= 3600
    assert rotated["key"] != added["key"]
    run(runner, "revoke", added["id"])
    assert added["id"] not in {key.id for key in Ledger(settings.ledger_dsn).api_keys()}
    gone = runner.invoke(evergreen, ["key", "revoke", added["id"]])
    assert gone.exit_code == 1
    assert "must be in the ledger" in gone.stderr


def test_our_own_key_can_be_rotated(settings: Settings, runner: CliRunner) -> None:
    run(runner, "add", "ann")
    before = settings.client_key
    result = run(runner, "rotate", key_id(before))
    assert settings.client_key == result.stdout.strip() != before
    assert "use the new one" in result.stderr


def test_revoking_the_last_key_says_that_serving_is_open(
    settings: Settings, runner: CliRunner
) -> None:
    run(runner, "add", "ann")
    keys = Ledger(settings.ledger_dsn).api_keys()
    said = [run(runner, "revoke", key.id).stderr for key in sorted(keys, key=lambda k: k.name)]
    assert "the last one" not in said[0]
    assert "the last one" in said[1]


def test_a_wrong_duration(settings: Settings, runner: CliRunner) -> None:
    result = runner.invoke(evergreen, ["key", "add", "ann", "--expires", "soon"])
    assert result.exit_code == 2
    assert "must be a duration such as 90s" in result.stderr
