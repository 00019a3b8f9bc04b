"""The shape of a monitor Dag, as the spec asks for it, and what parsing it costs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk import CronTriggerTimetable, TriggerRule
from airflow.sdk.api.datamodels._generated import DagRunType
from airflow.sdk.exceptions import AirflowRuntimeError, ParamValidationError
from airflow.sdk.execution_time.comms import ErrorResponse
from airflow.serialization.serialized_objects import DagSerialization
from evergreen.factory.monitoring import monitor_dag
from evergreen.factory.naming import retrain_run_id
from evergreen.factory.params import monitor_params, training_params
from evergreen.operators.monitor import pass_time
from evergreen.operators.stage import act_time, as_of

from include.errors import DataError
from include.monitor.windows import latest_window
from include.settings import ROOT
from include.spec import parameters
from include.spec.loader import load_spec
from include.spec.schema import Spec
from tests.airflow.test_parsing import SPEC, parse

SHAPE = {
    "collect": {
        "quality",
        "drift",
        "performance",
        "decide",
        "request_retrain",
        "report",
        "finish",
    },
    "quality": {"drift", "decide", "report"},
    "drift": {"performance", "decide", "report"},
    "performance": {"decide", "report"},
    "decide": {"request_retrain", "report"},
    "request_retrain": {"report"},
    "report": {"finish"},
    "finish": set(),
}


def spec(**changes: object) -> Spec:
    base = {
        "model": "small",
        "task": "binary",
        "owner": "growth",
        "ingest": {"source": {"kind": "file", "path": "data/*.csv"}, "target": "y"},
        "monitor": {"schedule": "5 0 * * *"},
    }
    return Spec.model_validate(base | changes)


def context(run_type: str = "manual", **params: object) -> SimpleNamespace:
    due = datetime(2026, 3, 1, 0, 5, tzinfo=UTC)
    run = SimpleNamespace(run_after=due, run_type=DagRunType(run_type))
    return {"params": params, "dag_run": run}


def test_shape() -> None:
    dag = monitor_dag(spec())
    assert {t.task_id: set(t.downstream_task_ids) for t in dag.tasks} == SHAPE


def test_settings_of_the_dag() -> None:
    dag = monitor_dag(spec())
    assert dag.dag_id == "small__monitor"
    assert (dag.max_active_runs, dag.catchup) == (1, False)
    assert isinstance(dag.schedule, CronTriggerTimetable)
    assert {"evergreen", "monitor", "small"} <= set(dag.tags)
    assert {t.owner for t in dag.tasks} == {"growth"}
    assert all(t.retries == 3 and t.execution_timeout for t in dag.tasks)
    assert dag.get_task("finish").is_teardown
    assert set(dag.params) == set(monitor_params())
    stored = DagSerialization.to_dict(dag)["dag"]
    assert not any(task["__var"].get("params") for task in stored["tasks"])


def test_a_skip_upstream_hides_no_failure() -> None:
    """A retrain that is skipped leaves the report; `all_done` would also let it follow a failure."""
    dag = monitor_dag(spec())
    rules = {t.task_id: t.trigger_rule for t in dag.tasks if t.trigger_rule != "all_success"}
    assert rules.pop("finish") == TriggerRule.ALL_DONE_SETUP_SUCCESS
    assert rules == {
        "decide": TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        "request_retrain": TriggerRule.NONE_FAILED,
        "report": TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
    }


def test_starting_a_run_is_tried_again_when_airflow_itself_is_away() -> None:
    dag = monitor_dag(spec())
    gone = AirflowRuntimeError(ErrorResponse())
    action = {
        t: dag.get_task(t).retry_policy.evaluate(gone, 1, 3).action.value
        for t in ("request_retrain", "decide")
    }
    assert action == {"request_retrain": "default", "decide": "fail"}


def test_people_are_told_of_drift_and_failure_where_they_ask_for_it() -> None:
    loud = monitor_dag(spec(notify={"on": ["drift", "failure"], "to": ["json://127.0.0.1"]}))
    assert loud.get_task("decide").on_success_callback
    assert loud.on_failure_callback
    quiet = monitor_dag(spec(notify={"on": ["drift", "failure"], "to": []}))
    assert not quiet.get_task("decide").on_success_callback
    assert not quiet.on_failure_callback


def test_the_same_spec_serialises_to_the_same_bytes() -> None:
    path = ROOT / "include/models/churn.yaml"
    one, two = (DagSerialization.to_json(monitor_dag(load_spec(path))) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("conf", "good"),
    [
        ({"force": True, "html": True, "as_of": "2026-03-01T00:00:00Z"}, True),
        ({"as_of": "2026-03-01T01:00:00+01:00"}, True),
        ({"as_of": "2026-03-01T00:00:00"}, False),
        ({"as_of": "yesterday"}, False),
        ({"html": 1}, False),
    ],
)
def test_parameters_are_checked(conf: dict[str, object], good: bool) -> None:
    params = monitor_dag(spec()).params
    for key, value in conf.items():
        if good:
            params[key] = value
        else:
            with pytest.raises(ParamValidationError):
                params[key] = value
    params.validate()


def test_the_time_a_run_acts_by() -> None:
    given = context(as_of="2026-02-01T01:00:00+01:00")
    moment = datetime(2026, 2, 1, tzinfo=UTC)
    assert as_of(given) == act_time(given) == pass_time(given) == moment
    plain = context(as_of=None)
    assert as_of(plain) is None
    assert abs(datetime.now(UTC) - act_time(plain)) < timedelta(minutes=1)
    assert pass_time(plain) == datetime(2026, 3, 1, 0, 5, tzinfo=UTC), "not the time of the attempt"


@pytest.mark.parametrize("given", ["2999-01-01T00:00:00Z", "2026-01-01T00:00:00", "soon"])
def test_nobody_acts_in_the_future_or_at_no_time(given: str) -> None:
    with pytest.raises(DataError, match="as_of: must be a past time with its zone"):
        as_of(context(as_of=given))


def test_a_run_id_names_version_and_window() -> None:
    window = latest_window(datetime(2026, 3, 1, 5, tzinfo=UTC), timedelta(days=1))
    assert retrain_run_id("3", window.key) == "retrain__3__20260228T000000Z"
    assert retrain_run_id("3", window.key, 2) == "retrain__3__20260228T000000Z__2"


# --- parsing --------------------------------------------------------------------------------------------


def test_shipped_monitors_parse_without_ml_libraries() -> None:
    found = parse(file="monitoring.py")
    assert found == {"dags": ["churn__monitor"], "heavy": []}


def test_only_a_spec_with_a_schedule_is_watched_and_a_broken_one_hurts_nobody(
    tmp_path: Path,
) -> None:
    (tmp_path / "quiet.yaml").write_text(SPEC.format(name="quiet"))
    (tmp_path / "bad.yaml").write_text("model: bad\ntask: binry\n")
    for name in ("one", "two"):
        watched = SPEC.format(name=name) + "monitor: {schedule: '@daily'}\n"
        (tmp_path / f"{name}.yaml").write_text(watched)
    assert parse(tmp_path, file="monitoring.py")["dags"] == ["one__monitor", "two__monitor"]
    context = {"_AIRFLOW_PARSING_CONTEXT_DAG_ID": "two__monitor"}
    assert parse(tmp_path, file="monitoring.py", **context)["dags"] == ["two__monitor"]
    assert parse(tmp_path, **context)["dags"] == []


def test_the_names_checked_without_airflow_are_those_of_the_dags() -> None:
    assert tuple(training_params()) == parameters.TRAINING
    assert tuple(monitor_params()) == parameters.MONITORING
