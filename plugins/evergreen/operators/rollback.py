"""Back to an earlier version, and its release, from any Dag."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from evergreen.operators.mlflow_base import MlflowOperator, required, version_text, work_key
from evergreen.operators.stage import EvergreenOperator, require_conf, run_key, utc_now
from include.errors import EvergreenError
from include.settings import Settings, get_settings
from include.spec.loader import find_spec, load_spec

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.ledger.chain import Event
    from include.ledger.ledger import Ledger


class _ByPerson(MlflowOperator):
    """What both share: a model, a reason, and the ledger that remembers who wanted it.

    Args:
        model: Name of the model.
        reason: Why, for the ledger.
    """

    template_fields: Sequence[str] = (*MlflowOperator.template_fields, "model", "reason")
    ui_color = "#f6e6d8"

    def __init__(self, *, model: str, reason: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.reason = reason

    @cached_property
    def settings(self) -> Settings:
        """Where things are."""
        return get_settings()

    @cached_property
    def ledger(self) -> Ledger:
        """The record of every move."""
        from include.ledger.ledger import Ledger

        return Ledger(self.settings.ledger_dsn)

    def asked(self) -> tuple[str, str]:
        """Return model and reason, both given; a model nobody has heard of is a typing error.

        Raises:
            DataError: One is empty.
            SpecError: Neither the ledger knows the model nor is there a spec of it.
        """
        model, reason = required("model", self.model), required("reason", self.reason)
        if not self.ledger.head(model):
            find_spec(model, self.settings)
        return model, reason


class RollbackOperator(_ByPerson):
    """Makes an earlier version champion again and keeps it there, as `evergreen rollback` does.

    The version is tried first; then it is pinned, a rollout that goes on is ended, and the task succeeds once every live
    serving process answers with it. Whom the model's spec names for rollbacks is told. Returns `version`, `previous`,
    `replicas` and `seconds`.

    Args:
        model: Name of the model.
        reason: Why, for the ledger.
        version: Which; None for the one that is pinned already, else the previous champion.
    """

    template_fields: Sequence[str] = (*_ByPerson.template_fields, "version")

    def __init__(self, *, version: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.version = version

    def work(self, context: Context) -> dict[str, Any]:
        """Roll back; a retry finishes what was begun."""
        from include.rollback.rollback import Rollback, roll_back

        model, reason = self.asked()
        ask = Rollback(
            registry=self.registry,
            ledger=self.ledger,
            name=model,
            cache=self.settings.home / "cache" / "models",
            key=f"rollback/{work_key(context)}",
            reason=reason,
            actor=actor_of(context),
            clock=utc_now,
            sleep=time.sleep,
        )
        result = roll_back(ask, version_text(self.version))
        self.log.info("champion of %s: version %s. %s", model, result.version, result.said)
        self._tell(result.move)
        result.require_all()
        return {
            "version": result.version,
            "previous": result.previous,
            "replicas": len(result.replies.answering),
            "seconds": round(result.seconds, 2),
        }

    def _tell(self, move: Event) -> None:
        """Tell whom the spec names; whatever goes wrong is an error in the log, for the rollback is made."""
        from evergreen.receivers import receivers
        from include.notify.rollback import tell_rollback

        try:
            notify = load_spec(find_spec(move.model, self.settings), self.settings).notify
            if "rollback" not in notify.on or not notify.to or move.kind != "rollback":
                return
            told = tell_rollback(self.settings, move, receivers(notify.to), now=utc_now())
        except EvergreenError as error:
            self.log.error("nobody was told: %s", error)
            return
        except Exception:  # a message is never worth a rollback
            self.log.exception("nobody was told")
            return
        for name in told.delivery.taken if told.delivery else ():
            self.log.info("told %s", name)
        for missed in told.delivery.missed if told.delivery else ():
            self.log.error("notify.to: somebody did not hear of it: %s", missed)
        if told.unrecorded:
            self.log.error("the ledger does not know that people were told: %s", told.unrecorded)


class UnpinOperator(_ByPerson):
    """Releases the pin that a rollback set, as `evergreen unpin` does. Returns the version that was pinned, if one was."""

    def work(self, context: Context) -> str | None:
        """Release the pin; a retry, or a clear after a later rollback, releases no other one."""
        from include.registry.pins import unpin

        model, reason = self.asked()
        released = unpin(
            self.ledger,
            model,
            reason=reason,
            key=f"unpin/{work_key(context)}",
            actor=actor_of(context),
            now=utc_now(),
        )
        version: str | None = released.payload["version"] if released else None
        self.log.info(
            "%s is %s", model, f"no longer pinned to version {version}" if version else "not pinned"
        )
        return version


class _FromForm(EvergreenOperator):
    """The task of a Dag whose runs say what to do: a parameter that the Dag does not have ends it.

    `to: 3` instead of `version: 3` would otherwise be a rollback to another version than was meant.
    """

    def execute(self, context: Context) -> Any:
        """Look at the parameters' names first."""
        require_conf(context["dag_run"].conf, tuple(context["dag"].params))
        return super().execute(context)


class FormRollbackOperator(_FromForm, RollbackOperator):
    """`RollbackOperator` of `evergreen__rollback`."""


class FormUnpinOperator(_FromForm, UnpinOperator):
    """`UnpinOperator` of `evergreen__unpin`."""


def actor_of(context: Context) -> str:
    """Return who acts: the person who started the Dag run, where Airflow knows, and the run."""
    user = getattr(context["dag_run"], "triggering_user_name", None)
    return f"{user} ({run_key(context)})" if user else run_key(context)
