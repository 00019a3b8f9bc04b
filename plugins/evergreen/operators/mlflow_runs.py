"""MLflow runs from any Dag: start, log, finish, reap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evergreen.operators.mlflow_base import MlflowOperator
from evergreen.operators.stage import run_key, utc_now
from include.errors import DataError

if TYPE_CHECKING:
    from airflow.sdk import Context


class MlflowStartRunOperator(MlflowOperator):
    """Opens the MLflow run of this Dag run; a retry or a clear finds the same one.

    Returns the run id.

    Args:
        experiment: Name of the experiment; made when missing.
        run_name: Name people see; None is the Dag run's id.
        tags: Tags of the run.
    """

    template_fields: Sequence[str] = (
        *MlflowOperator.template_fields,
        "experiment",
        "run_name",
        "tags",
    )

    def __init__(
        self,
        *,
        experiment: str,
        run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.experiment = experiment
        self.run_name = run_name
        self.tags = tags

    def work(self, context: Context) -> str:
        """Find or create the run."""
        run = context["dag_run"]
        run_id = self.registry.ensure_run(
            self.experiment,
            f"{run_key(context)}/{self.task_id}",
            self.run_name or run.run_id,
            {"airflow.dag_id": run.dag_id, "airflow.run_id": run.run_id, **(self.tags or {})},
        )
        self.link_run(context, run_id)
        return run_id


class MlflowLogOperator(MlflowOperator):
    """Logs metrics, parameters and tags in one batch; logging the same again changes nothing.

    Args:
        run_id: The run, usually `.output` of `MlflowStartRunOperator`.
        metrics: Number by name.
        run_params: Value by name; MLflow never changes one that is set. (`params` is Airflow's own word.)
        tags: Text by name.
    """

    template_fields: Sequence[str] = (
        *MlflowOperator.template_fields,
        "run_id",
        "metrics",
        "run_params",
        "tags",
    )

    def __init__(
        self,
        *,
        run_id: str,
        metrics: Mapping[str, float] | None = None,
        run_params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.metrics = metrics
        self.run_params = run_params
        self.tags = tags

    def work(self, context: Context) -> None:
        """Log the batch."""
        self.registry.log(self.run_id, metrics=self.metrics, params=self.run_params, tags=self.tags)
        self.link_run(context, self.run_id)


class MlflowLogArtifactsOperator(MlflowOperator):
    """Uploads a folder to a run.

    Args:
        run_id: The run.
        folder: Folder on the worker.
        path: Where in the run's artifacts; empty is their top.
    """

    template_fields: Sequence[str] = (*MlflowOperator.template_fields, "run_id", "folder", "path")

    def __init__(self, *, run_id: str, folder: str, path: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.folder = folder
        self.path = path

    def work(self, context: Context) -> None:
        """Upload."""
        folder = Path(self.folder)
        if not folder.is_dir():
            raise DataError(
                f"task {self.task_id}: folder",
                f"must be a folder, got {self.folder!r}",
                "Correct the path.",
            )
        self.registry.log_artifacts(self.run_id, folder, self.path)
        self.link_run(context, self.run_id)


class MlflowFinishRunOperator(MlflowOperator):
    """Closes a run; make it a teardown, so that a failure does not leave the run open.

    Args:
        run_id: The run.
        status: How it ended.
    """

    template_fields: Sequence[str] = (*MlflowOperator.template_fields, "run_id", "status")

    def __init__(
        self,
        *,
        run_id: str,
        status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.status: Any = status

    def work(self, context: Context) -> None:
        """Close the run."""
        if self.run_id:
            self.registry.finish_run(self.run_id, self.status)
            self.link_run(context, self.run_id)


class MlflowReapRunsOperator(MlflowOperator):
    """Closes runs that dead workers left open. Returns their ids.

    Args:
        older_than: Runs opened longer ago than this are taken for dead.
        experiment: Only this experiment's runs; None is all.
        keep: Ids of runs to leave alone.
    """

    template_fields: Sequence[str] = (*MlflowOperator.template_fields, "experiment", "keep")

    def __init__(
        self,
        *,
        older_than: timedelta,
        experiment: str | None = None,
        keep: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.older_than = older_than
        self.experiment = experiment
        self.keep = keep

    def work(self, context: Context) -> list[str]:  # noqa: ARG002  # Airflow's signature
        """Close the runs."""
        return self.registry.reap_runs(
            self.experiment, older_than=self.older_than, now=utc_now(), keep=self.keep
        )
