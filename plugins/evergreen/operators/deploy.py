"""`deploy`: serving proves that it answers with the version, and the champion moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from evergreen.operators.stage import StageOperator, as_of, run_key, skip, utc_now
from include.errors import PinnedError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.ledger.chain import Event


class DeployOperator(StageOperator):
    """Smoke-tests the challenger in the serving process, then makes it champion.

    A backfill never comes this far, and a run as of another time only where no champion of the present would be
    replaced. Returns `version`, `previous` and `seconds`.

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

    def work(self, context: Context) -> dict[str, Any]:
        """Deploy; a retry ends in the same state."""
        from include.deploy.client import ServingClient
        from include.deploy.rollout import deploy

        self._skip_unless_wanted(context)
        if (rollout := self.bench.spec.deploy.rollout) != "direct":
            self.log.warning("rollout %s is not built yet: deploying directly", rollout)
        self.link_run(context, self.data["run_id"])
        moves: list[Event] = []
        settings = self.bench.settings
        with ServingClient(settings.serving, key=settings.client_key) as client:
            result = deploy(
                client,
                model=self.model,
                version=self.version["version"],
                promote=lambda: moves.append(self._promote(context)),
                undo=lambda: self._undo(context, moves[-1]),
                timeout=self.bench.spec.deploy.timeout,
            )
        self.bench.registry.log(
            self.data["run_id"], tags={"evergreen.deployed_version": self.version["version"]}
        )
        self.log.info("version %s serves", result.version)
        return {"version": result.version, "previous": result.previous, "seconds": result.seconds}

    def _skip_unless_wanted(self, context: Context) -> None:
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
            )
        except PinnedError as error:  # pinned since we looked
            skip(context, str(error))

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
