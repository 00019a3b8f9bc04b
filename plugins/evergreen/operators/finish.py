"""`finish`: whatever happened, the MLflow run does not stay open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
        states = context["ti"].get_task_states(
            dag_id=self.dag_id, run_ids=[context["dag_run"].run_id]
        )
        failed = sorted(
            task
            for tasks in states.values()
            for task, state in tasks.items()
            if state in ("failed", "upstream_failed")
        )
        self.bench.registry.finish_run(self.data["run_id"], "FAILED" if failed else "FINISHED")
        self.log.info(
            "run %s closed%s",
            self.data["run_id"],
            f"; failed: {', '.join(failed)}" if failed else "",
        )
