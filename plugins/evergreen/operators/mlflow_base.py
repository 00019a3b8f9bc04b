"""Base of the MLflow operators that any Dag can use, with or without a spec."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from evergreen.hooks.mlflow_hook import MlflowHook
from evergreen.links import RUN_URL_KEY, MlflowRunLink
from evergreen.operators.stage import EvergreenOperator, run_key
from include.errors import DataError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.registry.gateway import Registry

_FAILED = ("failed", "upstream_failed")


class MlflowOperator(EvergreenOperator):
    """An operator that talks to MLflow through a connection of type `mlflow`.

    Args:
        mlflow_conn_id: Id of the connection.
    """

    operator_extra_links = (MlflowRunLink(),)
    template_fields: Sequence[str] = ("mlflow_conn_id",)
    ui_color = "#e0ecff"

    def __init__(
        self, *, mlflow_conn_id: str = MlflowHook.default_conn_name, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id

    @cached_property
    def hook(self) -> MlflowHook:
        """The hook of the connection."""
        return MlflowHook(self.mlflow_conn_id)

    @property
    def registry(self) -> Registry:
        """The gateway behind the hook."""
        return self.hook.registry

    def link_run(self, context: Context, run_id: str) -> None:
        """Put a link to the MLflow run on the task; before the work, so that a failed task has it too."""
        context["ti"].xcom_push(key=RUN_URL_KEY, value=self.hook.run_url(run_id))

    def link_version(self, context: Context, name: str, version: str | None) -> None:
        """Put a link to the run that made a version on the task, if there is one."""
        found = self.registry.get_version(name, version) if version else None
        if found is not None and found.run_id:
            self.link_run(context, found.run_id)


def work_key(context: Context) -> str:
    """Return what identifies a task's work: the same on every try, another for every mapped task."""
    ti = context["ti"]
    mapped = "" if ti.map_index is None or ti.map_index < 0 else f"/{ti.map_index}"
    return f"{run_key(context)}/{ti.task_id}{mapped}"


def failed_tasks(context: Context, states: Collection[str] = _FAILED) -> list[str]:
    """Return the tasks of this Dag run that failed so far, or are in other states."""
    run = context["dag_run"]
    found = context["ti"].get_task_states(dag_id=run.dag_id, run_ids=[run.run_id])
    return sorted(
        task for tasks in found.values() for task, state in tasks.items() if state in states
    )


def version_text(value: Any) -> str | None:
    """Return a version as MLflow wants it, whatever a template made of it; None for no version.

    Jinja writes None as "None", and Dags that render native objects turn "3" into 3.

    Raises:
        DataError: It is no version.
    """
    text = "" if value is None else str(value).strip()
    if text in ("", "None"):
        return None
    if not text.isdigit():
        raise DataError(
            "version", f"must be a version's number, got {text!r}", "Correct the task's arguments."
        )
    return text


def required_version(value: Any) -> str:
    """Return a version as MLflow wants it.

    Raises:
        DataError: There is none.
    """
    text = version_text(value)
    if text is None:
        raise DataError("version", "must be a version's number, got none", "Register one first.")
    return text


def required(name: str, value: Any) -> str:
    """Return a text that an upstream task had to give.

    Raises:
        DataError: It is empty.
    """
    text = "" if value is None else str(value).strip()
    if text in ("", "None"):
        raise DataError(name, "must be given, got nothing", "Pass what the task before returned.")
    return text
