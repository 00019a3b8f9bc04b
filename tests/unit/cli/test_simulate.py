"""`evergreen simulate` without a stack: plans, batches, refusals. The play itself runs in tests/e2e/test_loop.py."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pandas as pd
import pytest
from click.testing import CliRunner

from include.cli import simulate
from include.cli.group import evergreen
from include.errors import ConflictError
from include.settings import ROOT, Settings, get_settings
from include.simulator.plan import Plan
from include.simulator.progress import Progress
from include.simulator.scenarios import SCENARIOS
from include.spec.schema import Spec


@pytest.fixture(autouse=True)
def data(settings: Settings) -> Path:
    """The folder the example model reads, in a home of its own."""
    folder = settings.home / "data"
    text = (ROOT / "include/models/churn.yaml").read_text()
    text = text.replace(".evergreen/data/churn", str(folder))
    (settings.models / "churn.yaml").write_text(text)
    return folder


def test_the_command_knows_the_simulators_scenarios() -> None:
    assert sorted(simulate.SCENARIOS) == sorted(SCENARIOS)


def test_batches_only_writes_what_has_arrived_by_now(runner: CliRunner, data: Path) -> None:
    arguments = ["simulate", "--batches-only", "--days", "20", "--rows", "10"]
    result = runner.invoke(evergreen, arguments)
    assert result.exit_code == 0, result.output
    files = sorted(data.iterdir())
    today = datetime.now(UTC).date()
    assert files[-1].stem == str(today - timedelta(days=4)), "labels take three days"
    assert len(files) == 34
    assert result.output.startswith(f"34 files in {data}, {files[0].stem} to {files[-1].stem}")
    assert len(pd.read_parquet(files[-1])) == 10
    inodes = [file.stat().st_ino for file in files]
    runner.invoke(evergreen, arguments)
    assert [file.stat().st_ino for file in files] == inodes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--days", "10"], "--days: must cover two windows of 7 days, got 10"),
        (["--start", "2090-01-01"], "--start: must let the play end by"),
        (["chrun"], "churn"),
        (["--scenario", "storm"], "Invalid value for '--scenario'"),
    ],
)
def test_a_play_that_cannot_be_is_one_line(
    runner: CliRunner, arguments: list[str], message: str
) -> None:
    result = runner.invoke(evergreen, ["simulate", *arguments])
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_without_a_stack_it_says_how_to_start_one(runner: CliRunner, settings: Settings) -> None:
    result = runner.invoke(evergreen, ["simulate"])
    assert result.exit_code == 1
    assert "Run `./evergreen up` first." in result.stderr
    assert not (settings.home / "simulator").exists(), "a play that cannot begin has not begun"


def test_another_scenario_of_the_same_model_is_refused(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        begin(runner, patch)
    monkeypatch.setattr("include.stack.airflow_client.open_client", lambda _: MagicMock())
    result = runner.invoke(evergreen, ["simulate", "--scenario", "spike"])
    assert result.exit_code == 1
    assert "simulate churn: must go on with calm (seed 0, " in result.stderr


def begin(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Play as if somebody had pulled the plug on the second day; return what the command says."""

    def two_days(
        spec: Spec, plan: Plan, settings: Settings, *, quiet: bool, **asked: Any
    ) -> tuple[Plan, Progress]:
        del spec
        assert quiet
        plan, progress = simulate.resume(plan, settings, **asked)
        progress.days = {str(plan.start): (10, 0), str(plan.start + timedelta(days=1)): (10, 4)}
        progress.save()
        return plan, progress

    monkeypatch.setattr(simulate, "play_live", two_days)
    arguments = ["simulate", "--scenario", "calm", "--days", "20", "--rows", "10"]
    result = runner.invoke(evergreen, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_json_tells_everything(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    found = begin(runner, monkeypatch)
    assert (found["model"], found["scenario"], found["seed"]) == ("churn", "calm", 0)
    assert (found["rows"], found["refused"]) == (20, 4)
    assert found["timeline"] == []
    windows = found["windows"]
    assert isinstance(windows, list)
    assert {window["value"] for window in windows} == {None}
    assert Path(str(found["picture"])).is_file()


@pytest.mark.parametrize("other", [["--rows", "11"], ["--start", "2026-01-01", "--rows", "10"]])
def test_another_size_or_start_is_another_play(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, other: list[str]
) -> None:
    begin(runner, monkeypatch)
    arguments = ["simulate", "--scenario", "calm", "--days", "20", "--json"]
    result = runner.invoke(evergreen, [*arguments, *other])
    assert result.exit_code == 1
    assert "must go on with calm (seed 0, 10 rows a day" in result.stderr
    assert runner.invoke(evergreen, arguments).exit_code == 0


def test_a_model_has_one_player_at_a_time() -> None:
    settings = get_settings()
    with (
        simulate.only_player("churn", settings),
        pytest.raises(ConflictError, match="only play of the model, got another at work"),
        simulate.only_player("churn", settings),
    ):
        pass
    with simulate.only_player("churn", settings):
        pass
