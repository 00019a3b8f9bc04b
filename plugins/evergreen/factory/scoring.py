"""Makes the scoring Dag of a model from its spec.

score -> shadow
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable

from evergreen.factory.assets import scores_asset
from evergreen.factory.naming import score_dag_id
from evergreen.factory.params import score_params
from evergreen.factory.retries import retry_arguments
from evergreen.notify import notifiers
from evergreen.operators.score import ScoreOperator, ShadowOperator
from include.spec.schema import Spec
from include.spec.score import Score

_TIMEOUT = timedelta(hours=12)
_DOC = """# {model}

Predicts whole batches of rows with the champion, one partition a run: the date of the run, or the one that is given.
A partition that was scored before is replaced. Where there is a challenger, `shadow` has it predict the same rows,
for the log only.
"""


def score_dag(spec: Spec) -> DAG:
    """Return a model's scoring Dag; its spec must have a section `score`."""
    with DAG(
        score_dag_id(spec.model),
        description=f"Scores batches of rows with {spec.model}",
        schedule=_schedule(spec.score) if spec.score else None,
        catchup=False,
        max_active_runs=1,
        tags=["evergreen", "score", spec.model, spec.task],
        doc_md=_DOC.format(model=spec.model),
        default_args={
            "owner": spec.owner,
            "execution_timeout": _TIMEOUT,
            **retry_arguments(),
        },
        on_failure_callback=notifiers(spec, "failure") or None,
        render_template_as_native_obj=True,
    ) as dag:
        scored = ScoreOperator(
            task_id="score", model=spec.model, outlets=[scores_asset(spec.model)]
        )
        ShadowOperator(task_id="shadow", model=spec.model, scored=scored.output)
    # Last: a task made later would hold a copy of its own, and Airflow checks and stores every copy.
    dag.params.update(score_params())
    return dag


def _schedule(section: Score) -> CronTriggerTimetable | None:
    if section.schedule is None:
        return None
    # A timedelta of zero is the only value that never runs a tick that lies in the past.
    return CronTriggerTimetable(
        section.schedule, timezone=section.timezone, run_immediately=timedelta(0)
    )
