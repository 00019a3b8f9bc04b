"""The monitor under a real scheduler: its tasks are killed at every step, and nothing is lost or doubled."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.stack.airflow_client import RunResult
from include.store.files import open_store
from tests.e2e.stack import Stack
from tests.traffic import SHIFT, end_of, log_day

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
MODEL, DAYS = "guarded", (43, 44, 45)
RECORD = "include.ledger.ledger:Ledger.record"
REQUEST = "include.ledger.ledger:Ledger.request"
TRIGGER = "airflow.sdk.execution_time.task_runner:_handle_trigger_dag_run"

# One pass per day; a task that is named twice is killed on its first and on its second try.
KILLS = {
    43: [
        ("collect", "include.store.folder:FolderStore.put_file", "leave"),  # nobody knows its key
        ("drift", "include.monitor.drift:check_drift", "enter"),
        ("decide", RECORD, "enter"),
        ("request_retrain", TRIGGER, "enter"),
    ],
    44: [
        (
            "collect",
            "include.registry.runs:Runs.ensure_run",
            "leave",
        ),  # a run nobody knows the id of
        ("drift", "include.store.folder:FolderStore.write_bytes", "leave"),
        ("decide", RECORD, "leave"),  # the row is written, the request is not
        ("request_retrain", TRIGGER, "leave"),  # Airflow started the run, and nobody heard
    ],
    45: [
        ("decide", REQUEST, "enter"),
        ("decide", REQUEST, "leave"),  # the request is filed, the task is not done
    ],
}


@pytest.fixture(scope="module")
def guarded(stack: Stack) -> Stack:
    """The stack, with a champion whose world changed; retraining is frozen, so that it stays champion."""
    stack.add_model(
        MODEL,
        monitor={
            "schedule": "0 0 1 1 *",
            "min_rows": 100,
            "drift": {"share": 0.2, "violations": {"k": 1, "of": 1}},
        },
        retrain={"on": ["drift"]},
    )
    stack.trigger(MODEL, "first")
    result = stack.wait(MODEL, "first")
    assert result.state == "success", words(stack, result)
    stack.ledger.freeze(MODEL, "audit", key="f", actor="tests", now=datetime.now(UTC))
    store = open_store(stack.settings.store_uri)
    for number in DAYS:
        log_day(store, stack.registry, stack.home / "cache" / "tests", MODEL, number, drift=SHIFT)
    return stack


def words(stack: Stack, result: RunResult) -> list[str]:
    return [stack.airflow.last_words(result.dag_id, result.run_id, t) for t in result.failed_tasks]


def watch(stack: Stack, number: int) -> tuple[RunResult, list[Path]]:
    """Run the pass of a day with its kills."""
    wires = [stack.lay_wire("kill", MODEL, *kill, dag="monitor") for kill in KILLS[number]]
    stack.trigger(MODEL, f"day-{number}", {"as_of": end_of(number)}, dag="monitor")
    return stack.wait(MODEL, f"day-{number}", dag="monitor"), wires


def started(stack: Stack) -> list[str]:
    runs = stack.airflow.runs(f"{MODEL}__train")
    return sorted(r["dag_run_id"] for r in runs if r["dag_run_id"].startswith("retrain"))


@pytest.mark.parametrize("number", DAYS)
def test_a_pass_whose_tasks_are_killed_asks_once(guarded: Stack, number: int) -> None:
    count = DAYS.index(number) + 1
    if number == DAYS[-1]:
        guarded.ledger.unfreeze(MODEL, "done", key="u", actor="tests", now=datetime.now(UTC))
    result, wires = watch(guarded, number)
    assert result.state == "success", words(guarded, result)
    assert [wire.name for wire in wires if not wire.exists()] == []
    tries = {task.task_id: task.try_number for task in result.tasks}
    killed = [task for task, *_ in KILLS[number]]
    assert {task: tries[task] for task in killed} == {t: killed.count(t) + 1 for t in killed}

    rows = [event.payload for event in guarded.ledger.events(MODEL, "monitor")]
    assert [row["window"][:8] for row in rows] == [f"202602{n - 30}" for n in DAYS[:count]]
    asked = guarded.ledger.requests(MODEL, pending=False)
    assert [r.key for r in asked] == [f"drift/1/{row['window']}" for row in rows]
    assert started(guarded) == [f"retrain__1__{row['window']}" for row in rows]
    assert guarded.ledger.verify(MODEL).ok
    assert list(open_store(guarded.settings.store_uri).list("monitor/")) == []
    experiment = guarded.registry.experiment_id(f"{MODEL}-monitor")
    runs = guarded.registry.client.search_runs([experiment])
    assert [run.info.status for run in runs] == ["FINISHED"] * count


def test_what_was_asked_while_frozen_is_answered_by_one_run(guarded: Stack) -> None:
    last = started(guarded)[-1]
    assert guarded.wait(MODEL, last).state == "success"
    decisions = {e.payload["run"]: e.payload for e in guarded.ledger.events(MODEL, "decision")}
    said = [decisions[f"{MODEL}__train/{run}"] for run in started(guarded)]
    assert [d["verdict"] for d in said] == ["SKIP", "SKIP", "RETRAIN"]
    assert said[0]["reason"] == "the model is frozen: audit"
    assert len(said[2]["requests"]) == 3
    assert guarded.ledger.requests(MODEL) == []
    assert guarded.registry.aliases(MODEL) == {"champion": "1"}, "there was no new data"


def test_a_pass_links_to_its_run_its_report_and_what_it_started(guarded: Stack) -> None:
    def links(task: str) -> dict[str, str]:
        path = f"/dags/{MODEL}__monitor/dagRuns/day-43/taskInstances/{task}/links"
        found: dict[str, str] = guarded.airflow.request("GET", path, "Links")["extra_links"]
        return found

    run_id = guarded.airflow.xcom(f"{MODEL}__monitor", "day-43", "collect")["run_id"]
    for task in ("collect", "quality", "drift", "decide", "report", "finish"):
        assert links(task)["MLflow run"].endswith(run_id)
    assert links("report")["Monitoring report"].endswith(
        f"{run_id}/artifactPath/monitor/report.html"
    )
    [window] = {row.rpartition("__")[2] for row in started(guarded)[:1]}
    assert links("request_retrain")["Training run"] == (
        f"{guarded.settings.airflow}/dags/{MODEL}__train/runs/retrain__1__{window}"
    )
