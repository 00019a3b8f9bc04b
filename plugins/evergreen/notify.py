"""Messages to people: one per event, through any channel Apprise speaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook, BaseNotifier
from airflow.sdk.configuration import conf

from include.errors import ServiceError, SpecError

if TYPE_CHECKING:
    from airflow.sdk import Context

_CONNECTION = "connection:"


class FailureNotifier(BaseNotifier):
    """Tells a model's people that a run of its Dag failed.

    Args:
        model: Name of the model.
        to: Apprise URLs, or `connection:<id>` whose host (or extra `url`) is one.
    """

    template_fields: Sequence[str] = ()

    def __init__(self, *, model: str, to: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.to = tuple(to)

    def notify(self, context: Context) -> None:
        """Send the message."""
        run = context["dag_run"]
        reason = context.get("reason") or "a task failed"
        link = f"{_base_url()}/dags/{run.dag_id}/runs/{run.run_id}"
        send(self.to, f"{self.model}: {run.dag_id} failed", f"{reason}\nRun {run.run_id}\n{link}")


def send(to: Sequence[str], title: str, body: str) -> None:
    """Send one message to every receiver.

    Raises:
        SpecError: A receiver is not an address Apprise knows.
        ServiceError: A channel did not take the message.
    """
    if not to:
        return
    import apprise

    channel = apprise.Apprise()
    for receiver in to:
        if not channel.add(_url(receiver)):
            shown = (
                receiver
                if receiver.startswith(_CONNECTION)
                else receiver.partition("://")[0] + "://..."
            )
            raise SpecError(
                "notify.to",
                f"must be Apprise URLs, got {shown}",
                "See the list of services in Apprise's manual.",
            )
    if not channel.notify(title=title, body=body):
        raise ServiceError(
            "notify.to", "every channel must take the message, got a refusal", "See the log above."
        )


def _url(receiver: str) -> str:
    if not receiver.startswith(_CONNECTION):
        return receiver
    connection = BaseHook.get_connection(receiver.removeprefix(_CONNECTION))
    return str(connection.extra_dejson.get("url") or connection.host or "")


def _base_url() -> str:
    return str(conf.get("api", "base_url", fallback="http://127.0.0.1:8080")).rstrip("/")
