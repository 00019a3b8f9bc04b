"""`deploy.decide`: a person ends an ab test, with the evidence in front of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator

from evergreen.operators.deploy_step import StepOperator
from evergreen.operators.stage import run_key, utc_now

if TYPE_CHECKING:
    from airflow.sdk import Context

_BODY = """Version **{version}** of **{model}** has answered {share:.0%} of the traffic since {since} UTC.

{reason}

| | champion ({champion}) | challenger ({version}) |
|---|---|---|
{rows}

No answer until {until} UTC is a no: the champion stays.
"""
_LEAST = timedelta(minutes=1)
_SHOWN = {
    "requests": "requests",
    "failures": "failures",
    "rows": "predictions",
    "p50_ms": "p50, ms",
    "p95_ms": "p95, ms",
}


class AskOperator(ApprovalOperator):
    """Asks whether the challenger shall take over; no answer in time is a no.

    Args:
        model: Name of the model.
        patience: Time to answer, from when the last step began.
        data: What `ingest` returned.
        verdict: What `evaluate` returned.
        version: What `register` returned.
        answer: What `approve` returned; None where nobody is asked before.
    """

    template_fields: Sequence[str] = (
        *ApprovalOperator.template_fields,
        "data",
        "verdict",
        "version",
        "answer",
    )

    def __init__(
        self,
        *,
        model: str,
        patience: timedelta,
        data: Any,
        verdict: Any,
        version: Any,
        answer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            subject=f"Promote the challenger of {model}?",
            body="",
            defaults=self.REJECT,
            response_timeout=patience,
            **kwargs,
        )
        self.model = model
        self.patience = patience
        self.data = data
        self.verdict = verdict
        self.version = version
        self.answer = answer

    @cached_property
    def step(self) -> StepOperator:
        """What looks at the log and ends the rollout; it is no task of the Dag."""
        return StepOperator(
            task_id=self.task_id.rpartition(".")[2],
            dag=None,
            task_group=None,
            number=-1,
            share=0.0,
            model=self.model,
            data=self.data,
            verdict=self.verdict,
            version=self.version,
            answer=self.answer,
        )

    def execute(self, context: Context) -> Any:
        """Show the evidence and park the task until somebody answers."""
        if why := self.step.goes_directly(context):
            self.log.info("nobody is asked: %s", why)
            return {"verdict": "GO", "reason": why}
        standing = self.step.plainly(lambda: self.step.standing_or_stop(context))
        if standing.wish is not None or not standing.active:
            return {"verdict": "GO", "reason": "decided before"}
        now = utc_now()
        # Asked again after a kill or a clear, people do not have all the time anew.
        self.response_timeout = max(_LEAST, self.patience - (now - standing.since))
        judged = self.step.look(standing)
        self.body = _BODY.format(
            model=self.model,
            version=standing.rollout.version,
            champion=standing.champion,
            share=standing.rollout.share,
            since=f"{standing.began:%Y-%m-%d %H:%M}",
            reason=judged.reason,
            until=f"{now + self.response_timeout:%Y-%m-%d %H:%M}",
            rows=_table(judged.numbers),
        )
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Write the answer into the ledger; a no ends the rollout, and what follows is skipped."""
        said = event.get("chosen_options")
        if said:
            who = (event.get("responded_by_user") or {}).get("name")
            yes = said == [self.APPROVE]
            if self.step.plainly(lambda: self._record(context, yes, who)):
                event = event | {"chosen_options": [self.APPROVE]}
        return super().execute_complete(context, event)

    def _record(self, context: Context, yes: bool, who: str | None) -> bool:
        """Write the answer down; return whether the challenger takes over.

        Where nobody answered, what somebody said elsewhere (`evergreen rollout --promote`) is the answer.
        """
        from include.registry.rollouts import end, wish_promotion

        bench, standing = self.step.bench, self.step.standing_or_stop(context)
        actor, now = who or "nobody in time", utc_now()
        if not standing.active or (who is None and standing.wish is not None):
            return True
        if yes:
            wish_promotion(bench.ledger, self.model, reason="approved", actor=actor, now=now)
            return True
        end(
            bench.registry,
            bench.ledger,
            self.model,
            standing.rollout.id,
            outcome="STOPPED",
            reason=f"not approved: {actor}",
            actor=run_key(context),
            now=now,
        )
        return False


def _table(numbers: Mapping[str, Any]) -> str:
    def text(value: Any) -> str:
        return (
            "" if value is None else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
        )

    rows = [
        f"| {title} | {text(numbers['champion'][name])} | {text(numbers['challenger'][name])} |"
        for name, title in _SHOWN.items()
    ]
    if numbers.get("shift"):
        rows.append(f"| predictions differ by PSI | | {text(numbers['shift']['psi'])} |")
    if numbers.get("labels"):
        labels = numbers["labels"]
        rows.append(f"| {labels['metric']} better by | | {text(labels['improvement'])} |")
    return "\n".join(rows)
