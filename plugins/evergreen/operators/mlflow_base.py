"""Base of the MLflow operators that any Dag can use, with or without a spec."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from evergreen.hooks.mlflow_hook import MlflowHook
from evergreen.links import RUN_URL_KEY, MlflowRunLink
from evergreen.operators.stage import EvergreenOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.registry.gateway import Registry


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
        """Put a link to the MLflow run on the task."""
        context["ti"].xcom_push(key=RUN_URL_KEY, value=self.hook.run_url(run_id))
