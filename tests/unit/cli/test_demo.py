"""The demo's plan and its order; the whole of it runs on the embedded stack (tests/e2e/test_loop.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from click.testing import CliRunner, Result

from include.cli.demo import WINDOWS, make_demo_plan
from include.cli.group import evergreen
from include.settings import ROOT, Settings
from include.simulator.batches import write_batch
from include.simulator.plan import midnight
from include.simulator.play import Asked
from include.spec.loader import load_spec
from include.stack.layout import get_layout, prepare

SPEC = ROOT / "include/models/churn.yaml"


@pytest.mark.parametrize("day", range(14))
def test_the_plan_has_six_whole_windows_and_ends_yesterday(day: int) -> None:
    now = datetime(2026, 11, 14, 10, tzinfo=UTC) + timedelta(days=day)
    plan = make_demo_plan(load_spec(SPEC), now)
    assert plan.end == now.date()
    assert len(plan.windows) == WINDOWS
    assert plan.windows[0][0] == midnight(plan.start)
    assert midnight(plan.world.onset) == plan.windows[2][0]
    assert timedelta(0) <= midnight(plan.end) - plan.windows[-1][1] < timedelta(days=7)


class Stage:
    """Takes everything; the files are real."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.done = folder, list[str]()

    def deliver(self, day: date, batch: object) -> None:
        write_batch(self.folder, day, batch)  # type: ignore[arg-type]

    def ask(self, day: date, rows: object) -> Asked:
        del day, rows
        return Asked(400, 0)

    def tell(self, labels: object) -> None:
        del labels

    def settle(self, start: datetime, end: datetime, rows: int) -> None:
        del start, end
        assert rows == 2800

    def train(self, run_id: str, as_of: datetime) -> None:
        self.done.append(f"{run_id} {as_of:%Y-%m-%d}")

    def monitor(self, run_id: str, as_of: datetime) -> None:
        self.done.append(f"{run_id} {as_of:%Y-%m-%d}")


@pytest.fixture
def demo(
    runner: CliRunner, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> tuple[Stage, MagicMock, list[str]]:
    """A demo without a stack: its stage, Airflow, and where predictions were asked."""
    data = settings.home / "data"
    text = SPEC.read_text().replace(".evergreen/data/churn", str(data))
    (settings.models / "churn.yaml").write_text(text)
    layout = get_layout(settings.home)
    prepare(layout)
    monkeypatch.setattr(
        "include.cli.up.start_stack",
        lambda: layout.write_state({"ports": {"serving_port": 7001, "mlflow_port": 7002}}),
    )
    stage, airflow, asked = Stage(data), MagicMock(), list[str]()
    airflow.__enter__.return_value = airflow
    airflow.url = "http://airflow"
    airflow.runs.return_value = [{"dag_run_id": "newest"}]
    airflow.xcom.side_effect = lambda _dag, run, task: {
        "admit": {"verdict": "RETRAIN"},
        "ingest": {"snapshot_id": "a" * 64, "rows": 5600},
        "evaluate": {"verdict": "PROMOTE", "reason": run, "metrics": {"roc_auc": 0.8}},
        "register": {"version": "2"},
        "deploy.promote": {"version": "2"},
    }[task]

    @contextmanager
    def open_stage(*_: object, **__: object) -> Iterator[Stage]:
        yield stage

    monkeypatch.setattr("include.cli.simulate.open_stage", open_stage)
    monkeypatch.setattr("include.stack.airflow_client.open_client", lambda _: airflow)
    monkeypatch.setattr(
        "include.cli.demo.show_predictions", lambda url, _, *, key: asked.append(url)
    )
    return stage, airflow, asked


def run(runner: CliRunner) -> Result:
    result = runner.invoke(evergreen, ["demo"])
    assert result.exit_code == 0, result.output
    return result


def test_it_trains_lets_weeks_pass_and_shows_what_became_of_them(
    runner: CliRunner, demo: tuple[Stage, MagicMock, list[str]]
) -> None:
    stage, airflow, asked = demo
    said = run(runner).output
    assert [done.split("__")[0] for done in stage.done] == ["sim-train", *["sim"] * WINDOWS]
    assert airflow.trigger.call_count == 0
    assert asked == ["http://127.0.0.1:7001"], "where serving really runs"
    for text in (
        "as of",
        "the world changes",
        "17,",
        "churn-concept_drift.png",
        "PROMOTE: newest",
        "http://airflow/dags/churn__train/runs/newest",
        "http://127.0.0.1:7002/#/models/churn",
    ):
        assert text in said


def test_a_second_time_it_goes_on_and_trains_on_what_is_there(
    runner: CliRunner,
    demo: tuple[Stage, MagicMock, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage, airflow, asked = demo
    run(runner)
    before = list(stage.done)
    follow = MagicMock(return_value=MagicMock(state="success"))
    monkeypatch.setattr("include.cli.trigger.follow", follow)
    said = run(runner).output
    assert stage.done == before
    assert airflow.trigger.call_count == follow.call_count == 1
    dag_id, conf, _ = airflow.trigger.call_args.args
    assert (dag_id, conf["trigger"]) == ("churn__train", "api")
    assert "No day has passed since last time" in said
    assert len(asked) == 2
    follow.return_value = MagicMock(state="failed")
    assert runner.invoke(evergreen, ["demo"]).exit_code == 1


def test_a_spec_that_reads_elsewhere_is_said(
    runner: CliRunner, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SPEC.read_text().replace("path: .evergreen/data/churn/*.parquet", "path: [a.csv, b.csv]")
    (settings.models / "churn.yaml").write_text(text)
    monkeypatch.setattr("include.cli.up.start_stack", lambda: None)
    result = runner.invoke(evergreen, ["demo"])
    assert result.exit_code == 1
    assert "must be one glob of files for the simulator, got another" in result.stderr
    assert not (settings.home / "simulator").exists(), "a play that cannot begin has not begun"
