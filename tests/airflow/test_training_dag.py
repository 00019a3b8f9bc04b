"""The shape of a training Dag, as the spec asks for it."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

import pytest
from airflow.models.dagrun import DagRun
from airflow.sdk import Asset, AssetOrTimeSchedule, CronTriggerTimetable
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization
from evergreen.factory.naming import config_error_dag_id, fingerprint
from evergreen.factory.training import config_error_dag, training_dag
from evergreen.operators.deploy_step import next_look

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
    "ingest": {
        "validate",
        "train.tune",
        "train.fit",
        "evaluate",
        "register",
        "deploy.smoke",
        "deploy.promote",
        "finish",
    },
    "validate": {"train.tune", "train.fit", "evaluate", "register"},
    "train.tune": {"train.fit"},
    "train.fit": {"evaluate", "register"},
    "evaluate": {"register", "deploy.smoke", "deploy.promote"},
    "register": {"deploy.smoke", "deploy.promote"},
    "deploy.smoke": {"deploy.promote"},
    "deploy.promote": {"finish", "done"},
    "finish": set(),
    "done": set(),
}


def test_shape() -> None:
    dag = training_dag(spec())
    assert {t.task_id: set(t.downstream_task_ids) for t in dag.tasks} == SHAPE


class Instance(NamedTuple):
    """A task instance, as far as a run's state depends on it."""

    task_id: str
    state: str


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        ({}, "success"),
        ({"train.fit": "failed"}, "failed"),
        ({"deploy.promote": "failed"}, "failed"),
        ({"admit": "skipped"}, "success"),
        ({"deploy.smoke": "skipped"}, "success"),
        ({"deploy.smoke": "skipped", "finish": "failed"}, "failed"),  # ended by hand in a rollout
    ],
)
def test_what_a_run_ends_as(ends: dict[str, str], state: str) -> None:
    """As Airflow decides it: by the leaves, of which a teardown hides some."""
    dag = DagSerialization.from_json(DagSerialization.to_json(training_dag(spec())))
    states: dict[str, str] = {}
    for task in map(dag.get_task, SHAPE):  # in the order they run
        before = {states[name] for name in task.upstream_task_ids}
        follows = "success" if task.is_teardown else "skipped" if "skipped" in before else "success"
        if not task.is_teardown and before & {"failed", "upstream_failed"}:
            follows = "upstream_failed"
        states[task.task_id] = ends.get(task.task_id, follows)
    tis = [Instance(name, said) for name, said in states.items()]
    leaves = {ti.state for ti in DagRun._tis_for_dagrun_state(None, dag=dag, tis=tis)}
    assert ("failed" if leaves & {"failed", "upstream_failed"} else "success") == state


def test_a_person_stands_between_register_and_deploy_where_asked() -> None:
    dag = training_dag(
        spec(register={"approval": {"manual": {"approvers": ["ann"], "timeout": "2h"}}})
    )
    approve = dag.get_task("approve")
    assert approve.downstream_task_ids == {"deploy.smoke", "deploy.promote"}
    assert "register" in approve.upstream_task_ids
    assert approve.response_timeout == timedelta(hours=2)
    assert approve.defaults == ["Reject"]
    assert approve.assigned_users == [{"id": "ann", "name": "ann"}]


@pytest.mark.parametrize(
    ("rules", "tasks"),
    [
        ({"rollout": "direct"}, ["smoke", "promote"]),
        ({"rollout": "canary"}, ["smoke", "step_10", "step_50", "promote"]),
        ({"rollout": "canary", "steps": [5]}, ["smoke", "step_5", "promote"]),
        ({"rollout": "shadow"}, ["smoke", "shadow", "promote"]),
        ({"rollout": "ab", "steps": [50]}, ["smoke", "step_50", "decide", "promote"]),
        (
            {"rollout": "ab", "steps": [10, 50], "decide": "labels"},
            ["smoke", "step_10", "step_50", "decide", "promote"],
        ),
    ],
)
def test_the_steps_of_a_rollout(rules: dict[str, object], tasks: list[str]) -> None:
    labels = {"monitor": {"labels": {"delay": "1d"}}} if "decide" in rules else {}
    dag = training_dag(spec(deploy=rules, **labels))
    names = [f"deploy.{task}" for task in tasks]
    assert {t for t in dag.task_ids if t.startswith("deploy.")} == set(names)
    for before, after in pairwise(names):
        assert after in dag.get_task(before).downstream_task_ids
    assert "deploy.promote" in dag.get_task("finish").upstream_task_ids
    DagSerialization.to_json(dag)


def test_steps_have_the_shares_of_the_spec() -> None:
    dag = training_dag(spec(deploy={"rollout": "canary", "steps": [10, 50]}))
    found = [
        (dag.get_task(f"deploy.step_{n}").number, dag.get_task(f"deploy.step_{n}").share)
        for n in (10, 50)
    ]
    assert found == [(0, 0.1), (1, 0.5)]
    shadow = training_dag(spec(deploy={"rollout": "shadow"})).get_task("deploy.shadow")
    assert (shadow.number, shadow.share) == (0, 1.0)


def test_a_person_ends_an_ab_test_and_no_answer_is_a_no() -> None:
    decide = training_dag(spec(deploy={"rollout": "ab", "patience": "3h"})).get_task(
        "deploy.decide"
    )
    assert decide.response_timeout == timedelta(hours=3)
    assert decide.defaults == ["Reject"]


@pytest.mark.parametrize(
    ("hold", "age", "pause"),
    [
        (600, 0, 5),  # what is plainly broken goes home within seconds
        (600, 7, 7),
        (600, 300, 60),
        (600, 570, 30),  # at the hold's end
        (600, 601, 60),  # waiting for traffic
        (6, 0, 5),
        (6, 5, 1),
        (6, 7, 7),
        (86_400, 80_000, 300),
    ],
)
def test_the_judge_looks_early_and_at_the_end(hold: int, age: int, pause: int) -> None:
    since = datetime(2026, 3, 1, tzinfo=UTC)
    now = since + timedelta(seconds=age)
    assert next_look(timedelta(seconds=hold), since, now) == now + timedelta(seconds=pause)


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
