"""Messages to people: one per event, through any channel Apprise speaks.

Each notifier reads its event from the ledger and leaves a row there once it is told, so it may be called as often
as tasks are retried or cleared. The tasks where an event happens call it at once; `finish` calls it again, for
what a killed process could not tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier
from airflow.sdk.configuration import conf

from evergreen.links import RUN_URL_KEY
from include.errors import EvergreenError
from include.settings import get_settings

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context

    from include.ledger.ledger import Ledger
    from include.notify.message import Links, Message
    from include.spec.schema import Notify, Spec

_REASONS = {
    "task_failure": "a task failed",
    "all_tasks_deadlocked": "its tasks wait for each other",
}


class Notifier(BaseNotifier):
    """Tells a model's people about one kind of event, once.

    Whatever goes wrong is an error in the log; the run is not touched.

    Args:
        model: Name of the model.
        to: Apprise URLs, or `connection:<id>` of an Airflow connection that holds one.
    """

    template_fields: Sequence[str] = ()

    def __init__(self, *, model: str, to: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.to = tuple(to)

    def render_template_fields(
        self, context: Context, jinja_env: jinja2.Environment | None = None
    ) -> None:
        """Render nothing: there are no templates, and under `dag.test()` Airflow's own version fails."""

    def message(self, context: Context) -> Message | None:
        """Return what there is to tell; None when nothing happened."""
        raise NotImplementedError

    def notify(self, context: Context) -> None:
        """Send the message, if there is one and it was not sent before."""
        try:
            message = self.message(context)
            if message is not None and self.to:
                self._tell(message, run_key(context))
        except EvergreenError as error:
            self.log.error("nobody was told: %s", error)
        except Exception:  # a message is never worth a run
            self.log.exception("nobody was told")

    @property
    def ledger(self) -> Ledger:
        """Where the events stand."""
        from include.ledger.ledger import Ledger

        return Ledger(get_settings().ledger_dsn)

    def links(self, context: Context, mlflow_run_id: str = "") -> Links:
        """Return the pages of the Airflow run and, where it is known and MLflow answers, of the MLflow run."""
        dag_id, _, run_id = run_key(context).partition("/")
        pages = {"Airflow run": f"{base_url()}/dags/{dag_id}/runs/{run_id}"}
        if mlflow_run_id:
            pages["MLflow run"] = self._mlflow_page(mlflow_run_id)
        return pages

    def _mlflow_page(self, run_id: str) -> str:
        from evergreen.hooks.mlflow_hook import MlflowHook

        try:
            return MlflowHook().run_url(run_id)
        except EvergreenError as error:
            self.log.warning("the message has no link to its MLflow run: %s", error)
            return ""

    def _tell(self, message: Message, actor: str) -> None:
        from evergreen.receivers import receivers
        from include.notify.tell import tell

        told = tell(
            self.ledger,
            self.model,
            message,
            receivers(self.to),
            actor=actor,
            now=datetime.now(UTC),
        )
        if told.delivery is None:
            self.log.info("told before: %s", message.title)
            return
        for name in told.delivery.taken:
            self.log.info("told %s: %s", name, message.title)
        for missed in told.delivery.missed:
            self.log.error("notify.to: somebody did not hear %r: %s", message.title, missed)
        if told.unrecorded:
            self.log.error("the ledger does not know that people were told: %s", told.unrecorded)


class FailureNotifier(Notifier):
    """Tells that a run failed; the `on_failure_callback` of a Dag."""

    def message(self, context: Context) -> Message:
        """Return the message; where no task is to blame, Airflow gives the Dag, the run's id and the reason only."""
        from include.notify.message import failed

        reason = str(context.get("reason") or "task_failure")
        return failed(
            self.model,
            run_key(context),
            reason=_REASONS.get(reason, reason),
            task=context["ti"].task_id if "ti" in context else "",
            try_number=context["ti"].try_number if "ti" in context else 0,
            links={**self.links(context), "MLflow run": self._page_of_task(context)},
        )

    def _page_of_task(self, context: Context) -> str:
        """Return the MLflow run's page as the task stored it: MLflow itself may be what failed."""
        if "ti" not in context:
            return ""
        ti = context["ti"]
        try:
            page = ti.xcom_pull(task_ids=ti.task_id, key=RUN_URL_KEY, map_indexes=ti.map_index)
        except Exception as error:  # noqa: BLE001  # a link is never worth a message
            self.log.info("the message has no link to an MLflow run: %s", error)
            return ""
        return page if isinstance(page, str) else ""


class RejectionNotifier(Notifier):
    """Tells that a challenger was turned down: by the gate, by a person, or as a shadow."""

    def message(self, context: Context) -> Message | None:
        """Return the message; None when nobody said no."""
        from include.notify.news import rejection

        return rejection(
            self.ledger, self.model, run_key(context), lambda run_id: self.links(context, run_id)
        )


class PromotionNotifier(Notifier):
    """Tells that the run made a version champion."""

    def message(self, context: Context) -> Message | None:
        """Return the message; None when the run moved nothing, or somebody moved since."""
        from include.notify.news import promotion

        return promotion(
            self.ledger, self.model, run_key(context), lambda run_id: self.links(context, run_id)
        )


class RollbackNotifier(Notifier):
    """Tells that a deployment took its promotion, or a challenger's traffic, back; `evergreen rollback` tells by itself."""

    def message(self, context: Context) -> Message | None:
        """Return the message; None when nothing was taken back."""
        from include.notify.news import undoing

        return undoing(
            self.ledger, self.model, run_key(context), lambda run_id: self.links(context, run_id)
        )


class ApprovalNotifier(Notifier):
    """Tells that a version waits for an answer; one of the `notifiers` of `approve`."""

    def message(self, context: Context) -> Message:
        """Return the message, with the page where the question is answered."""
        from include.notify.message import waiting
        from include.notify.news import verdict_of

        task: Any = context["task"]
        verdict = verdict_of(self.ledger, self.model, run_key(context))
        run_id = str(verdict.payload.get("run_id") or "") if verdict else ""
        pages = dict(self.links(context, run_id))
        answer = f"{pages['Airflow run']}/tasks/{task.task_id}/required_actions"
        return waiting(
            self.model,
            run_key(context),
            version=task.version["version"],
            reason=task.verdict["reason"],
            verdict=verdict,
            until=str(task.response_timeout),
            links={"Answer here": answer, **pages},
        )


class DriftNotifier(Notifier):
    """Tells that the monitor saw drift, decay or broken data; for `decide`, and tasks after it."""

    def message(self, context: Context) -> Message | None:
        """Return the message; None unless `decide` returned the verdict `ALERT`."""
        from include.notify.message import alerted

        outcome = context["ti"].xcom_pull(task_ids="decide")
        if not isinstance(outcome, Mapping) or outcome.get("verdict") != "ALERT":
            return None
        run_id = str(outcome.get("run_id") or "")
        forced = bool((context.get("params") or {}).get("force"))
        pages = self.links(context, run_id)
        return alerted(self.model, run_key(context), outcome, pages, forced=forced)


_NOTIFIERS: Mapping[str, type[Notifier]] = {
    "failure": FailureNotifier,
    "rejection": RejectionNotifier,
    "promotion": PromotionNotifier,
    "rollback": RollbackNotifier,
    "approval": ApprovalNotifier,
    "drift": DriftNotifier,
}


def notifiers(spec: Spec, *kinds: str) -> list[Any]:
    """Return the notifiers of those of these events that a spec wants told; none where nobody is to be told."""
    wanted: Notify = spec.notify
    if not wanted.to:
        return []
    return [_NOTIFIERS[k](model=spec.model, to=wanted.to) for k in kinds if k in wanted.on]


def run_key(context: Context) -> str:
    """Return the key of a Dag run, from the little that a Dag's callback gets."""
    return f"{context['dag'].dag_id}/{context['run_id']}"


def base_url() -> str:
    """Return the address of Airflow's web UI."""
    return str(conf.get("api", "base_url", fallback="http://127.0.0.1:8080")).rstrip("/")
