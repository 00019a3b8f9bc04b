"""`python -m evergreen.tell`: a rollback is told by Airflow where only Airflow knows the address."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.cli.rollback import tell_people
from include.ledger.ledger import Ledger
from include.settings import ROOT, Settings
from tests.receivers import SECRET, start_hook

SPEC = """
model: shop
task: binary
ingest: {source: {kind: file, path: x.csv}, target: y}
notify: {on: [rollback], to: ["connection:ops", "connection:nobody"]}
"""


def test_a_rollback_is_told_by_a_connection(
    airflow_db: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "shop.yaml").write_text(SPEC)
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EVERGREEN_MODELS", str(models))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    settings = Settings()
    settings.home.mkdir()
    payload = {"from": "2", "to": "1", "reason": "complaints"}
    ledger = Ledger(settings.ledger_dsn)
    event = ledger.record("shop", "rollback", "k", payload, "ann", datetime.now(UTC))
    with start_hook() as hook:
        connection = ["connections", "add", "ops", "--conn-type", "generic"]
        subprocess.run(
            [sys.executable, "-m", "airflow", *connection, "--conn-password", hook.url()],
            check=True,
            capture_output=True,
        )
        tell_people(settings, event)
        said = capsys.readouterr().err.splitlines()
        assert said[0] == "Told connection:ops"
        assert said[1].startswith("Not told: connection:nobody: cannot be read from Airflow")
        tell_people(settings, event)
        assert capsys.readouterr().err == ""
        assert hook.titles == ["shop: back to version 1"]
    assert SECRET not in json.dumps(said)
    (row,) = ledger.events("shop", "notified")
    assert row.payload["taken"] == ["connection:ops"]
