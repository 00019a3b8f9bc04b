"""Every way a pass of the monitor can go, with real parts: skipped, calm, drift, broken data, decay."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from include.ledger.chain import Event
from include.simulator.churn import NO_DRIFT, Drift, daily_batch
from include.store.snapshots import read_manifest
from tests.integration.pipeline.world import Run, World
from tests.models import DAYS, ROWS, write_days
from tests.traffic import SHIFT, day, end_of, log_day

pytestmark = pytest.mark.server
LINEAR = [{"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 300}}]
MONITOR: dict[str, Any] = {
    "schedule": "5 * * * *",
    "window": "1d",
    "min_rows": 100,
    "drift": {"share": 0.2, "violations": {"k": 2, "of": 3}},
}
SPEC: dict[str, Any] = {
    "train": {"candidates": LINEAR, "tune": {"trials": 1, "folds": 2}},
    "monitor": MONITOR,
    "retrain": {"on": ["drift"], "cooldown": "1h"},
}


def log(world: World, model: str, number: int, drift: Drift = NO_DRIFT, **options: Any) -> None:
    log_day(
        world.store, world.registry, world.home / "cache", model, number, drift=drift, **options
    )


def watch(world: World, model: str, number: int, **conf: Any) -> Run:
    """Run a pass right after the end of a day."""
    return world.run(f"{model}__monitor", {"as_of": end_of(number), **conf})


def rows(world: World, model: str) -> list[Event]:
    return world.ledger.events(model, "monitor")


def started(world: World, model: str) -> Mapping[str, Any]:
    """Return the training runs that were started for a model, and with what."""
    with sqlite3.connect(world.home / "airflow-run" / "airflow.db") as database:
        query = "SELECT run_id, conf FROM dag_run WHERE dag_id = ? AND run_id LIKE 'retrain%'"
        return {run: json.loads(conf) for run, conf in database.execute(query, [f"{model}__train"])}


def pause(world: World, model: str, paused: bool) -> None:
    with sqlite3.connect(world.home / "airflow-run" / "airflow.db") as database:
        query = "UPDATE dag SET is_paused = ? WHERE dag_id = ?"
        database.execute(query, [paused, f"{model}__train"])


@pytest.fixture(scope="module")
def watched(world: World) -> World:
    """The world, with a champion that is watched, made as of the day after its data."""
    world.add_model("watched", **SPEC)
    assert world.run("watched__train", {"as_of": end_of(DAYS - 1)}).state == "success"
    return world


def test_without_a_champion_there_is_nothing_to_watch(world: World) -> None:
    world.add_model("nobody", **SPEC)
    run = world.run("nobody__monitor")
    assert run.state == "success"
    assert {run.tasks[name] for name in ("collect", "decide", "request_retrain", "report")} == {
        "skipped"
    }
    assert world.ledger.events("nobody") == []


def reason(world: World, run: Run, task: str, model: str = "watched") -> str:
    """Return why a task was skipped, as callers of the REST API read it."""
    with sqlite3.connect(world.home / "airflow-run" / "airflow.db") as database:
        query = "SELECT value FROM xcom WHERE dag_id = ? AND run_id = ? AND task_id = ? AND key = ?"
        where = [f"{model}__monitor", run.run_id, task, "skip_reason"]
        return str(json.loads(database.execute(query, where).fetchone()[0]))


def test_a_window_is_judged_once(watched: World) -> None:
    run = watch(watched, "watched", 41)
    assert reason(watched, run, "collect").startswith("no prediction of version 1 is logged yet")
    assert rows(watched, "watched") == []

    log(watched, "watched", 42)
    run = watch(watched, "watched", 42)
    assert run.state == "success"
    assert run.tasks["report"] == "success"
    assert reason(watched, run, "performance") == "the spec has no monitor.labels"
    assert "no request" in reason(watched, run, "request_retrain")
    [calm] = rows(watched, "watched")
    assert calm.key == "monitor/1/20260212T000000Z"
    assert calm.payload["verdict"] == "OK", calm.payload["reason"]
    assert (calm.payload["rows"], calm.payload["as_of"]) == (300, "2026-02-13T00:00:00+00:00")
    assert calm.at > "2026-06", "the row stands under the true time"

    again = watch(watched, "watched", 42)
    assert "was judged before" in reason(watched, again, "collect")
    assert set(again.tasks.values()) == {"skipped", "success"}
    assert len(rows(watched, "watched")) == 1

    forced = watch(watched, "watched", 42, force=True, html=True)
    assert forced.tasks["report"] == "success"
    assert [e.payload["window"] for e in rows(watched, "watched")] == ["20260212T000000Z"] * 2


def test_a_pass_leaves_its_reports_in_mlflow_and_nothing_else(watched: World) -> None:
    registry = watched.registry
    runs = registry.client.search_runs(
        [registry.experiment_id("watched-monitor")], order_by=["attributes.start_time"]
    )
    pages = [
        {file.path for file in registry.client.list_artifacts(run.info.run_id, "monitor")}
        for run in runs
    ]
    report, page = "monitor/report.json", "monitor/report.html"
    assert pages == [{report}, {report, page}], "a page only where it is asked for"
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert runs[0].data.tags["evergreen.verdict"] == "OK"
    assert runs[0].data.metrics["rows"] == 300
    assert list(watched.store.list("monitor/")) == []
    experiment = registry.experiment_id("watched")
    assert len(registry.client.search_runs([experiment], "tags.evergreen.verdict != ''")) == 1


def test_drift_that_lasts_asks_once_and_starts_one_run(watched: World) -> None:
    log(watched, "watched", 43, SHIFT)
    assert watch(watched, "watched", 43).tasks["request_retrain"] == "skipped"
    first = rows(watched, "watched")[-1].payload
    assert (first["verdict"], first["drifts"], first["wishes"]) == ("ALERT", True, [])

    log(watched, "watched", 44, SHIFT)
    run = watch(watched, "watched", 44)
    assert run.state == "success"
    assert run.tasks["report"] == "success", "it comes after a task that only starts a run"
    second = rows(watched, "watched")[-1].payload
    assert [wish["source"] for wish in second["wishes"]] == ["drift"]
    [request] = watched.ledger.requests("watched")
    assert request.key == "drift/1/20260214T000000Z"
    conf = {
        "trigger": "drift",
        "reason": request.reason[:500],
        "as_of": "2026-02-15T00:00:00+00:00",
    }
    assert started(watched, "watched") == {"retrain__1__20260214T000000Z": conf}

    again = watch(watched, "watched", 44)
    assert again.state == "success"
    assert again.tasks["request_retrain"] == "skipped", "the run is there already"
    forced = watch(watched, "watched", 44, force=True)
    assert forced.tasks["report"] == "success", "a run that is there already hides nothing"
    assert len(watched.ledger.requests("watched", pending=False)) == 1
    assert list(started(watched, "watched")) == ["retrain__1__20260214T000000Z"]


def test_a_request_outlives_a_paused_and_a_frozen_training(watched: World) -> None:
    log(watched, "watched", 45, SHIFT)
    pause(watched, "watched", True)
    run = watch(watched, "watched", 45)
    pause(watched, "watched", False)
    assert "is paused" in reason(watched, run, "request_retrain")
    assert "is paused" in watched.ledger.events("watched", "skip")[-1].payload["reason"]
    assert len(watched.ledger.requests("watched")) == 2
    assert len(started(watched, "watched")) == 1

    now = datetime.now(UTC)
    watched.ledger.freeze("watched", "audit", key="f", actor="ann", now=now)
    run = watch(watched, "watched", 45)
    assert reason(watched, run, "request_retrain") == "a request waits: the model is frozen: audit"
    watched.ledger.unfreeze("watched", "done", key="u", actor="ann", now=now)

    run = watch(watched, "watched", 45)  # judged before; the run is started all the same
    assert run.tasks["collect"] == "skipped"
    assert list(started(watched, "watched"))[1:] == ["retrain__1__20260215T000000Z"]


def test_a_run_of_the_past_sees_the_past_only(watched: World) -> None:
    write_days(watched.data("watched"), first=DAYS, days=20)  # until 1 March
    run = watched.run(
        "watched__train", {"trigger": "drift", "reason": "drift", "as_of": end_of(45)}
    )
    assert run.state == "success", run.errors
    assert watched.ledger.requests("watched") == []
    decision = watched.ledger.events("watched", "decision")[-1].payload
    assert (decision["verdict"], decision["as_of"]) == (
        "RETRAIN",
        "2026-02-16T00:00:00.000000+00:00",
    )
    assert len(decision["requests"]) == 2
    version = watched.registry.versions("watched")[0]
    assert version.version == "2"
    manifest = read_manifest(watched.store, "watched", version.tags["evergreen.snapshot_id"])
    assert manifest.rows == 46 * ROWS
    assert str(manifest.time_end) < "2026-02-16"

    late = watched.run("watched__train", {"trigger": "drift", "as_of": end_of(45)})
    assert late.tasks["admit"] == "skipped"
    assert "answered already" in watched.ledger.events("watched", "decision")[-1].payload["reason"]


@pytest.mark.parametrize("dag", ["train", "monitor"])
def test_nobody_acts_in_the_future(watched: World, dag: str) -> None:
    before = watched.ledger.head("watched")
    run = watched.run(f"watched__{dag}", {"as_of": "2999-01-01T00:00:00Z"})
    assert run.state == "failed"
    task = "admit" if dag == "train" else "collect"
    assert "must be a past time with its zone, got '2999" in run.errors[task]
    assert watched.ledger.head("watched") == before


def test_decay_shows_once_the_labels_are_due(world: World) -> None:
    """Labels come from a source; the world turns round, which only they can tell."""
    model, turned = "decaying", Drift(concept=1.0)
    labels = world.data(model) / "labels"
    source = {"kind": "file", "path": str(labels / "*.parquet")}
    monitor = {
        **MONITOR,
        "labels": {"source": source, "delay": "2d"},
        "performance": {"metric": "roc_auc", "max_drop": 0.05},
    }
    world.add_model(model, **{**SPEC, "monitor": monitor, "retrain": {"on": ["decay"]}})
    assert world.run(f"{model}__train").state == "success"
    for number in (42, 43, 44):
        log(world, model, number, turned)
    assert watch(world, model, 42).state == "success"
    run = watch(world, model, 43)  # labels of the day before yesterday are due; there are none
    assert run.state == "success", run.errors
    assert rows(world, model)[-1].payload["decays"] is False

    labels.mkdir()
    for number in (42, 43):
        frame = daily_batch(day(number), rows=300, seed=7, drift=turned)
        frame["observed_at"] += timedelta(hours=6)
        frame[["customer_id", "observed_at", "churned"]].to_parquet(labels / f"{number}.parquet")
    run = watch(world, model, 44)
    assert run.state == "success", run.errors
    said = rows(world, model)[-1].payload
    assert (said["matured"], said["decays"]) == ("20260212T000000Z", True), said["reason"]
    assert [wish["source"] for wish in said["wishes"]] == ["decay"]
    assert list(started(world, model)) == ["retrain__1__20260214T000000Z"]


def test_a_pass_that_fails_is_red_and_its_window_is_judged_later(watched: World) -> None:
    log(watched, "watched", 50, version="2")
    torn = "predictions/watched/date=2026-02-20/2-torn.parquet"
    watched.store.write_bytes(torn, b"PAR1 and no more")
    before = watched.ledger.head("watched")
    run = watch(watched, "watched", 50)
    assert run.state == "failed"
    assert run.failure[0] == "collect"
    assert "Traceback" not in run.failure[1]
    assert (run.tasks["report"], run.tasks["finish"]) == ("upstream_failed", "success")
    assert watched.ledger.head("watched") == before

    watched.store.delete(torn)
    assert watch(watched, "watched", 50).state == "success"
    row = rows(watched, "watched")[-1].payload
    assert (row["version"], row["rows"], row["wishes"]) == ("2", 300, [])


def test_a_replay_never_replaces_a_champion_of_the_present(world: World) -> None:
    model = "present"
    world.add_model(model, **SPEC)
    assert world.run(f"{model}__train").tasks["deploy.promote"] == "success"
    write_days(world.data(model), first=DAYS, days=20)
    run = world.run(f"{model}__train", {"trigger": "api", "as_of": end_of(45)})
    assert run.state == "success", run.errors
    assert (run.tasks["register"], run.tasks["deploy.promote"]) == ("success", "skipped")
    assert world.registry.aliases(model)["champion"] == "1"
    assert world.run(f"{model}__train").tasks["deploy.promote"] == "success", (
        "one of the present may"
    )
    assert world.registry.aliases(model)["champion"] == "3"
