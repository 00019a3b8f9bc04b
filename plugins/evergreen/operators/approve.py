"""`approve`: a person answers before a version takes over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import AirflowSkipException

from evergreen.operators.ingest import Champion, verdict_key
from evergreen.operators.stage import run_key, utc_now
from include.settings import get_settings

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.spec.schema import ManualApproval

_BODY = """Version **{version}** of **{model}** passed the gate.

{reason}

| metric | holdout |
|---|---|
{rows}

No answer is a no.
"""
_BY = {"PROMOTE": "approved", "REJECT": "not approved"}


class ApproveOperator(ApprovalOperator):
    """Asks for a yes where the verdict is `NEEDS_APPROVAL`; no answer in time is a no.

    Args:
        model: Name of the model.
        approval: Who may answer, and for how long the run waits.
        data: What `ingest` returned.
        verdict: What `evaluate` returned.
        version: What `register` returned.
    """

    template_fields: Sequence[str] = (
        *ApprovalOperator.template_fields,
        "data",
        "verdict",
        "version",
    )

    def __init__(
        self,
        *,
        model: str,
        approval: ManualApproval,
        data: Any,
        verdict: Any,
        version: Any,
        **kwargs: Any,
    ) -> None:
        users = [{"id": name, "name": name} for name in approval.approvers]
        super().__init__(
            subject=f"Promote {model}?",
            body="",
            defaults=self.REJECT,
            response_timeout=approval.timeout,
            assigned_users=users or None,
            **kwargs,
        )
        self.model = model
        self.approval = approval
        self.data = data
        self.verdict = verdict
        self.version = version

    def execute(self, context: Context) -> Any:
        """Park the task until somebody answers."""
        if self.version["verdict"] != "NEEDS_APPROVAL":
            raise AirflowSkipException(f"{self.version['verdict']}: nothing to approve")
        rows = "\n".join(
            f"| {name} | {value:.4g} |" for name, value in sorted(self.verdict["metrics"].items())
        )
        self.body = _BODY.format(
            version=self.version["version"],
            model=self.model,
            reason=self.verdict["reason"],
            rows=rows,
        )
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Write the answer into the ledger, then let the run go on or end: a no never returns from there."""
        if said := event.get("chosen_options"):
            self._record(context, said, (event.get("responded_by_user") or {}).get("name"))
        return super().execute_complete(context, event)

    def _record(self, context: Context, said: list[str], who: str | None) -> None:
        from include.ledger.ledger import Ledger

        verdict = "PROMOTE" if said == [self.APPROVE] else "REJECT"
        champion = Champion(**self.data["champion"]) if self.data["champion"] else None
        training = verdict_key(self.data["fingerprint"], champion)
        Ledger(get_settings().ledger_dsn).record(
            self.model,
            "approval",
            key=f"approval/{training}/{run_key(context)}/{verdict}",
            payload={
                "verdict": verdict,
                "version": self.version["version"],
                "reason": _BY[verdict],
            },
            actor=who or "nobody in time",
            now=utc_now(),
        )
