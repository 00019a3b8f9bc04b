"""`decide` and `request_retrain`: a pass becomes a row of the ledger, and a wish to retrain becomes a run.

What is written down first is done after: the row holds the wishes, the requests are filed from the row, and the run
is started for requests that wait. So a killed task, or a run that never started, is made up for by the next pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import DagRunTriggerException

from evergreen.factory.naming import retrain_run_id, training_dag_id
from evergreen.links import TRAINING_RUN_KEY, TrainingRunLink
from evergreen.operators.monitor import MonitorOperator, count_by_status, is_backfill, pass_time
from evergreen.operators.stage import as_of, run_key, skip, utc_now

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.ledger.arbiter import Request
    from include.ledger.chain import Event
    from include.monitor.decide import Outcome
    from include.monitor.findings import Finding

_REASON_LENGTH = 500  # what a training run's parameter takes
_BY_MONITOR = ("drift", "decay")


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
        """Decide once per window and version; a retry finds the row and goes by it."""
        from include.monitor.decide import decide

        bench, c = self.bench, self.collected
        self.link_run(context, c["run_id"])
        findings = self.read_findings(self.quality, self.drift, self.performance)
        outcome = decide(
            bench.spec,
            findings,
            [event.payload for event in self.passes(c["version"]).values()],
            window=c["window"]["key"],
            matured=c["matured"]["key"] if c["matured"] else None,
        )
        event = bench.ledger.record(
            self.model,
            "monitor",
            key=self._key(context),
            payload=self._payload(outcome, findings, context),
            actor=run_key(context),
            now=utc_now(),
        )
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

    def _key(self, context: Context) -> str:
        key = f"monitor/{self.collected['version']}/{self.collected['window']['key']}"
        # A forced pass judges a window again, and its row stands beside the first one's.
        return f"{key}/{run_key(context)}" if context["params"].get("force") else key

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


class RequestRetrainOperator(MonitorOperator):
    """Starts the training Dag when a request waits: at once for a new one, else when the arbiter would say yes.

    One run for each window of a version: its id tells a repeated start from a new one, so a lost answer of
    Airflow's API does no harm. Runs also where `collect` skipped, to make up for what an earlier pass could not do.

    Args:
        decided: What `decide` returned; None where it was skipped.
    """

    operator_extra_links = (*MonitorOperator.operator_extra_links, TrainingRunLink())
    template_fields: Sequence[str] = (*MonitorOperator.template_fields, "decided")

    def __init__(self, *, decided: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.decided = decided

    def work(self, context: Context) -> None:
        """Start the run, or skip and say why."""
        from include.monitor.windows import latest_window

        if is_backfill(context):
            skip(context, "a backfill asks for nothing")
        version = self._version()
        if version is None:
            skip(context, "the model has no champion yet")
        if self.collected:
            self.link_run(context, self.collected["run_id"])
        requests = self._waiting(version)
        if not requests:
            skip(context, "no request to retrain waits for an answer")
        bench, at, newest = self.bench, pass_time(context), requests[-1]
        decision = bench.ledger.would(self.model, newest.source, bench.spec.retrain, at)
        if decision.verdict == "SKIP" and not (self.decided or {}).get("wishes"):
            skip(context, f"a request waits: {decision.reason}")
        dag_id = training_dag_id(self.model)
        window = latest_window(at, bench.spec.monitor.window).key
        if context["ti"].get_dag(dag_id).is_paused:
            self._record_pause(dag_id, version, window, context)
        run_id = retrain_run_id(version, window)
        context["ti"].xcom_push(key=TRAINING_RUN_KEY, value={"dag_id": dag_id, "run_id": run_id})
        self.log.info("starting %s of %s: %s", run_id, dag_id, newest.reason)
        raise DagRunTriggerException(
            trigger_dag_id=dag_id,
            dag_run_id=run_id,
            conf=self._conf(newest, context),
            reset_dag_run=False,
            skip_when_already_exists=True,
            wait_for_completion=False,
            allowed_states=[],
            failed_states=[],
            poke_interval=60,
            deferrable=False,
        )

    def _version(self) -> str | None:
        if self.collected:
            return str(self.collected["version"])
        champion = self.champion()
        return champion.version if champion else None

    def _waiting(self, version: str) -> list[Request]:
        """Return the requests that wait, oldest first; those about a version that is gone are left to the arbiter."""
        # Once more for the newest pass: it may have died before it came to that.
        for event in [*self.passes(version).values()][-1:]:
            file_requests(self, event)
        return [
            request
            for request in self.bench.ledger.requests(self.model)
            if request.source not in _BY_MONITOR or request.key.split("/")[1] == version
        ]

    def _record_pause(self, dag_id: str, version: str, window: str, context: Context) -> None:
        reason = f"{dag_id} is paused: the request waits until it is not"
        self.bench.ledger.record(
            self.model,
            "skip",
            key=f"skip/{version}/{window}/paused",
            payload={"verdict": "SKIP", "reason": reason},
            actor=run_key(context),
            now=utc_now(),
        )
        skip(context, reason)

    def _conf(self, request: Request, context: Context) -> dict[str, Any]:
        conf = {"trigger": request.source, "reason": request.reason[:_REASON_LENGTH]}
        given = as_of(context)
        return {**conf, "as_of": given.isoformat()} if given else conf


def file_requests(operator: MonitorOperator, event: Event) -> None:
    """File the requests that a `monitor` row asks for; each is filed once, whoever does it."""
    said = event.payload
    for wish in said["wishes"]:
        operator.bench.ledger.request(
            operator.model,
            wish["source"],
            wish["reason"],
            key=f"{wish['source']}/{said['version']}/{said['window']}",
            details={name: said[name] for name in ("version", "window", "verdict", "as_of")},
            now=utc_now(),
            asked_by=event.actor,
        )


def _measured(findings: Sequence[Finding]) -> dict[str, float | None]:
    """Return the values of the checks of a window as a whole, as metrics."""
    return {f.check: f.value for f in findings if f.column is None and f.value is not None}
