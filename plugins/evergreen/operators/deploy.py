"""`deploy`: serving proves that it answers with the version, and the champion moves.

The two ends of every rollout are here, and what all its tasks share; the steps between are in `deploy_step`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.exceptions import AirflowSkipException, DownstreamTasksSkipped

from evergreen.operators.stage import StageOperator, as_of, run_key, skip, utc_now
from include.errors import ConflictError, PinnedError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.deploy.probe import Probe
    from include.deploy.replicas import Replica
    from include.deploy.waiting import Waiting
    from include.ledger.chain import Event
    from include.registry.rollouts import Standing


class DeployOperator(StageOperator):
    """Base of the tasks of `deploy`: whom they are about, and whether they are wanted.

    A backfill never comes this far, and a run as of another time only where no champion of the present would be
    replaced.

    Args:
        data: What `ingest` returned.
        verdict: What `evaluate` returned.
        version: What `register` returned.
        answer: What `approve` returned; None where nobody is asked.
    """

    template_fields: Sequence[str] = (
        *StageOperator.template_fields,
        "data",
        "verdict",
        "version",
        "answer",
    )

    def __init__(
        self, *, data: Any, verdict: Any, version: Any, answer: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.data = data
        self.verdict = verdict
        self.version = version
        self.answer = answer

    @property
    def challenger(self) -> str:
        """The version on trial."""
        return str(self.version["version"])

    @property
    def champion(self) -> str | None:
        """The version it was judged against."""
        return str(self.data["champion"]["version"]) if self.data["champion"] else None

    @property
    def waiting(self) -> Waiting:
        """How long serving may take to come round."""
        from include.deploy.waiting import Waiting

        where = f"model {self.model} version {self.challenger}"
        return Waiting(where, self.bench.spec.deploy.timeout)

    @contextmanager
    def probe(self) -> Iterator[Probe]:
        """Yield what asks serving for the version."""
        from include.deploy.client import ServingClient
        from include.deploy.probe import Probe

        settings = self.bench.settings
        with ServingClient(settings.serving, key=settings.client_key) as client:
            yield Probe(client, self.model, self.challenger)

    def replicas(self) -> Sequence[Replica]:
        """Return the live serving processes."""
        return self.bench.ledger.live_replicas(utc_now())

    def rollout_id(self, context: Context) -> str:
        """Return the rollout's id: the same in all tasks of the run, on every try and after every clear."""
        text = f"{run_key(context)}/{self.challenger}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def standing(self, context: Context) -> Standing | None:
        """Return where this run's rollout stands; None where it never began."""
        from include.registry.rollouts import latest

        return latest(self.bench.ledger, self.model, self.rollout_id(context))

    def goes_directly(self, context: Context) -> str:
        """Return why no step is taken; empty where the spec's rollout is walked through."""
        if self.bench.spec.deploy.rollout == "direct":
            return "the spec says so"
        if self.champion is None:
            return "there is no champion to be compared with"
        if as_of(context) is not None:
            return "a run as of another time has no live traffic"
        return ""

    def send_home(self, standing: Standing) -> str:
        """Say on the MLflow run how an ended rollout ended, settle what a killed attempt left; return what is said."""
        from include.registry.rollouts import settle

        settle(self.bench.registry, self.bench.ledger, self.model)
        said = f"{standing.outcome}: {standing.reason}"
        self.log.info("version %s goes home: %s", self.challenger, said)
        self.bench.registry.log(self.data["run_id"], tags={"evergreen.rollout": said})
        return said

    def stop(self, context: Context, standing: Standing) -> NoReturn:
        """End the task green, with the outcome on it, and skip what follows.

        Raises:
            DownstreamTasksSkipped: Always.
        """
        self.send_home(standing)
        result = {"outcome": standing.outcome, "reason": standing.reason[:1000]}
        context["ti"].xcom_push(key="return_value", value=result)
        following = context["task"].get_direct_relatives(upstream=False)
        raise DownstreamTasksSkipped(  # type: ignore[no-untyped-call]  # untyped in Airflow
            tasks=[task.task_id for task in following if not task.is_teardown]
        )

    def check_wanted(self, context: Context) -> None:
        """Skip the task unless the version may go on."""
        from include.registry.pins import find_pin

        verdict = self.version["verdict"]
        if verdict not in ("PROMOTE", "NEEDS_APPROVAL"):
            raise AirflowSkipException(f"{verdict}: {self.verdict['reason']}")
        if verdict == "NEEDS_APPROVAL" and (self.answer or {}).get("chosen_options") != ["Approve"]:
            raise AirflowSkipException("nobody approved")
        if context["dag_run"].run_type.value == "backfill":
            raise AirflowSkipException("a backfill never moves the champion")
        if standing := find_pin(self.bench.ledger, self.model):
            skip(context, str(standing))
        if as_of(context) is not None and not self._replays_on(context):
            skip(context, "a run as of another time never replaces a champion of the present")

    def _replays_on(self, context: Context) -> bool:
        """Tell whether the champion, if there is one, was made by a run as of another time."""
        from include.registry.moves import MOVES

        champion = self.bench.registry.get_version(self.model, "champion")
        if champion is None:
            return True
        moves = self.bench.ledger.events(self.model, MOVES, 1)
        # A killed attempt may have written its move, and not yet done it.
        if not moves or champion.version not in (moves[0].payload["from"], moves[0].payload["to"]):
            return False  # moved by hand
        actor = moves[0].actor
        return actor == run_key(context) or self.bench.ledger.is_replay(self.model, actor)


class SmokeOperator(DeployOperator):
    """Waits until every serving process has loaded the version and it answers. Returns `replicas` and `smoke_ms`."""

    def work(self, context: Context) -> dict[str, Any]:
        """Ask; a version that was sent home before is not asked again."""
        from include.deploy.rollout import smoke
        from include.registry.rollouts import SENT_HOME

        self.check_wanted(context)
        self.link_run(context, self.data["run_id"])
        standing = self.standing(context)
        if standing is not None and standing.outcome in SENT_HOME:
            self.stop(context, standing)
        with self.probe() as probe:
            result = smoke(probe, self.replicas, self.waiting)
        self.log.info("version %s answers; replicas: %d", self.challenger, result.replicas)
        return {"replicas": result.replicas, "smoke_ms": result.smoke_ms}


class PromoteOperator(DeployOperator):
    """Makes the version champion, if its rollout let it pass. Returns `version`, `previous` and `seconds`."""

    def work(self, context: Context) -> dict[str, Any]:
        """Promote; a retry ends in the same state."""
        from include.deploy.rollout import take_over
        from include.registry.rollouts import end

        self.check_wanted(context)
        self.link_run(context, self.data["run_id"])
        self._check_rollout(context)
        moves: list[Event] = []
        with self.probe() as probe:
            result = take_over(
                probe,
                self.replicas,
                self.waiting,
                promote=lambda: moves.append(self._promote(context)),
                undo=lambda: self._undo(context, moves[-1]),
            )
        end(
            self.bench.registry,
            self.bench.ledger,
            self.model,
            self.rollout_id(context),
            outcome="PROMOTED",
            reason=self.verdict["reason"],
            actor=run_key(context),
            now=utc_now(),
        )
        self.bench.registry.log(
            self.data["run_id"], tags={"evergreen.deployed_version": self.challenger}
        )
        self.log.info("version %s serves", result.version)
        return {"version": result.version, "previous": result.previous, "seconds": result.seconds}

    def _check_rollout(self, context: Context) -> None:
        """Promote nothing that somebody stopped since, and nothing that the judge did not let pass.

        That the tasks before are green says little: a person can mark them so.
        """
        if self.goes_directly(context):
            return
        standing = self.standing(context)
        if standing is None:
            raise ConflictError(
                f"rollout of {self.model}",
                "must have passed its steps to be promoted, got none begun",
                "Clear the run from `deploy.smoke` on.",
            )
        self._skip_if_sent_home(context, standing)
        if standing.outcome != "PROMOTED" and standing.wish is None:
            self._check_judged(standing)

    def _skip_if_sent_home(self, context: Context, standing: Standing) -> None:
        """Skip, so that nobody who waits for a new champion takes the task for one."""
        from include.registry.rollouts import SENT_HOME

        if standing.outcome in SENT_HOME:
            skip(context, self.send_home(standing))

    def _check_judged(self, standing: Standing) -> None:
        from include.registry.judgements import let_pass

        rules = self.bench.spec.deploy
        by_labels = rules.rollout == "ab" and rules.decide == "labels"
        if rules.rollout == "ab" and not by_labels:
            passed, need = False, "a person's yes"
        else:
            last = 0 if rules.rollout == "shadow" else len(rules.steps) - 1
            passed = let_pass(self.bench.ledger, self.model, standing, last, decides=by_labels)
            need = "the labels' yes" if by_labels else "the judge's GO at its last step"
        if not passed:
            raise ConflictError(
                f"rollout of {self.model}",
                f"must have {need} to be promoted, got none since it began",
                "Clear the run from `deploy.smoke` on, or let it take over while it goes on: "
                f"`evergreen rollout {self.model} --promote`.",
            )

    def _promote(self, context: Context) -> Event:
        from include.registry.promotion import promote

        champion = self.data["champion"]
        try:
            return promote(
                self.bench.registry,
                self.bench.ledger,
                self.model,
                self.version["version"],
                expected=champion["version"] if champion else None,
                key=f"promote/{self.data['fingerprint']}/{run_key(context)}/{context['ti'].try_number}",
                reason=self.verdict["reason"],
                actor=run_key(context),
                now=utc_now(),
                rollout=self.rollout_id(context),
            )
        except PinnedError as error:  # pinned since we looked
            skip(context, str(error))
        except ConflictError:
            if standing := self.standing(context):  # stopped since we looked
                self._skip_if_sent_home(context, standing)
            raise

    def _undo(self, context: Context, move: Event) -> Event:
        from include.registry.promotion import undo

        return undo(
            self.bench.registry,
            self.bench.ledger,
            self.model,
            move=move,
            key=f"undo/{self.data['fingerprint']}/{run_key(context)}/{context['ti'].try_number}",
            reason="serving did not answer with the new champion",
            actor=run_key(context),
            now=utc_now(),
        )
