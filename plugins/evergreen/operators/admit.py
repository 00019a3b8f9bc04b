"""`admit`: the arbiter's answer to a wish to retrain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evergreen.operators.stage import StageOperator, as_of, require_conf, run_key, skip, utc_now
from include.spec import parameters

if TYPE_CHECKING:
    from airflow.sdk import Context

_TRIGGERS = {"scheduled": "schedule", "asset_triggered": "data", "backfill": "manual"}


class AdmitOperator(StageOperator):
    """Asks the arbiter whether to retrain, and skips the run when the answer is no.

    Returns the decision: `verdict`, `reason`, `trigger`.
    """

    def work(self, context: Context) -> dict[str, Any]:
        """Decide once per run; a retry gets the same answer."""
        run, params = context["dag_run"], context["params"]
        require_conf(run.conf, parameters.TRAINING)
        trigger = params.get("trigger") or _TRIGGERS.get(str(run.run_type.value), "manual")
        decision = self.bench.ledger.decide(
            self.model,
            run_key=run_key(context),
            trigger=trigger,
            spec_retrain=self.bench.spec.retrain,
            now=utc_now(),
            force=bool(params.get("force")),
            wish=params.get("reason") or "",
            asked_by=run.triggering_user_name or run_key(context),
            as_of=as_of(context),
        )
        self.log.info("%s: %s", decision.verdict, decision.reason)
        if decision.verdict == "SKIP":
            skip(context, decision.reason)
        return {"verdict": decision.verdict, "reason": decision.reason, "trigger": trigger}
