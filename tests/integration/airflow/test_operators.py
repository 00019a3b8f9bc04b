"""The general MLflow operators against a real MLflow: tried again, in conflict, with MLflow away."""

import itertools
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from evergreen.operators.mlflow_models import (
    MlflowPromoteOperator,
    MlflowRegisterModelOperator,
    MlflowRollbackOperator,
    MlflowSetAliasOperator,
)
from evergreen.operators.mlflow_runs import (
    MlflowFinishRunOperator,
    MlflowLogArtifactsOperator,
    MlflowLogOperator,
    MlflowReapRunsOperator,
    MlflowStartRunOperator,
)

from include.errors import ServiceError
from include.ledger.ledger import Ledger
from include.registry.gateway import Registry

_NUMBERS = itertools.count()


class Task:
    """What an operator sees of its task and Dag run."""

    def __init__(self, run: str = "r1", map_index: int = -1, **states: str) -> None:
        self.task_id, self.map_index, self.states = "t", map_index, states
        self.link: str | None = None
        self.run = SimpleNamespace(dag_id="d", run_id=run)

    def xcom_push(self, key: str, value: str) -> None:
        assert key == "mlflow_run_url"
        self.link = value

    def get_task_states(self, *, dag_id: str, run_ids: list[str]) -> dict[str, dict[str, str]]:
        assert (dag_id, run_ids) == ("d", [self.run.run_id])
        return {self.run.run_id: self.states}

    def does(self, operator: type, **arguments: Any) -> Any:
        return operator(task_id="t", **arguments).execute({"ti": self, "dag_run": self.run})


@pytest.fixture
def registry(world, mlflow_url) -> Registry:
    return Registry(mlflow_url)


@pytest.fixture
def ledger(world) -> Ledger:
    return Ledger(f"sqlite:///{world / 'ledger.db'}")


@pytest.fixture
def name() -> str:
    """A model nobody else uses."""
    return f"model_{next(_NUMBERS)}"


@pytest.fixture
def source(registry, name, tmp_path) -> str:
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    run_id = Task(name).does(MlflowStartRunOperator, experiment=name)
    Task(name).does(MlflowLogArtifactsOperator, run_id=run_id, folder=str(tmp_path), path="model")
    return f"runs:/{run_id}/model"


@pytest.fixture
def two(registry, name, source) -> tuple[str, str]:
    """Two versions, the first one champion."""
    one, other = (
        Task(key).does(MlflowRegisterModelOperator, name=name, source=source, key=key)
        for key in "ab"
    )
    promote = {"name": name, "version": one, "expected": None, "reason": "first"}
    assert Task("first").does(MlflowPromoteOperator, **promote) == one
    return one, other


def test_a_run_is_found_again(registry, name) -> None:
    start = {"experiment": name, "tags": {"team": "x"}}
    one = Task().does(MlflowStartRunOperator, **start)
    Task().does(MlflowFinishRunOperator, run_id=one)
    assert Task().does(MlflowStartRunOperator, **start) == one  # a cleared task: open again
    assert registry.client.get_run(one).info.status == "RUNNING"
    mapped = [Task(map_index=i).does(MlflowStartRunOperator, **start) for i in (0, 1)]
    other = Task("r2").does(MlflowStartRunOperator, **start)
    assert len({one, *mapped, other}) == 4


def test_logging_twice_changes_nothing(registry, name) -> None:
    run_id = Task().does(MlflowStartRunOperator, experiment=name)
    log = {"run_id": run_id, "metrics": {"auc": "0.5", "none": None}, "run_params": {"C": 1}}
    for _ in range(2):
        task = Task()
        task.does(MlflowLogOperator, **log, tags={"stage": "one"})
    made = registry.client.get_run(run_id).data
    assert made.metrics == {"auc": 0.5}
    assert (made.params, made.tags["stage"]) == ({"C": "1"}, "one")
    assert len(registry.client.get_metric_history(run_id, "auc")) == 1
    assert task.link == registry.run_url(run_id)
    Task().does(MlflowLogOperator, run_id=run_id, run_params={"C": 2})
    assert registry.client.get_run(run_id).data.tags["evergreen.param.C"] == "2"


@pytest.mark.parametrize(
    ("states", "status", "ended"),
    [
        ({"train": "success"}, None, "FINISHED"),
        ({"train": "failed", "log": "upstream_failed"}, None, "FAILED"),
        ({"train": "failed"}, "KILLED", "KILLED"),
    ],
)
def test_a_run_ends_as_its_dag_run_does(registry, name, states, status, ended) -> None:
    run_id = Task().does(MlflowStartRunOperator, experiment=name)
    Task(**states).does(MlflowFinishRunOperator, run_id=run_id, status=status)
    assert registry.client.get_run(run_id).info.status == ended


def test_registering_twice_is_registering_once(registry, name, source) -> None:
    register = {"name": name, "source": source, "tags": {"team": "x"}}
    task = Task()
    one = task.does(MlflowRegisterModelOperator, **register)
    assert task.link == registry.run_url(source.split("/")[1])
    assert Task("another run").does(MlflowRegisterModelOperator, **register) == one
    assert len(registry.versions(name)) == 1


def test_an_alias_moves_only_from_where_it_is_expected(registry, name, two) -> None:
    one, other = two
    move = {"name": name, "alias": "tested"}
    Task().does(MlflowSetAliasOperator, **move, version=int(one), expected="None")
    Task().does(MlflowSetAliasOperator, **move, version=one, expected=None)  # a retry
    with pytest.raises(AirflowFailException, match=f"alias tested must point at version {other}"):
        Task().does(MlflowSetAliasOperator, **move, version=other, expected=other)
    Task().does(MlflowSetAliasOperator, **move, version=other, expected=one)
    assert registry.aliases(name)["tested"] == other
    Task().does(MlflowSetAliasOperator, **move, version=None, expected=other)
    assert "tested" not in registry.aliases(name)
    with pytest.raises(AirflowFailException, match="must point at an existing version, got 77"):
        Task().does(MlflowSetAliasOperator, **move, version="77", expected=None)


def test_promotion_is_done_once_and_checked(registry, ledger, name, two) -> None:
    one, other = two
    promote = {"name": name, "version": other, "expected": one, "reason": "better"}
    for _ in range(2):
        assert Task().does(MlflowPromoteOperator, **promote) == other
    assert registry.aliases(name) == {"champion": other, "previous_champion": one}
    assert [e.payload["to"] for e in ledger.events(name, "promotion")] == [one, other]
    with pytest.raises(AirflowFailException, match=f"must be at None, got {other}"):
        Task("r2").does(MlflowPromoteOperator, **promote | {"version": one, "expected": None})


def test_a_retry_does_not_undo_what_a_person_did_since(registry, ledger, name, two) -> None:
    one, other = two
    promote = {"name": name, "version": other, "expected": one, "reason": "better"}
    Task().does(MlflowPromoteOperator, **promote)
    back = {"name": name, "reason": "it is wrong"}
    assert Task("by hand").does(MlflowRollbackOperator, **back) == one
    assert Task("by hand").does(MlflowRollbackOperator, **back) == one  # a retry of that
    with pytest.raises(AirflowFailException, match="somebody moved it since"):
        Task().does(MlflowPromoteOperator, **promote)
    assert registry.aliases(name)["champion"] == one
    assert ledger.verify(name).ok


def test_rollback_needs_somewhere_to_go(name, two) -> None:
    with pytest.raises(AirflowFailException, match="a rollback needs another version"):
        Task().does(MlflowRollbackOperator, name=name, reason="why not")
    with pytest.raises(AirflowFailException, match="must be a version's number, got 'latest'"):
        Task().does(MlflowRollbackOperator, name=name, reason="why not", to="latest")


def test_reaping_closes_the_old_and_keeps_the_named(registry, name) -> None:
    dead, alive = (Task(run).does(MlflowStartRunOperator, experiment=name) for run in "ab")
    time.sleep(0.05)
    reap = {"experiment": name, "older_than": timedelta(milliseconds=10)}
    assert Task().does(MlflowReapRunsOperator, **reap, keep=alive) == [dead]
    assert registry.client.get_run(dead).info.status == "KILLED"
    assert registry.client.get_run(alive).info.status == "RUNNING"


def test_mlflow_away_is_worth_another_try(world, monkeypatch) -> None:
    """A `ServiceError` goes through as it is: the task's retries are for it."""
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", '{"conn_type": "mlflow", "host": "http://127.0.0.1:1"}')
    begun = time.monotonic()
    with pytest.raises(ServiceError, match=r"MLflow at http://127\.0\.0\.1:1: must answer"):
        Task().does(MlflowStartRunOperator, experiment="e", mlflow_conn_id="away")
    assert time.monotonic() - begun < 10
