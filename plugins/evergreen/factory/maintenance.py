"""Makes the Dag that cleans up, for all models together.

close_runs -> expire_requests, compact_logs, plan -> prune
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable, Param

from evergreen.factory.retries import retry_arguments
from evergreen.operators.prune import PlanOperator, PruneOperator
from evergreen.operators.reap import CloseRunsOperator, CompactLogsOperator, ExpireRequestsOperator

REAP_DAG_ID = "evergreen__reap"
# Off the hours and half hours at which schedules of models tend to be.
_DAILY = "47 3 * * *"
_DOC = """Removes what nothing needs any more: see *Clean-up* in `docs/operating.md`.

* `close_runs` closes MLflow runs that killed workers left open,
* `expire_requests` gives up wishes to retrain that nobody answered for long,
* `compact_logs` makes one file of the many small ones of each past day of predictions,
* `plan` lists what may go, with size and reason, and removes nothing,
* `prune` removes exactly that, after another look at each.

A run by hand stops after the plan, unless `dry_run` is false.
"""


def reap_dag() -> DAG:
    """Return the clean-up's Dag."""
    with DAG(
        REAP_DAG_ID,
        description="Removes what dead workers, refused data and time left behind",
        # As for models: a timedelta of zero never runs a tick that lies in the past.
        schedule=CronTriggerTimetable(_DAILY, timezone="UTC", run_immediately=timedelta(0)),
        catchup=False,
        max_active_runs=1,
        tags=["evergreen", "maintenance"],
        doc_md=_DOC,
        default_args={
            "owner": "evergreen",
            "execution_timeout": timedelta(hours=6),
            **retry_arguments(),
        },
        render_template_as_native_obj=True,
    ) as dag:
        close = CloseRunsOperator(task_id="close_runs")
        expire = ExpireRequestsOperator(task_id="expire_requests")
        compact = CompactLogsOperator(task_id="compact_logs")
        plan = PlanOperator(task_id="plan")
        prune = PruneOperator(task_id="prune", plan=plan.output)
        # All need an MLflow that answers, which `close_runs` finds out, and none the success of another.
        close >> [expire, compact, plan]
        plan >> prune
    dag.params.update({"dry_run": _dry_run()})
    return dag


def _dry_run() -> Param:
    return Param(
        None,
        type=["null", "boolean"],
        title="Dry run",
        description="Only say what would be done. Left empty: yes by hand, no on schedule.",
    )
