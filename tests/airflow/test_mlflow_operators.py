"""The general MLflow operators where no server is needed: arguments, triggers, time-outs."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.bases.operator import TriggerFailureReason
from airflow.sdk.exceptions import AirflowFailException, TaskDeferralError, TaskDeferred
from evergreen.operators.mlflow_base import failed_tasks, required_version, version_text, work_key
from evergreen.operators.mlflow_models import MlflowPromoteOperator, MlflowSetAliasOperator
from evergreen.operators.mlflow_runs import (
    MlflowFinishRunOperator,
    MlflowLogArtifactsOperator,
    MlflowLogOperator,
    MlflowReapRunsOperator,
)
from evergreen.operators.mlflow_sensors import MlflowAliasSensor
from evergreen.triggers import alias as alias_trigger
from evergreen.triggers.alias import AliasTrigger

from include.errors import DataError, ModelError, ServiceError


def context(map_index: int = -1, states: dict[str, Any] | None = None) -> Any:
    ti = SimpleNamespace(
        task_id="t", map_index=map_index, get_task_states=lambda **_: {"r": states or {}}
    )
    return {"dag_run": SimpleNamespace(dag_id="d", run_id="r"), "ti": ti}


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, None), ("", None), ("None", None), (" ", None), ("3", "3"), (3, "3"), (" 12 ", "12")],
)
def test_a_version_whatever_a_template_made_of_it(value: Any, text: str | None) -> None:
    assert version_text(value) == text


@pytest.mark.parametrize("value", ["champion", "3.0", -1, "v3", {"version": 3}])
def test_what_is_no_version(value: Any) -> None:
    with pytest.raises(DataError, match="version: must be a version's number"):
        version_text(value)


def test_a_missing_version_is_said() -> None:
    with pytest.raises(DataError, match="got none"):
        required_version("None")


def test_mapped_tasks_do_different_work() -> None:
    keys = [work_key(context(i)) for i in (-1, 0, 1)]
    assert keys == ["d/r/t", "d/r/t/0", "d/r/t/1"]


def test_failed_tasks() -> None:
    states = {"b": "failed", "a": "upstream_failed", "c": "success", "d": None, "e": "skipped"}
    assert failed_tasks(context(states=states)) == ["a", "b"]


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (MlflowLogOperator(task_id="t", run_id="None"), "run_id: must be given, got nothing"),
        (
            MlflowLogOperator(task_id="t", run_id="r", metrics={"auc": "high"}),
            "metrics: auc: must be a number, got 'high'",
        ),
        (
            MlflowLogArtifactsOperator(task_id="t", run_id="r", folder="/nowhere/at/all"),
            "folder: must be a folder on this worker, got '/nowhere/at/all'",
        ),
        (
            MlflowFinishRunOperator(task_id="t", run_id="r", status="DONE"),
            "status: must be one of FINISHED, FAILED, KILLED, got 'DONE'",
        ),
        (
            MlflowReapRunsOperator(task_id="t", older_than=timedelta(0)),
            "older_than: must be positive",
        ),
        (
            MlflowSetAliasOperator(
                task_id="t", name="m", alias="champion", version="1", expected=None
            ),
            "alias: must not be champion, which moves with a row in the ledger only",
        ),
        (
            MlflowPromoteOperator(task_id="t", name="m", version="", expected=None, reason="r"),
            "version: must be a version's number, got none",
        ),
    ],
)
def test_mistakes_end_the_task_at_once_in_one_line(operator: Any, message: str) -> None:
    with pytest.raises(AirflowFailException) as caught:
        operator.execute(context())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("run_id", [None, "", "None"])
def test_finishing_what_was_never_started(run_id: str | None) -> None:
    MlflowFinishRunOperator(task_id="t", run_id=run_id).execute(context())  # no connection is asked


def trigger(**changes: Any) -> AliasTrigger:
    base = {
        "mlflow_conn_id": "mlflow_default",
        "name": "m",
        "alias": "champion",
        "version": None,
        "other_than": None,
        "poll_seconds": 0.0,
    }
    return AliasTrigger(**(base | changes))


def test_any_triggerer_can_rebuild_it() -> None:
    from airflow.sdk._shared.module_loading import import_string

    path, arguments = trigger(version="3", poll_seconds=2.5).serialize()
    again = import_string(path)(**arguments)
    assert again.serialize() == (path, arguments)


@pytest.mark.parametrize(
    ("changes", "found", "wanted"),
    [
        ({}, None, False),
        ({}, "1", True),
        ({"version": "2"}, "1", False),
        ({"version": "2"}, "2", True),
        ({"other_than": "1"}, "1", False),
        ({"other_than": "1"}, "2", True),
        ({"other_than": "1"}, None, False),
        ({"version": "1", "other_than": "1"}, "1", False),
    ],
)
def test_what_is_waited_for(changes: dict[str, str], found: str | None, wanted: bool) -> None:
    assert trigger(**changes).wanted(found) is wanted


class Script:
    """A registry that answers with each of these in turn."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def aliases(self, name: str) -> dict[str, str]:
        assert name == "m"
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def events(monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_MLFLOW_DEFAULT", '{"conn_type": "mlflow", "host": "http://m:1"}'
    )

    def fired(watching: AliasTrigger, registry: Any) -> list[Any]:
        async def collect() -> list[Any]:
            return [event.payload async for event in watching.run()]

        monkeypatch.setattr(alias_trigger, "_open", lambda uri: registry)
        return asyncio.run(asyncio.wait_for(collect(), 30))

    return fired


def test_it_outlasts_an_outage(events) -> None:
    away = ServiceError("MLflow", "must answer, got nothing", "Start it.")
    registry = Script({}, away, away, {"champion": "1"}, {"champion": "2"})
    assert events(trigger(other_than="1"), registry) == [{"version": "2"}]
    assert registry.answers == []


def test_a_permanent_fault_ends_the_wait(events, monkeypatch) -> None:
    gone = ModelError("m", "must exist, got nothing", "Register it.")
    assert events(trigger(), Script({}, gone)) == [{"error": str(gone)}]
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", '{"conn_type": "mlflow"}')
    (event,) = events(trigger(), Script())
    assert "must have a host, got none" in event["error"]


def sensor(**changes: Any) -> MlflowAliasSensor:
    return MlflowAliasSensor(task_id="t", name="m", alias="champion", **changes)


def test_the_sensor_defers(monkeypatch) -> None:
    waiting = sensor(version=3, timeout=timedelta(minutes=5), poll_interval=timedelta(0))
    monkeypatch.setattr(waiting, "hook", SimpleNamespace(registry=Script({"champion": "2"})))
    with pytest.raises(TaskDeferred) as deferred:
        waiting.execute(context())
    assert deferred.value.method_name == "resume"
    assert deferred.value.timeout == timedelta(minutes=5)
    asked = deferred.value.trigger
    assert (asked.version, asked.other_than, asked.poll_seconds) == ("3", None, 1.0)


def test_time_is_up_once_and_for_all() -> None:
    waiting = sensor(timeout=timedelta(minutes=5))
    reason = {"error": TriggerFailureReason.TRIGGER_TIMEOUT}
    with pytest.raises(AirflowFailException, match=r"m@champion: must point at .* within 0:05:00"):
        waiting.resume_execution("__fail__", reason, context())
    with pytest.raises(TaskDeferralError):  # a triggerer's own failure may be tried again
        waiting.resume_execution("__fail__", {"error": "gone"}, context())
    with pytest.raises(AirflowFailException, match="no such"):
        waiting.resume(context(), {"error": "no such thing"})
