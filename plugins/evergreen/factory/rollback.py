"""Makes the two Dags that a person starts with a form: back to an earlier version, and its release."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param

from evergreen.factory.retries import retry_arguments
from evergreen.operators.rollback import FormRollbackOperator, FormUnpinOperator

ROLLBACK_DAG_ID, UNPIN_DAG_ID = "evergreen__rollback", "evergreen__unpin"
_ROLLBACK = """Brings an earlier version of a model back: see `docs/rollback.md`.

The version is tried first; one that fails moves nothing. Then it is pinned, a rollout that goes on is ended, it becomes
champion, and the run is done once every live serving process answers with it. Nothing is promoted until
`evergreen__unpin` releases it.
"""
_UNPIN = """Releases the pin that a rollback set. From then on a version that passes the gate is promoted again."""


def rollback_dag(models: Sequence[str]) -> DAG:
    """Return the Dag that brings a version back.

    Args:
        models: Those one may choose; at least one.
    """
    with _dag(ROLLBACK_DAG_ID, "Lets an earlier version of a model serve again", _ROLLBACK) as dag:
        FormRollbackOperator(
            task_id="rollback",
            model="{{ params.model }}",
            version="{{ params.version }}",
            reason="{{ params.reason }}",
        )
    dag.params.update({"model": _model(models), "version": _version(), "reason": _reason()})
    return dag


def unpin_dag(models: Sequence[str]) -> DAG:
    """Return the Dag that releases a pin.

    Args:
        models: Those one may choose; at least one.
    """
    with _dag(UNPIN_DAG_ID, "Lets a rolled-back model be promoted again", _UNPIN) as dag:
        FormUnpinOperator(task_id="unpin", model="{{ params.model }}", reason="{{ params.reason }}")
    dag.params.update({"model": _model(models), "reason": _reason()})
    return dag


def _dag(dag_id: str, description: str, doc: str) -> DAG:
    # Templates stay text: rendered as native objects, a reason "[1]" would be a list.
    arguments: dict[str, Any] = {
        "owner": "evergreen",
        "execution_timeout": timedelta(minutes=30),
        **retry_arguments(),
    }
    return DAG(
        dag_id,
        description=description,
        schedule=None,
        catchup=False,
        max_active_runs=1,
        tags=["evergreen", "rollback"],
        doc_md=doc,
        default_args=arguments,
        is_paused_upon_creation=False,  # it runs when somebody asks, and then at once
    )


def _model(models: Sequence[str]) -> Param:
    return Param(type="string", enum=list(models), title="Model")


def _version() -> Param:
    return Param(
        None,
        type=["null", "string"],
        pattern=r"^[0-9]*$",
        maxLength=10,
        title="Version",
        description="Which version. Left empty: the one that is pinned already, else the previous champion.",
    )


def _reason() -> Param:
    return Param(
        type="string",
        minLength=1,
        maxLength=500,
        pattern=r"\S",
        title="Reason",
        description="Why; kept in the ledger, and told to whom the spec names.",
    )
