"""The shape of a training Dag, as the spec asks for it."""

from datetime import timedelta

import pytest
from airflow.sdk import Asset, AssetOrTimeSchedule, CronTriggerTimetable
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization
from evergreen.factory.naming import config_error_dag_id, fingerprint
from evergreen.factory.training import config_error_dag, training_dag

from include.errors import DataError, ServiceError, SpecError
from include.settings import ROOT
from include.spec.loader import load_spec
from include.spec.schema import Spec


def spec(**changes: object) -> Spec:
    base = {
        "model": "small",
        "task": "binary",
        "owner": "growth",
        "ingest": {"source": {"kind": "file", "path": "data/*.csv"}, "target": "y"},
    }
    return Spec.model_validate(base | changes)


SHAPE = {
    "admit": {"ingest"},
    "ingest": {"validate", "train.tune", "train.fit", "evaluate", "register", "deploy", "finish"},
    "validate": {"train.tune", "train.fit", "evaluate", "register"},
    "train.tune": {"train.fit"},
    "train.fit": {"evaluate", "register"},
    "evaluate": {"register", "deploy"},
    "register": {"deploy"},
    "deploy": {"finish"},
    "finish": set(),
}


def test_shape() -> None:
    dag = training_dag(spec())
    assert {t.task_id: set(t.downstream_task_ids) for t in dag.tasks} == SHAPE


def test_a_person_stands_between_register_and_deploy_where_asked() -> None:
    dag = training_dag(
        spec(register={"approval": {"manual": {"approvers": ["ann"], "timeout": "2h"}}})
    )
    approve = dag.get_task("approve")
    assert approve.downstream_task_ids == {"deploy"}
    assert "register" in approve.upstream_task_ids
    assert approve.response_timeout == timedelta(hours=2)
    assert approve.defaults == ["Reject"]
    assert approve.assigned_users == [{"id": "ann", "name": "ann"}]


def test_settings_of_the_dag() -> None:
    dag = training_dag(spec())
    assert dag.max_active_runs == 1
    assert dag.catchup is False
    assert dag.timetable.__class__.__name__ == "NullTimetable"
    assert {"evergreen", "small", "binary"} <= set(dag.tags)
    assert "path: data/*.csv" in dag.doc_md
    assert {t.owner for t in dag.tasks} == {"growth"}
    assert all(t.retries == 3 for t in dag.tasks)
    assert all(t.execution_timeout for t in dag.tasks)
    assert dag.get_task("finish").is_teardown


@pytest.mark.parametrize(
    ("retrain", "kind"),
    [
        ({"schedule": "0 2 * * *", "timezone": "Europe/Berlin"}, CronTriggerTimetable),
        ({"schedule": "0 2 * * *", "on": ["data"]}, AssetOrTimeSchedule),
        ({"on": ["data"]}, list),
    ],
)
def test_schedules(retrain: dict[str, object], kind: type) -> None:
    schedule = training_dag(spec(retrain=retrain)).schedule
    assert isinstance(schedule, kind)
    if kind is list:
        assert schedule == [Asset(name="small_data", uri="x-evergreen://data/small")]


def test_the_same_spec_serialises_to_the_same_bytes() -> None:
    path = ROOT / "include/models/churn.yaml"
    one, two = (DagSerialization.to_json(training_dag(load_spec(path))) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("conf", "good"),
    [
        ({}, True),
        ({"reason": "new batch", "force": True, "trigger": "api"}, True),
        ({"force": "yes"}, False),
        ({"trigger": "somebody"}, False),
        ({"reason": 7}, False),
    ],
)
def test_parameters_are_checked(conf: dict[str, object], good: bool) -> None:
    params = training_dag(spec()).params
    for key, value in conf.items():
        if good:
            params[key] = value
        else:
            with pytest.raises(ParamValidationError):
                params[key] = value
    params.validate()


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (ServiceError("MLflow", "must answer", "Start it."), "default"),
        (ConnectionError("gone"), "default"),
        (DataError("file", "must exist", "Write it."), "fail"),
        (ZeroDivisionError("a bug"), "fail"),
    ],
)
def test_only_transient_faults_are_tried_again(error: Exception, action: str) -> None:
    policy = training_dag(spec()).get_task("ingest").retry_policy
    assert policy.evaluate(error, 1, 3).action.value == action


def test_broken_spec_has_a_dag_that_says_why(tmp_path) -> None:
    error = SpecError("include/models/bad.yaml: task", "must be one of binary", "Correct it.")
    dag = config_error_dag(tmp_path / "my bad.yaml", error)
    assert dag.dag_id == config_error_dag_id("my bad") == "my_bad__config_error"
    assert dag.timetable.__class__.__name__ == "NullTimetable"
    assert str(error) in dag.doc_md
    with pytest.raises(Exception, match="must be one of binary"):
        dag.get_task("config_error").execute({})


def test_fingerprint_depends_on_both_parts() -> None:
    assert fingerprint("a", "b") == fingerprint("a", "b")
    assert len({fingerprint("a", "b"), fingerprint("b", "a"), fingerprint("ab", "")}) == 3
