import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from include.cli.group import evergreen
from include.settings import Settings
from include.store.files import Store, open_store
from include.store.predictions import write_part
from tests.unit.store.log_rows import rows


@pytest.fixture
def store(settings: Settings) -> Store:
    """A log of six predictions about k0, k1 and k2 of the model `m`."""
    (settings.models / "m.yaml").write_text(
        "model: m\ntask: binary\n"
        "ingest: {source: {kind: file, path: x.csv}, target: y, key: customer}\n"
    )
    made = open_store(settings.store_uri)
    write_part(made, "m", rows(6, start=datetime(2026, 1, 1, tzinfo=UTC)))
    return made


def test_it_says_what_went_and_what_stays(runner: CliRunner, store: Store) -> None:
    result = runner.invoke(evergreen, ["forget", "m", "--key", "k1", "--yes"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(
        "m: removed 2 rows of predictions, 0 labels, 0 in 0 refused snapshots"
    )
    assert "What stays: the snapshots that versions were trained on" in result.output
    assert "within 5 seconds" in result.output


def test_for_programs(runner: CliRunner, store: Store) -> None:
    for expected in (2, 0):
        result = runner.invoke(evergreen, ["forget", "m", "--key", "k2", "--yes", "--json"])
        assert json.loads(result.stdout)["predictions"] == expected


def test_it_asks_first(runner: CliRunner, store: Store) -> None:
    result = runner.invoke(evergreen, ["forget", "m", "--key", "k1"], input="n\n")
    assert (result.exit_code, "Remove what is known about k1" in result.output) == (1, True)
    result = runner.invoke(evergreen, ["forget", "m", "--key", "k1"], input="y\n")
    assert "removed 2 rows" in result.output


def test_a_misspelt_model(runner: CliRunner, store: Store) -> None:
    result = runner.invoke(evergreen, ["forget", "n", "--key", "k1", "--yes"])
    assert result.exit_code == 1
    assert "must hold n.yaml, got no such file" in result.stderr


def test_what_a_version_needs_is_asked_of_mlflow_only_when_it_matters(
    runner: CliRunner, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is quarantined here, so MLflow, which does not run, is not needed."""
    monkeypatch.setenv("EVERGREEN_MLFLOW_URL", "http://127.0.0.1:9")
    result = runner.invoke(evergreen, ["forget", "m", "--key", "k1", "--yes"])
    assert result.exit_code == 0
