"""MLflow runs from any Dag: start, log, finish, reap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from evergreen.operators.mlflow_base import MlflowOperator, failed_tasks, required, work_key
from evergreen.operators.stage import utc_now
from include.errors import DataError

if TYPE_CHECKING:
    from airflow.sdk import Context

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


class MlflowStartRunOperator(MlflowOperator):
    """Opens the MLflow run of this task; a retry or a clear finds the same one and opens it again.

    Returns the run's id.

    Args:
        experiment: Name of the experiment; made when missing.
        run_name: Name people see; None is the Dag run's id.
        tags: Tags of the run, under exactly these names.
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
        from include.registry.external import label_run

        run = context["dag_run"]
        run_id = self.registry.ensure_run(
            self.experiment,
            work_key(context),
            self.run_name or run.run_id,
            {"airflow.dag_id": run.dag_id, "airflow.run_id": run.run_id},
        )
        self.link_run(context, run_id)
        label_run(self.registry, run_id, self.tags or {})
        return run_id


class MlflowLogOperator(MlflowOperator):
    """Logs metrics, parameters and tags; logging the same again changes nothing.

    Args:
        run_id: The run, usually `.output` of `MlflowStartRunOperator`.
        metrics: Number by name; None is left out.
        run_params: Value by name (`params` is Airflow's own word). MLflow never changes a parameter that is
            set: another value later becomes the tag `evergreen.param.<name>`.
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
        metrics: Mapping[str, float | None] | None = None,
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
        """Log in batches."""
        from include.registry.external import label_run

        run_id, metrics = required("run_id", self.run_id), _numbers(self.metrics or {})
        self.link_run(context, run_id)
        self.registry.log(run_id, metrics=metrics, params=self.run_params)
        label_run(self.registry, run_id, self.tags or {})


class MlflowLogArtifactsOperator(MlflowOperator):
    """Uploads a folder to a run; files of the same name are replaced.

    Args:
        run_id: The run.
        folder: Folder that this task's worker can read.
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
        run_id, folder = required("run_id", self.run_id), Path(required("folder", self.folder))
        if not folder.is_dir():
            raise DataError(
                "folder",
                f"must be a folder on this worker, got {self.folder!r}",
                "Correct it, or let both tasks see the same disk.",
            )
        self.link_run(context, run_id)
        self.registry.log_artifacts(run_id, folder, self.path)


class MlflowFinishRunOperator(MlflowOperator):
    """Closes a run; make it a teardown, so that a failure does not leave the run open.

    Args:
        run_id: The run; nothing is done when the task that should open it did not.
        status: How it ended; None is `FAILED` when a task of this Dag run failed, else `FINISHED`.
    """

    template_fields: Sequence[str] = (*MlflowOperator.template_fields, "run_id", "status")

    def __init__(self, *, run_id: str, status: RunStatus | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.status = status

    def work(self, context: Context) -> None:
        """Close the run."""
        if self.run_id in (None, "", "None"):
            self.log.info("no run was opened")
            return
        status = self.status
        if status is None:
            failed = failed_tasks(context)
            status = "FAILED" if failed else "FINISHED"
            self.log.info("%s; failed tasks: %s", status, ", ".join(failed) or "none")
        if status not in get_args(RunStatus):
            raise DataError(
                "status",
                f"must be one of {', '.join(get_args(RunStatus))}, got {status!r}",
                "Correct the task's arguments.",
            )
        self.link_run(context, self.run_id)
        self.registry.finish_run(self.run_id, status)


class MlflowReapRunsOperator(MlflowOperator):
    """Closes runs that dead workers left open. Returns their ids.

    Only runs that these operators opened are touched.

    Args:
        older_than: Runs opened longer ago than this are taken for dead: longer than your longest training.
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
        if self.older_than <= timedelta(0):
            raise DataError(
                "older_than", f"must be positive, got {self.older_than}", "Use hours or days."
            )
        keep = [self.keep] if isinstance(self.keep, str) else list(self.keep)
        closed = self.registry.reap_runs(
            self.experiment, older_than=self.older_than, now=utc_now(), keep=keep
        )
        self.log.info("closed %d runs: %s", len(closed), ", ".join(closed) or "none")
        return closed


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    numbers: dict[str, float | None] = {}
    for name, value in metrics.items():
        try:
            numbers[name] = None if value is None else float(value)
        except (TypeError, ValueError):
            raise DataError(
                f"metrics: {name}", f"must be a number, got {value!r}", "Log text as a tag."
            ) from None
    return numbers
