"""Tasks are killed in the middle of every stage; what is left must be one of everything, and a served champion."""

from pathlib import Path

import pytest

from include.stack.airflow_client import RunResult
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CREATE_RUN = "mlflow.tracking.client:MlflowClient.create_run"
PUT_FILE = "include.store.folder:FolderStore.put_file"
RECORD = "include.ledger.ledger:Ledger.record"
SET_ALIAS = "mlflow.tracking.client:MlflowClient.set_registered_model_alias"
REGISTER = "include.registry.gateway:Registry.register"
NOMINATE = "include.registry.promotion:nominate"

# One kill in each stage; three models, so that each stage is hit at three different instants.
KILLS = {
    "early": [
        ("admit", "include.ledger.ledger:Ledger.decide", "enter", 1),
        ("ingest", PUT_FILE, "leave", 1),  # files written, no manifest
        ("validate", "include.validate.stage:validate", "enter", 1),
        ("train.tune", "include.train.objective:Objective._fold_value", "leave", 3),
        ("train.fit", "include.train.fit:fit", "enter", 1),
        ("evaluate", "include.evaluate.evaluate:evaluate", "leave", 1),
        ("register", "mlflow.tracking.client:MlflowClient.create_logged_model", "leave", 1),
        ("deploy.smoke", "include.deploy.rollout:smoke", "enter", 1),
        ("finish", "include.registry.runs:Runs.finish_run", "enter", 1),
    ],
    "midway": [
        ("admit", "include.ledger.ledger:Ledger.decide", "leave", 1),
        ("ingest", "include.store.snapshots:commit_snapshot", "leave", 1),  # no MLflow run yet
        ("validate", "include.registry.runs:Runs.log_artifacts", "leave", 1),
        ("train.tune", CREATE_RUN, "leave", 1),  # a trial is open in MLflow, and empty
        ("train.fit", PUT_FILE, "leave", 1),
        ("evaluate", RECORD, "enter", 1),
        ("register", "mlflow.tracking.client:MlflowClient.log_model_artifacts", "leave", 1),
        ("deploy.promote", RECORD, "leave", 1),  # the promotion is written, MLflow does not know
        ("finish", "include.registry.runs:Runs.finish_run", "leave", 1),
    ],
    "late": [
        ("ingest", CREATE_RUN, "leave", 1),  # a run nobody knows the id of
        ("validate", "include.store.split:plan_split", "leave", 1),
        ("train.tune", "include.registry.runs:Runs.log_trials", "leave", 1),
        ("train.fit", "include.registry.runs:Runs.log", "leave", 1),
        ("evaluate", RECORD, "leave", 1),
        ("register", "mlflow.tracking.client:MlflowClient.create_model_version", "leave", 1),
        (
            "deploy.promote",
            SET_ALIAS,
            "leave",
            1,
        ),  # champion in MLflow, the move not yet marked as done
    ],
    "last": [
        ("ingest", "include.registry.runs:Runs.ensure_run", "leave", 1),
        ("register", NOMINATE, "leave", 1),
        (
            "deploy.promote",
            "include.deploy.rollout:take_over",
            "leave",
            1,
        ),  # all is done, the task is not
    ],
}


@pytest.fixture(scope="module")
def crashed(stack: Stack) -> dict[str, tuple[RunResult, list[Path]]]:
    """Train all models at the same time, with the kills; return how each run ended."""
    wires: dict[str, list[Path]] = {}
    for name, kills in KILLS.items():
        wires[name] = [stack.lay_wire("kill", name, *kill) for kill in kills]
        stack.add_model(name)
    for name in KILLS:
        stack.trigger(name, "crash")
    return {name: (stack.wait(name, "crash", 600), wires[name]) for name in KILLS}


@pytest.mark.parametrize("name", KILLS)
def test_a_run_whose_tasks_are_killed_leaves_one_of_everything(
    stack: Stack, crashed: dict[str, tuple[RunResult, list[Path]]], name: str
) -> None:
    result, wires = crashed[name]
    assert result.state == "success", [
        (t.name, stack.airflow.last_words(result.dag_id, "crash", t)) for t in result.failed_tasks
    ]
    assert [wire.name for wire in wires if not wire.exists()] == []
    tries = {task.task_id: 0 for task in result.tasks}
    for task in result.tasks:
        tries[task.task_id] = max(tries[task.task_id], task.try_number)
    for task_id, *_ in KILLS[name]:
        assert tries[task_id] == 2, tries
    stack.assert_one_of_everything(name, "crash")
