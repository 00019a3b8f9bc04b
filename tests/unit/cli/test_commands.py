"""Commands that need no running stack; the others are run in tests/e2e."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text

from include.cli.display import duration
from include.cli.group import evergreen
from include.cli.history import describe
from include.cli.trigger import get_dag_id, parse_params
from include.errors import SpecError
from include.ledger.ledger import Ledger
from include.registry.pins import pin
from include.settings import Settings
from include.stack.credentials import ensure_credentials
from include.stack.layout import get_layout, prepare

PARAMS = {"force": {}, "reason": {}}


def _spec(settings: Settings, name: str, extra: str = "") -> Path:
    path = settings.models / f"{name}.yaml"
    path.write_text(
        f"model: {name}\ntask: binary\n"
        f"ingest: {{source: {{kind: file, path: x.csv}}, target: y}}\n{extra}"
    )
    return path


def test_status_of_nothing(runner: CliRunner, settings: Settings) -> None:
    result = runner.invoke(evergreen, ["status"])
    assert (result.exit_code, result.output) == (3, "Not running. `./evergreen up` starts it.\n")
    result = runner.invoke(evergreen, ["status", "--json"])
    status = json.loads(result.stdout)
    assert (result.exit_code, status["up"], status["healthy"]) == (3, False, False)
    assert [c["name"] for c in status["components"]][:2] == ["mlflow", "api-server"]
    assert list(settings.home.iterdir()) == []  # looking changes nothing


def test_down_of_nothing(runner: CliRunner, settings: Settings) -> None:
    result = runner.invoke(evergreen, ["down"])
    assert (result.exit_code, result.output) == (0, "Nothing was running.\n")
    assert list(settings.home.iterdir()) == []


def test_password(runner: CliRunner, settings: Settings) -> None:
    result = runner.invoke(evergreen, ["password"])
    assert result.exit_code == 1
    assert "The first `./evergreen up` makes it." in result.stderr
    layout = get_layout(settings.home)
    prepare(layout)
    made = ensure_credentials(layout)
    assert runner.invoke(evergreen, ["password"]).stdout == f"{made.admin}\n"
    result = runner.invoke(evergreen, ["password", "viewer", "--json"])
    assert json.loads(result.stdout)["password"] == made.viewer


def test_logs(runner: CliRunner, settings: Settings) -> None:
    result = runner.invoke(evergreen, ["logs", "mlflow"])
    assert "NAME must be one of none yet, got 'mlflow'" in result.stderr
    layout = get_layout(settings.home)
    prepare(layout)
    layout.log("mlflow").write_text("one\ntwo\nthree\n")
    assert runner.invoke(evergreen, ["logs", "mlflow", "-n", "2"]).stdout == "two\nthree\n"


def test_trigger_before_the_first_start(runner: CliRunner, settings: Settings) -> None:
    _spec(settings, "churn")
    result = runner.invoke(evergreen, ["trigger", "churn"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Airflow: must have been started once")


def test_a_misspelt_model(runner: CliRunner, settings: Settings) -> None:
    _spec(settings, "churn")
    for command in ("trigger", "run", "history"):
        result = runner.invoke(evergreen, [command, "chrun"])
        assert result.exit_code == 1
        assert "Did you mean 'churn'?" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_a_broken_spec_is_said_before_airflow_is_asked(
    runner: CliRunner, settings: Settings
) -> None:
    _spec(settings, "churn")
    path = settings.models / "churn.yaml"
    path.write_text(path.read_text() + "\ntrian: {}\n")
    result = runner.invoke(evergreen, ["trigger", "churn"])
    assert result.exit_code == 1
    assert "churn.yaml" in result.stderr
    assert "Did you mean 'train'?" in result.stderr


def test_the_id_of_a_dag(settings: Settings) -> None:
    _spec(settings, "churn")
    assert get_dag_id("churn") == "churn__train"
    assert get_dag_id("gone__monitor") == "gone__monitor"


def test_parameters_are_json_where_they_can_be() -> None:
    pairs = ["force=true", "reason=a=b"]
    assert parse_params(pairs, PARAMS, "d") == {"force": True, "reason": "a=b"}


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("force", "must be KEY=VALUE, got 'force'"),
        ("=1", "must be KEY=VALUE"),
        ("forse=1", "Did you mean 'force'"),
        ("zzz=1", "It takes force, reason"),
    ],
)
def test_wrong_parameters(pair: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_params([pair], PARAMS, "d")


def test_run_does_not_answer_for_approvers(runner: CliRunner, settings: Settings) -> None:
    _spec(settings, "churn", "register: {approval: {manual: {approvers: [anna]}}}\n")
    result = runner.invoke(evergreen, ["run", "churn"])
    assert result.exit_code == 1
    assert "register.approval: must be auto for `run`" in result.stderr


def test_history(runner: CliRunner, settings: Settings) -> None:
    _spec(settings, "churn")
    result = runner.invoke(evergreen, ["history", "churn"])
    assert (result.exit_code, result.stdout) == (0, "Nothing has been decided about churn yet.\n")
    ledger = Ledger(settings.ledger_dsn)
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    verdict = {"verdict": "HOLD", "reason": "too close"}
    ledger.record("churn", "verdict", "k1", verdict, "run 1", now)
    ledger.record("churn", "applied", "k2", {"move": 1}, "run 1", now)
    move = {"from": None, "to": "1", "reason": "[better]"}
    ledger.record("churn", "promotion", "k3", move, "run 2", now)
    lines = runner.invoke(evergreen, ["history", "churn"]).stdout.splitlines()
    assert lines[0] == "2026-01-02 03:04:05  verdict     HOLD: too close"
    assert lines[2].endswith("promotion   version none → 1: [better]")
    assert [line.strip() for line in lines[1::2]] == ["by run 1", "by run 2"]
    result = runner.invoke(evergreen, ["history", "churn", "--json", "-n", "1"])
    history = json.loads(result.stdout)
    assert (history["intact"], history["events"][0]["payload"]) == (True, move)


def test_history_tells_when_somebody_changed_it(runner: CliRunner, settings: Settings) -> None:
    ledger = Ledger(settings.ledger_dsn)
    ledger.record("churn", "verdict", "k1", {"verdict": "HOLD"}, "run 1", datetime.now(UTC))
    engine = create_engine(settings.ledger_dsn)
    with engine.begin() as connection:
        for (name,) in connection.execute(
            text("select name from sqlite_master where type = 'trigger'")
        ).all():
            connection.execute(text(f"drop trigger {name}"))
        connection.execute(text("update events set actor = 'nobody'"))
    engine.dispose()
    result = runner.invoke(evergreen, ["history", "churn"])
    assert result.exit_code == 1
    assert "The ledger is not intact" in result.stderr


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"verdict": "SKIP"}, "SKIP"),
        ({"to": None, "from": "3"}, "version 3 → none"),
        ({"reason": "maintenance"}, "maintenance"),
        ({"version": "2", "reason": "complaints"}, "version 2: complaints"),
        ({"b": 1, "a": 2}, '{"a": 2, "b": 1}'),
    ],
)
def test_events_as_sentences(payload: dict[str, object], words: str) -> None:
    assert describe(payload) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "-"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_freeze_and_unfreeze(runner: CliRunner, settings: Settings) -> None:
    _spec(settings, "churn")
    result = runner.invoke(evergreen, ["freeze", "churn", "--reason", "audit"])
    assert (result.exit_code, result.output) == (0, "churn is frozen: audit.\n")
    result = runner.invoke(evergreen, ["unfreeze", "churn"])
    assert (result.exit_code, result.output) == (0, "churn may be retrained again.\n")
    runner.invoke(evergreen, ["freeze", "churn"])
    events = Ledger(settings.ledger_dsn).events("churn")
    assert [(e.kind, e.payload["reason"]) for e in events] == [
        ("freeze", "audit"),
        ("unfreeze", "by hand"),
        ("freeze", "by hand"),
    ]
    assert all(e.actor.endswith(" (command line)") for e in events)


def test_history_shows_a_pin_and_unpin_releases_it(runner: CliRunner, settings: Settings) -> None:
    _spec(settings, "churn")
    result = runner.invoke(evergreen, ["unpin", "churn"])
    assert (result.exit_code, result.output) == (0, "churn is not pinned.\n")
    ledger = Ledger(settings.ledger_dsn)
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    pin(ledger, "churn", "2", reason="complaints", key="p", actor="ann", now=now)
    lines = runner.invoke(evergreen, ["history", "churn"]).stdout.splitlines()
    assert lines[0] == "2026-01-02 03:04:05  pin         version 2: complaints"
    assert lines[-1] == "churn is pinned to version 2 since 2026-01-02 03:04 by ann: complaints"
    shown = json.loads(runner.invoke(evergreen, ["history", "churn", "--json"]).stdout)
    assert (shown["pin"]["version"], shown["pin"]["by"]) == ("2", "ann")
    result = runner.invoke(evergreen, ["unpin", "churn", "--reason", "mended", "--json"])
    assert json.loads(result.stdout) == {"model": "churn", "released": "2"}
    assert ledger.events("churn")[-1].payload == {"version": "2", "reason": "mended"}
    shown = json.loads(runner.invoke(evergreen, ["history", "churn", "--json"]).stdout)
    assert shown["pin"] is None
    result = runner.invoke(evergreen, ["unpin", "churn"])
    assert result.output == "churn is not pinned.\n"


@pytest.mark.parametrize("name", ["freeze", "unfreeze", "unpin"])
def test_nothing_is_frozen_that_is_not_there(
    runner: CliRunner, settings: Settings, name: str
) -> None:
    _spec(settings, "churn")
    result = runner.invoke(evergreen, [name, "chrun"])
    assert result.exit_code == 1
    assert "Did you mean 'churn'?" in result.stderr
