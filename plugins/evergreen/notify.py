"""Messages to people: one per event, through any channel Apprise speaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from airflow.sdk import BaseHook, BaseNotifier
from airflow.sdk.configuration import conf
from airflow.sdk.log import mask_secret

from include.errors import ServiceError, SpecError

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context

_CONNECTION = "connection:"
_TOKEN_LENGTH = 8
_REASONS = {
    "task_failure": "a task failed",
    "all_tasks_deadlocked": "its tasks wait for each other",
}


class FailureNotifier(BaseNotifier):
    """Tells a model's people that a run of its Dag failed.

    A message that cannot be sent is an error in the log; the run is not touched.

    Args:
        model: Name of the model.
        to: Apprise URLs, or `connection:<id>` whose host (or extra `url`) is one.
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

    def notify(self, context: Context) -> None:
        """Send the message."""
        # Where the run has no task to speak of, Airflow gives the Dag, the run's id and the reason only.
        run_id = context["run_id"]
        reason = str(context.get("reason") or "task_failure")
        lines = [_REASONS.get(reason, reason), f"Run {run_id}"]
        if "ti" in context:
            lines.insert(1, f"Task {context['ti'].task_id}")
        dag_id = context["dag"].dag_id
        lines.append(f"{_base_url()}/dags/{dag_id}/runs/{run_id}")
        send(self.to, f"{self.model}: {dag_id} failed", "\n".join(lines))


def send(to: Sequence[str], title: str, body: str) -> None:
    """Send one message to every receiver; a wrong receiver does not keep it from the others.

    Raises:
        SpecError: A receiver is not an address Apprise knows.
        ServiceError: A channel did not take the message.
    """
    if not to:
        return
    import apprise

    channels, wrong = apprise.Apprise(), []
    for receiver in to:
        url = _url(receiver)
        _mask(url)
        if not channels.add(url):
            wrong.append(hide_address(receiver))
    taken = len(channels) == 0 or channels.notify(title=title, body=body)
    if wrong:
        raise SpecError(
            "notify.to",
            f"must be Apprise URLs, got {', '.join(wrong)}",
            "See the list of services in Apprise's manual.",
        )
    if not taken:
        raise ServiceError(
            "notify.to", "every channel must take the message, got a refusal", "See the log above."
        )


def _url(receiver: str) -> str:
    if not receiver.startswith(_CONNECTION):
        return receiver
    connection = BaseHook.get_connection(receiver.removeprefix(_CONNECTION))
    return str(connection.extra_dejson.get("url") or connection.host or "")


def _mask(url: str) -> None:
    """Keep an address out of the logs: passwords and tokens stand in it, anywhere behind the scheme."""
    rest = url.partition("://")[2]
    try:
        password = unquote(urlsplit(url).password or "")
    except ValueError:  # not a URL; then it is refused
        password = ""
    tokens = [part for part in rest.split("/") if len(part) >= _TOKEN_LENGTH]
    for secret in (url, password, *tokens):
        if secret:
            mask_secret(secret)


def hide_address(receiver: str) -> str:
    """Return a receiver without what it keeps secret: its scheme, or the name of its connection."""
    if receiver.startswith(_CONNECTION):
        return receiver
    scheme, separator, _ = receiver.partition("://")
    return f"{scheme}://..." if separator else "text without ://"


def _base_url() -> str:
    return str(conf.get("api", "base_url", fallback="http://127.0.0.1:8080")).rstrip("/")
