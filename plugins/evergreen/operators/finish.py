"""`finish`: whatever happened, the MLflow run does not stay open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evergreen.operators.mlflow_base import failed_tasks
from evergreen.operators.stage import StageOperator, run_key

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

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment the run is in."""
        return self.model

    def work(self, context: Context) -> None:
        """Close the run."""
        registry = self.bench.registry
        # Killed between opening the run and returning, `ingest` leaves nothing but the run itself.
        run_id = (
            self.data["run_id"]
            if self.data
            else registry.find_run(self.experiment, run_key(context))
        )
        if run_id is None:
            self.log.info("no MLflow run was opened")
            return
        self.link_run(context, run_id)
        failed = failed_tasks(context)
        registry.finish_run(run_id, "FAILED" if failed else "FINISHED")
        self.log.info("run closed%s", f"; failed: {', '.join(failed)}" if failed else "")
