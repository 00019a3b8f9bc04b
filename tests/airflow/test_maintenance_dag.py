"""The shape of the clean-up's Dag, and what a Dag processor pays for it."""

import json
import os
import subprocess
import sys
from datetime import timedelta

import pytest
from airflow.sdk import CronTriggerTimetable
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization
from evergreen.factory.maintenance import REAP_DAG_ID, reap_dag
from evergreen.operators.reap import PARAM_NAMES

from include.settings import ROOT
from tests.airflow.test_parsing import HEAVY

SHAPE = {
    # Each a leaf or on the way to one: the run fails with any of them, and none keeps another from its turn.
    "close_runs": {"expire_requests", "compact_logs", "plan"},
    "expire_requests": set(),
    "compact_logs": set(),
    "plan": {"prune"},
    "prune": set(),
}


def test_shape() -> None:
    assert {t.task_id: set(t.downstream_task_ids) for t in reap_dag().tasks} == SHAPE


def test_nothing_is_removed_unless_everything_before_went_well() -> None:
    # An MLflow that does not answer fails `close_runs`, and nothing after it runs.
    assert {t.trigger_rule.value for t in reap_dag().tasks} == {"all_success"}


def test_settings_of_the_dag() -> None:
    dag = reap_dag()
    schedule = dag.schedule
    assert isinstance(schedule, CronTriggerTimetable)
    assert schedule.run_immediately == timedelta(0)
    assert dag.max_active_runs == 1
    assert dag.catchup is False
    assert all(t.retries == 3 and t.execution_timeout for t in dag.tasks)
    assert "stops after the plan" in dag.doc_md
    one, two = (DagSerialization.to_json(reap_dag()) for _ in range(2))
    assert one == two


@pytest.mark.parametrize("value", [None, True, False])
def test_a_dry_run_may_be_asked_for(value: object) -> None:
    params = reap_dag().params
    assert tuple(params) == PARAM_NAMES
    params["dry_run"] = value
    params.validate()


@pytest.mark.parametrize("value", ["no", 0, "false"])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ParamValidationError):
        reap_dag().params["dry_run"] = value


_PARSE = """
import json, runpy, sys
dag = runpy.run_path(sys.argv[1])["dag"]
print(json.dumps([dag.dag_id, [m for m in json.loads(sys.argv[2]) if m in sys.modules]]))
"""


def test_the_file_parses_without_ml_libraries() -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
    answer = subprocess.run(
        [sys.executable, "-c", _PARSE, str(ROOT / "dags/maintenance.py"), json.dumps(HEAVY)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(answer.stdout.splitlines()[-1]) == [REAP_DAG_ID, []]
