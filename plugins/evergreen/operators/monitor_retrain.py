"""`request_retrain`: a request that waits becomes a training run.

What is written down first is done after: the row of a pass holds the wishes, the requests are filed from the row, and
the run is started for requests that wait. So a killed task, or a run that never started, is made up for by the next
pass. A pass as of another time has to do with requests as of such times only, and one of the present with those of
the present.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import DagRunTriggerException

from evergreen.factory.naming import retrain_run_id, training_dag_id
from evergreen.links import TRAINING_RUN_KEY, TrainingRunLink
from evergreen.operators.monitor import MonitorOperator, is_backfill, pass_time
from evergreen.operators.stage import as_of, run_key, skip, utc_now

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.ledger.arbiter import Request
    from include.ledger.chain import Event

_REASON_LENGTH = 500  # what a training run's parameter takes
_BY_MONITOR = ("drift", "decay")
_FILED_LATE = timedelta(days=7)  # besides the cool-down; an older request would expire at once


class RequestRetrainOperator(MonitorOperator):
    """Starts the training Dag when a request waits: at once for a new one, else when the arbiter would say yes.

    The run's id names version and window, and is the same until that run was answered or died: so a lost answer of
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
        requests = self._waiting(version, context)
        if not requests:
            skip(context, "no request to retrain waits for an answer")
        bench, at, newest = self.bench, pass_time(context), requests[-1]
        dag_id = training_dag_id(self.model)
        window = latest_window(at, bench.spec.monitor.window).key
        attempt = self._attempt(dag_id, version, window, context)
        decision = bench.ledger.would(
            self.model, newest.source, bench.spec.retrain, at, as_of=as_of(context)
        )
        # A no is asked for once per window, so that it is recorded.
        first = attempt == 1 and (self.decided or {}).get("wishes")
        if decision.verdict == "SKIP" and not first:
            if attempt > 1:
                self._link(dag_id, retrain_run_id(version, window, attempt - 1), context)
            skip(context, f"a request waits: {decision.reason}")
        if context["ti"].get_dag(dag_id).is_paused:
            self._record_pause(dag_id, version, window, context)
        run_id = retrain_run_id(version, window, attempt)
        self._link(dag_id, run_id, context)
        if context["ti"].get_dr_count(dag_id=dag_id, run_ids=[run_id]):
            skip(context, f"{run_id} of {dag_id} is there already, and has not answered yet")
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

    def _link(self, dag_id: str, run_id: str, context: Context) -> None:
        context["ti"].xcom_push(key=TRAINING_RUN_KEY, value={"dag_id": dag_id, "run_id": run_id})

    def _version(self) -> str | None:
        if self.collected:
            return str(self.collected["version"])
        champion = self.champion()
        return champion.version if champion else None

    def _attempt(self, dag_id: str, version: str, window: str, context: Context) -> int:
        """Return the number of the run to start: one more than those that were answered, or died before."""
        number = 1
        while self._is_over(dag_id, retrain_run_id(version, window, number), context):
            number += 1
        return number

    def _is_over(self, dag_id: str, run_id: str, context: Context) -> bool:
        if self.bench.ledger.find(self.model, f"decision:{dag_id}/{run_id}"):
            return True
        failed = context["ti"].get_dr_count(dag_id=dag_id, run_ids=[run_id], states=["failed"])
        return bool(failed)

    def _waiting(self, version: str, context: Context) -> list[Request]:
        """Return the requests that wait, oldest first; those about a version that is gone are left to the arbiter."""
        from include.ledger.chain import iso

        # Once more for every pass: it may have died before it came to that.
        since = utc_now() - _FILED_LATE - self.bench.spec.retrain.cooldown
        for event in self.passes(version).values():
            if event.payload["wishes"] and datetime.fromisoformat(event.at) > since:
                file_requests(self, event)
        given = as_of(context)
        meant = iso(given) if given else None
        return [
            request
            for request in self.bench.ledger.requests(self.model)
            if request.concerns(meant)
            and (request.source not in _BY_MONITOR or request.key.split("/")[1] == version)
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
    details = {name: said[name] for name in ("version", "window", "verdict", "as_of")}
    for wish in said["wishes"]:
        key = f"{wish['source']}/{said['version']}/{said['window']}"
        # The present and a replay may ask about the same window: the second one's key tells whose it is.
        for each in (key, f"{key}/{'as_of' if said['as_of'] else 'present'}"):
            filed = operator.bench.ledger.request(
                operator.model,
                wish["source"],
                wish["reason"],
                key=each,
                details=details,
                now=utc_now(),
                asked_by=event.actor,
            )
            if (filed.as_of is None) == (said["as_of"] is None):
                break
