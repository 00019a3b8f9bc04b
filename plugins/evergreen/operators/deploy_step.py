"""`deploy.step_N`, `deploy.shadow`, `deploy.decide`: a share of the traffic, a hold, and the judge.

When a step began stands in the ledger, so a retry, a clear or a new triggerer goes on where it stood: no hold
begins anew, none is passed over. Between two looks the task is deferred and takes no worker's slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from evergreen.operators.deploy import DeployOperator
from evergreen.operators.stage import run_key, skip, utc_now
from evergreen.triggers.hold import HoldTrigger
from include.errors import ConflictError, DataError, PinnedError, ServiceError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.deploy.judge import Judgement
    from include.registry.rollouts import Outcome, Standing

_FINISH = "finish"
_UNDER_WAY = ["queued", "running"]
_OVER = ("success", "failed", "skipped", "upstream_failed", "removed")
_FIRST_LOOK = timedelta(seconds=5)  # what is plainly broken shall go home within seconds
_SHORTEST, _LONGEST = timedelta(seconds=10), timedelta(minutes=5)


class StepOperator(DeployOperator):
    """Gives the challenger its share, holds, and lets the judge look until it says GO or STOP.

    On STOP the rollout ends, the champion has all traffic again, and the tasks that follow are skipped. Returns
    `verdict` and `reason`.

    Args:
        number: Place of the step, from 0.
        share: The challenger's share of the traffic, 0 to 1; of a shadow, of the requests it copies.
        decides: Whether live labels must say who is better: the end of an ab test that a rule decides.
    """

    template_fields: Sequence[str] = DeployOperator.template_fields

    def __init__(self, *, number: int, share: float, decides: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number
        self.share = share
        self.decides = decides

    def work(self, context: Context) -> dict[str, Any]:
        """Take the step, wait for every replica, and look."""
        from include.deploy.replicas import all_have, routes_by

        self.check_wanted(context)
        if why := self.goes_directly(context):
            self.log.info("no step is taken: %s", why)
            return {"verdict": "GO", "reason": why}
        self.link_run(context, self.data["run_id"])
        standing = self._take(context)
        share = standing.rollout.share
        if standing.active and standing.step == self.number:
            check = routes_by(standing.rollout.id, share)
            self.waiting.until(
                lambda: all_have(self.replicas(), self.model, self.challenger, check),
                f"route {share:.0%} to it in every replica",
            )
        return self._look(context)

    def resume(self, context: Context, event: Any = None) -> dict[str, Any]:  # noqa: ARG002  the trigger's
        """Look again."""
        found: dict[str, Any] = self.plainly(lambda: self._look(context))
        return found

    def _take(self, context: Context) -> Standing:
        """Begin the rollout and take the step, or find that done."""
        from include.registry.rollouts import SENT_HOME, step

        standing = self.standing(context)
        if standing is not None and standing.outcome in SENT_HOME:
            self.stop(context, standing)
        if standing is not None and standing.outcome == "PROMOTED":
            return standing
        self._check_finish(context)
        self._replace_orphan(context)
        self._begin(context)
        return step(
            self.bench.registry,
            self.bench.ledger,
            self.model,
            self.rollout_id(context),
            number=self.number,
            share=self.share,
            actor=run_key(context),
            now=utc_now(),
        )

    def _begin(self, context: Context) -> None:
        from include.registry.rollouts import Rollout, begin

        mode: Any = self.bench.spec.deploy.rollout
        try:
            begin(
                self.bench.registry,
                self.bench.ledger,
                self.model,
                Rollout(self.rollout_id(context), self.challenger, mode, 0.0),
                champion=self.champion,
                actor=run_key(context),
                now=utc_now(),
            )
        except PinnedError as error:  # pinned since we looked
            skip(context, str(error))

    def _check_finish(self, context: Context) -> None:
        """Send no traffic to a challenger that nothing will take it from again: a task cleared without `finish`."""
        run = context["dag_run"]
        states = context["ti"].get_task_states(dag_id=run.dag_id, run_ids=[run.run_id])
        found = states.get(run.run_id, {}).get(_FINISH)
        if found in _OVER:
            raise ConflictError(
                f"rollout of {self.model}",
                f"needs `{_FINISH}` to come after it, got one that is over ({found})",
                "Clear the task again together with what is downstream of it.",
            )

    def _replace_orphan(self, context: Context) -> None:
        """End an earlier run's rollout that goes on while that run does not: it was deleted, or killed."""
        from include.registry.rollouts import current, end

        other = current(self.bench.ledger, self.model)
        if other is None or other.rollout.id == self.rollout_id(context):
            return
        dag_id, _, run_id = other.actor.partition("/")
        if dag_id != context["dag_run"].dag_id or context["ti"].get_dr_count(
            dag_id=dag_id, run_ids=[run_id], states=_UNDER_WAY
        ):
            return  # `begin` says whose it is
        end(
            self.bench.registry,
            self.bench.ledger,
            self.model,
            other.rollout.id,
            outcome="SUPERSEDED",
            reason=f"its run is not under way, and {run_key(context)} begins",
            actor=run_key(context),
            now=utc_now(),
        )

    # --- looking --------------------------------------------------------------------------------------------

    def _look(self, context: Context) -> dict[str, Any]:
        """Judge once; then go on, go home, or defer until the next look."""
        standing = self.standing(context)
        if standing is None:
            raise DataError(
                f"ledger of {self.model}",
                "must hold this run's rollout, got none",
                "Clear the task.",
            )
        if standing.outcome == "PROMOTED" or (standing.active and standing.step > self.number):
            return {"verdict": "GO", "reason": "passed before"}
        if not standing.active:
            self.stop(context, standing)
        if standing.wish is not None:
            who, why = standing.wish
            return {"verdict": "GO", "reason": f"{who}: {why}"}
        if changed := self._changed(standing):
            self._end(context, standing, "SUPERSEDED", changed)
        judged = self.look(standing)
        self.log.info("%s: %s", judged.verdict, judged.reason)
        if judged.verdict == "WAIT":
            self._defer(standing)
        self._record(context, standing, judged)
        if judged.verdict == "STOP":
            self._end(context, standing, "STOPPED", judged.reason)
        return {"verdict": judged.verdict, "reason": judged.reason[:1000]}

    def _changed(self, standing: Standing) -> str:
        """Return who took the champion's place meanwhile; empty where nobody did, or that cannot be told now."""
        try:
            found = self.bench.registry.aliases(self.model).get("champion")
        except ServiceError as error:
            self.log.warning("%s", error)
            return ""
        if found == standing.champion:
            return ""
        return f"the champion is {found} now, the rollout began against {standing.champion}"

    def standing_or_stop(self, context: Context) -> Standing:
        """Return a rollout that goes on or ended in a promotion; where it was stopped, the task ends here.

        Raises:
            DownstreamTasksSkipped: It was stopped.
            DataError: There is none.
        """
        standing = self.standing(context)
        if standing is None:
            raise DataError(
                f"ledger of {self.model}",
                "must hold this run's rollout, got none",
                "Clear the run from `deploy.smoke` on.",
            )
        if not standing.active and standing.outcome != "PROMOTED":
            self.stop(context, standing)
        return standing

    def look(self, standing: Standing) -> Judgement:
        """Judge the step on what the prediction log holds now."""
        from include.deploy.look import look

        return look(
            self.bench.spec,
            self.bench.store,
            mode=standing.rollout.mode,
            champion=standing.champion or "",
            challenger=standing.rollout.version,
            since=standing.since,
            now=utc_now(),
            decides=self.decides,
        )

    def _defer(self, standing: Standing) -> None:
        until = next_look(self.bench.spec.deploy.hold, standing.since, utc_now())
        self.defer(trigger=HoldTrigger(until.isoformat()), method_name="resume")

    def _record(self, context: Context, standing: Standing, judged: Judgement) -> None:
        from include.registry.judgements import record

        record(
            self.bench.ledger,
            self.model,
            standing,
            {"verdict": judged.verdict, "reason": judged.reason, "numbers": judged.numbers},
            decides=self.decides,
            actor=run_key(context),
            now=utc_now(),
        )

    def _end(self, context: Context, standing: Standing, outcome: Outcome, reason: str) -> None:
        from include.registry.rollouts import end

        ended = end(
            self.bench.registry,
            self.bench.ledger,
            self.model,
            standing.rollout.id,
            outcome=outcome,
            reason=reason,
            actor=run_key(context),
            now=utc_now(),
        )
        self.stop(context, ended or standing)


def next_look(hold: timedelta, since: datetime, now: datetime) -> datetime:
    """Return when the judge looks again: soon in the beginning, then about ten times in a hold, and at its end.

    Args:
        hold: The spec's.
        since: When the step began.
        now: The time.
    """
    pause = min(max(hold / 10, _SHORTEST), _LONGEST)
    then = now + min(pause, max(_FIRST_LOOK, now - since))
    over = since + hold
    return over if now < over < then else then
