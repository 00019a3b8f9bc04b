"""The demo's upstream world."""

from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from click.testing import CliRunner

from include.cli.demo import DAYS, simulate_upstream
from include.cli.group import evergreen
from include.errors import SpecError
from include.settings import ROOT, Settings
from include.stack.layout import get_layout, prepare

NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)
SPEC = (ROOT / "include/models/churn.yaml").read_text()


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVERGREEN_MODELS", str(tmp_path))
    return tmp_path


def test_batches_end_yesterday_and_stay_as_they_are(models: Path) -> None:
    text = SPEC.replace(".evergreen/data/churn/*.parquet", str(models / "data" / "*.parquet"))
    (models / "churn.yaml").write_text(text)
    files = simulate_upstream(NOW)
    assert len(files) == DAYS
    assert files[-1].name == "2026-03-01.parquet"
    before = [f.stat().st_mtime_ns for f in files]
    assert [f.stat().st_mtime_ns for f in simulate_upstream(NOW)] == before


def test_a_spec_that_reads_elsewhere_is_said(models: Path) -> None:
    text = SPEC.replace("path: .evergreen/data/churn/*.parquet", "path: [a.csv, b.csv]")
    (models / "churn.yaml").write_text(text)
    with pytest.raises(SpecError, match="one glob of files"):
        simulate_upstream(NOW)


def test_it_asks_the_servers_where_they_really_run(
    runner: CliRunner, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    layout = get_layout(settings.home)
    prepare(layout)

    def start() -> None:
        layout.write_state({"ports": {"serving_port": 7001, "mlflow_port": 7002}})

    asked: list[str] = []
    monkeypatch.setattr("include.cli.up.start_stack", start)
    monkeypatch.setattr("include.cli.demo.simulate_upstream", lambda: [tmp_path / "x.parquet"])
    monkeypatch.setattr("include.stack.airflow_client.open_client", MagicMock())
    finished = MagicMock(state="success")
    monkeypatch.setattr("include.cli.trigger.follow", lambda *_: finished)
    monkeypatch.setattr("include.cli.demo._summary", lambda *_: {"run": "-"})
    monkeypatch.setattr("include.cli.demo.show_predictions", lambda url, _: asked.append(url))
    result = runner.invoke(evergreen, ["demo"])
    assert result.exit_code == 0, result.output
    assert asked == ["http://127.0.0.1:7001"]
    assert "http://127.0.0.1:7002/#/models/churn" in result.output
    assert "http://127.0.0.1:7001/v2/models/churn/infer" in result.output
