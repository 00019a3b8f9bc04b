"""Makes the monitor Dag of a model from its spec.

collect -> quality -> drift -> performance -> decide -> request_retrain -> report;  finish in every case
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable, TriggerRule

from evergreen.factory.naming import monitor_dag_id
from evergreen.factory.params import monitor_params
from evergreen.factory.retries import retry_arguments, trigger_retry_policy
from evergreen.notify import notifiers
from evergreen.operators.monitor_checks import DriftOperator, PerformanceOperator, QualityOperator
from evergreen.operators.monitor_collect import CollectOperator
from evergreen.operators.monitor_decide import DecideOperator
from evergreen.operators.monitor_report import MonitorFinishOperator, ReportOperator
from evergreen.operators.monitor_retrain import RequestRetrainOperator
from include.spec.schema import Spec

_TIMEOUT = timedelta(hours=1)
_DOC = """# {model}

Watches the predictions of the champion: data quality, drift, and performance once labels are in. A window that was
judged is not judged again, unless `force` is set.

A wish to retrain goes to the ledger as a request, and `{model}__train` answers it: see `./evergreen history {model}`.
"""


def monitor_dag(spec: Spec) -> DAG:
    """Return a model's monitor Dag; its spec must have `monitor.schedule`."""
    with DAG(
        monitor_dag_id(spec.model),
        description=f"Watches the predictions of {spec.model}",
        # A timedelta of zero is the only value that never runs a tick that lies in the past.
        schedule=CronTriggerTimetable(
            str(spec.monitor.schedule), timezone="UTC", run_immediately=timedelta(0)
        ),
        catchup=False,
        max_active_runs=1,
        tags=["evergreen", "monitor", spec.model, spec.task],
        doc_md=_DOC.format(model=spec.model),
        default_args={
            "owner": spec.owner,
            "execution_timeout": _TIMEOUT,
            **retry_arguments(),
        },
        on_failure_callback=notifiers(spec, "failure") or None,
        render_template_as_native_obj=True,
    ) as dag:
        _tasks(spec)
    # Last: a task made later would hold a copy of its own, and Airflow checks and stores every copy.
    dag.params.update(monitor_params())
    return dag


def _tasks(spec: Spec) -> None:
    model = spec.model
    collect = CollectOperator(task_id="collect", model=model)
    found = collect.output
    quality = QualityOperator(task_id="quality", model=model, collected=found)
    drift = DriftOperator(task_id="drift", model=model, collected=found)
    performance = PerformanceOperator(task_id="performance", model=model, collected=found)
    results = {
        "collected": found,
        "quality": quality.output,
        "drift": drift.output,
        "performance": performance.output,
    }
    decide = DecideOperator(
        task_id="decide",
        model=model,
        # `performance` is skipped where there are no labels.
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        on_success_callback=notifiers(spec, "drift"),
        **results,
    )
    request = RequestRetrainOperator(
        task_id="request_retrain",
        model=model,
        collected=found,
        decided=decide.output,
        # Also where this pass was skipped: an earlier one's request may wait.
        trigger_rule=TriggerRule.NONE_FAILED,
        retry_policy=trigger_retry_policy(),
    )
    report = ReportOperator(
        task_id="report",
        model=model,
        decided=decide.output,
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        **results,
    )
    finish = MonitorFinishOperator(
        task_id="finish",
        model=model,
        data=found,
        # Once more: whoever dies between a task's end and its callback tells nobody.
        on_success_callback=notifiers(spec, "drift"),
    ).as_teardown()
    collect >> quality >> drift >> performance >> decide >> request >> report >> finish
