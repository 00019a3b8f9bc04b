"""A rollback on the command line tells by itself; whatever goes wrong is only said."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.cli.rollback import tell_people
from include.errors import SpecError
from include.ledger.chain import Event
from include.ledger.ledger import Ledger
from include.settings import Settings
from include.spec.loader import load_spec
from tests.receivers import SECRET, Hook

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    (tmp_path / "models").mkdir()
    (tmp_path / "home").mkdir()
    return Settings(
        home=tmp_path / "home",
        models=tmp_path / "models",
        mlflow_url="http://ann:hush@mlflow:5000/",
        airflow_url="http://ann:hush@airflow:8080",
    )


def write(settings: Settings, notify: str, name: str = "shop") -> None:
    (settings.models / f"{name}.yaml").write_text(
        f"model: {name}\ntask: binary\n"
        f"ingest: {{source: {{kind: file, path: x.csv}}, target: y}}\nnotify: {notify}\n"
    )


def roll_back(settings: Settings, to: str | None = "1") -> Event:
    payload = {"from": "2", "to": to, "reason": "complaints"}
    ledger = Ledger(settings.ledger_dsn)
    return ledger.record("shop", "rollback", f"rollback/cli/{to}", payload, "ann", NOW)


def test_it_is_told_once(home: Settings, hook: Hook, capsys: pytest.CaptureFixture[str]) -> None:
    write(home, f"{{on: [rollback], to: ['{hook.url()}', 'json://127.0.0.1:1/x']}}")
    event = roll_back(home)
    for _ in range(2):
        tell_people(home, event)
    ((title, text),) = hook.messages
    assert title == "shop: back to version 1"
    assert text.splitlines() == [
        "Version 2 was taken back: complaints",
        "By ann",
        "Airflow: http://airflow:8080/dags/shop__train",
        "MLflow version: http://mlflow:5000/#/models/shop/versions/1",
    ]
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "Told json://..."
    assert said[1].startswith("Not told: json://...: ")
    assert len(said) == 2
    assert SECRET not in str(said)
    (event,) = Ledger(home.ledger_dsn).events("shop", "notified")
    assert event.key == "notified/rollback/1"


@pytest.mark.parametrize("notify", ["{on: [rollback]}", "{on: [failure], to: ['%s']}"])
def test_nobody_asked(
    home: Settings, hook: Hook, notify: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(home, notify.replace("%s", hook.url()))
    tell_people(home, roll_back(home, None))
    assert (hook.posts, capsys.readouterr().err) == ([], "")


def test_a_spec_that_is_gone_or_wrong_is_only_said(
    home: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    event = roll_back(home)
    write(home, "{}", "other")
    tell_people(home, event)
    assert capsys.readouterr().err.startswith("Nobody was told: ")
    write(home, "{to: 7}")
    tell_people(home, event)
    assert "shop.yaml: notify.to: must be a list of texts, got int" in capsys.readouterr().err


@pytest.mark.parametrize(
    "to", ["mailto://u:hushhush@h", "[{mailto: 'u:hushhush@h'}]", "[[hushhush]]"]
)
def test_a_wrong_list_of_addresses_is_refused_without_showing_it(home: Settings, to: str) -> None:
    write(home, f"{{to: {to}}}")
    with pytest.raises(SpecError, match="must be a list of texts") as caught:
        load_spec(home.models / "shop.yaml", home)
    assert "hushhush" not in str(caught.value)


def test_an_airflow_that_cannot_be_started_is_only_said(
    home: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home, "{on: [rollback], to: ['connection:ops']}")
    monkeypatch.setattr("sys.executable", str(home.home / "no-python"))
    tell_people(home, roll_back(home))
    said = capsys.readouterr().err
    assert said.startswith("Nobody was told: notify.to: Airflow must be able to read")
    assert "No such file" in said
