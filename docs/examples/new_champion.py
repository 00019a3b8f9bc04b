"""Does something whenever a model has a new champion, whoever promoted it and wherever.

(Evergreen's own promotions also update the asset `x-evergreen://champion/<model>`: a Dag scheduled on that asset
needs no sensor.)
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Variable, task
from evergreen.operators.mlflow_sensors import MlflowAliasSensor

MODEL = "wine"
SEEN = f"{MODEL}_champion_seen"


@task
def seen() -> str | None:
    """Read the version that was handled last; None at first."""
    return Variable.get(SEEN, default=None)


@task
def react(version: str) -> str:
    """Do what has to be done with a new champion, then remember it."""
    print(f"{MODEL} has a new champion: version {version}")
    Variable.set(SEEN, version)
    return version


with DAG(
    "example_new_champion",
    schedule="@continuous",  # as soon as one run ends, the next begins to wait
    max_active_runs=1,
    catchup=False,
    tags=["example"],
    doc_md=__doc__,
):
    wait = MlflowAliasSensor(
        task_id="wait",
        name=MODEL,
        alias="champion",
        other_than=seen(),
        poll_interval=timedelta(seconds=5),
        timeout=timedelta(days=1),
    )
    react(wait.output)
