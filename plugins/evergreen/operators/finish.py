"""`finish`: whatever happened, the MLflow run does not stay open and no challenger keeps its traffic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evergreen.operators.mlflow_base import failed_tasks
from evergreen.operators.stage import StageOperator, run_key, utc_now
from include.errors import ConflictError

if TYPE_CHECKING:
    from airflow.sdk import Context


class FinishOperator(StageOperator):
    """Ends the run's rollout and closes its MLflow run; a teardown, so it runs in every case.

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
        """End the rollout, then close the run.

        Raises:
            ConflictError: The run ended before its rollout was decided; raised when all is done.
        """
        abandoned = self._end_rollout(context)
        self._close_run(context)
        # Airflow takes a run that a person marked as failed for a success: what followed is skipped. Where it is not,
        # the run is red already, and the reason is that other task's.
        if abandoned is not None and not failed_tasks(context, ("upstream_failed",)):
            raise ConflictError(
                f"{self.model}: rollout of version {abandoned}",
                "must be decided before its run ends, got a run that ended first",
                "The champion has all traffic. Clear the run to roll it out again.",
            )

    def _close_run(self, context: Context) -> None:
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

    def _end_rollout(self, context: Context) -> str | None:
        """End a rollout of this run that nobody decided: somebody ended the run, or one of its tasks failed.

        One that was decided may still have its traffic: whoever wrote that down may not have reached MLflow.

        Returns:
            The version whose rollout ended so, also at an earlier try of this; None for none.
        """
        from include.registry.rollouts import end, latest, settle

        standing = latest(self.bench.ledger, self.model)
        if standing is None or standing.actor != run_key(context):
            return None
        if standing.active:
            standing = end(
                self.bench.registry,
                self.bench.ledger,
                self.model,
                standing.rollout.id,
                outcome="ABANDONED",
                reason="its run ended before it was decided",
                actor=run_key(context),
                now=utc_now(),
            )
        else:
            settle(self.bench.registry, self.bench.ledger, self.model)
        # A run that was cleared began anew: what was left of it before is no fault of this time.
        if standing is None or standing.ended is None or standing.outcome != "ABANDONED":
            return None
        began = context["dag_run"].start_date
        return standing.rollout.version if began is None or standing.ended >= began else None
