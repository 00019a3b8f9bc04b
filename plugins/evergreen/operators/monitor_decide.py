"""`decide`: a pass becomes a row of the ledger, and its wishes become requests.

The row is written first, and the requests are filed from the row. So a killed task is made up for by the next one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evergreen.operators.monitor import MonitorOperator, count_by_status, is_backfill
from evergreen.operators.monitor_retrain import file_requests
from evergreen.operators.stage import as_of, run_key, utc_now

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.ledger.chain import Event
    from include.monitor.decide import Outcome
    from include.monitor.findings import Finding


class DecideOperator(MonitorOperator):
    """Decides what the pass comes to, records it and files the wishes to retrain.

    Returns what was recorded, and `run_id` (MLflow).

    Args:
        quality: What `quality` returned.
        drift: What `drift` returned.
        performance: What `performance` returned; None where it was skipped.
    """

    template_fields: Sequence[str] = (
        *MonitorOperator.template_fields,
        "quality",
        "drift",
        "performance",
    )

    def __init__(self, *, quality: Any, drift: Any, performance: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.quality = quality
        self.drift = drift
        self.performance = performance

    def work(self, context: Context) -> dict[str, Any]:
        """Decide once per window and version; a retry finds the row of the same findings and goes by it."""
        from include.monitor.decide import decide

        bench, c = self.bench, self.collected
        matured = c["matured"]["key"] if c["matured"] else None
        self.link_run(context, c["run_id"])
        findings = self.read_findings(self.quality, self.drift, self.performance)
        outcome = decide(
            bench.spec,
            findings,
            [event.payload for event in self.passes(c["version"]).values()],
            window=c["window"]["key"],
            matured=matured,
            matured_row=self._last_row(matured) if matured else None,
        )
        event = self._record(self._payload(outcome, findings, context), context)
        file_requests(self, event)
        said = event.payload
        bench.registry.log(
            c["run_id"],
            metrics={
                "rows": float(c["rows"]),
                **{f"findings_{status}": float(n) for status, n in said["findings"].items()},
                **_measured(findings),
            },
            tags={"evergreen.verdict": said["verdict"], "evergreen.reason": said["reason"]},
        )
        self.log.info("%s: %s", said["verdict"], said["reason"])
        return {**said, "run_id": c["run_id"]}

    def _last_row(self, window: str) -> dict[str, Any] | None:
        rows = self.rows_of(self.collected["version"], window)
        return rows[-1].payload if rows else None

    def _record(self, payload: dict[str, Any], context: Context) -> Event:
        """Write the row, or return the one that says the same; what a cleared pass finds anew succeeds it."""
        ledger = self.bench.ledger
        key = f"monitor/{self.collected['version']}/{self.collected['window']['key']}"
        if context["params"].get("force"):
            key = f"{key}/{run_key(context)}"  # its row stands beside the first one's
        keys, last = [key], ledger.find(self.model, key)
        known = last
        while known is not None:
            last = known
            keys.append(f"{key}/{len(keys) + 1}")
            known = ledger.find(self.model, keys[-1])
        same = ("digest", "as_of")
        if last and all(last.payload.get(name) == payload[name] for name in same):
            return last
        return ledger.record(
            self.model, "monitor", keys[-1], payload, actor=run_key(context), now=utc_now()
        )

    def _payload(
        self, outcome: Outcome, findings: Sequence[Finding], context: Context
    ) -> dict[str, Any]:
        c, given = self.collected, as_of(context)
        return {
            "verdict": outcome.verdict,
            "reason": outcome.reason,
            "window": c["window"]["key"],
            "start": c["window"]["start"],
            "end": c["window"]["end"],
            "matured": c["matured"]["key"] if c["matured"] else None,
            "version": c["version"],
            "rows": c["rows"],
            "drifts": outcome.drifts,
            "decays": outcome.decays,
            "broken": outcome.broken,
            "findings": count_by_status(findings),
            "digest": _digest(findings),
            "wishes": self._wishes(outcome, context),
            "as_of": given.isoformat() if given else None,
        }

    def _wishes(self, outcome: Outcome, context: Context) -> list[dict[str, str]]:
        champion = self.champion()
        if is_backfill(context):
            return []
        if champion is None or champion.version != self.collected["version"]:
            self.log.info("nothing is asked for: the champion has changed since `collect`")
            return []
        return [{"source": wish.source, "reason": wish.reason} for wish in outcome.wishes]


def _digest(findings: Sequence[Finding]) -> str:
    """Return what tells findings from others."""
    said = [(f.check, f.column, f.status, f.message) for f in findings]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _measured(findings: Sequence[Finding]) -> dict[str, float | None]:
    """Return the values of the checks of a window as a whole, as metrics."""
    return {f.check: f.value for f in findings if f.column is None and f.value is not None}
