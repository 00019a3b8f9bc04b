"""`finish`: whatever happened, the MLflow run does not stay open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evergreen.operators.mlflow_base import failed_tasks
from evergreen.operators.stage import StageOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class FinishOperator(StageOperator):
    """Closes the run's MLflow run as finished or failed; a teardown, so it runs in every case.

    Args:
        data: What `ingest` returned, if it came that far.
    """

    template_fields: Sequence[str] = (*StageOperator.template_fields, "data")

    def __init__(self, *, data: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data = data

    def work(self, context: Context) -> None:
        """Close the run."""
        if not self.data:
            self.log.info("no MLflow run was opened")
            return
        self.link_run(context, self.data["run_id"])
        failed = failed_tasks(context)
        self.bench.registry.finish_run(self.data["run_id"], "FAILED" if failed else "FINISHED")
        self.log.info("run closed%s", f"; failed: {', '.join(failed)}" if failed else "")
