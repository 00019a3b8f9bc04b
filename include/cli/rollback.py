"""`evergreen rollback`."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from include.cli.display import json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from include.ledger.chain import Event
    from include.rollback.rollback import RollbackResult
    from include.settings import Settings

_PATIENCE = 120.0  # seconds; a mail server that does not answer takes its time


@click.command(short_help="Let an earlier version serve again.")
@click.argument("name")
@click.option("--to", "version", metavar="VERSION", help="Which; else the previous champion.")
@click.option("--reason", default="by hand", show_default=True, help="Why; kept in the ledger.")
@json_option
def command(name: str, version: str | None, reason: str, as_json: bool) -> None:
    """Let an earlier version of the model NAME serve again, and keep it there.

    The version is tried first; one that fails moves nothing. It is then pinned, so that nothing is promoted until
    `evergreen unpin`, and becomes champion; the command ends once every live serving process answers with it. Given
    again without `--to`, it goes to the pinned version, never further back. The ledger keeps who did it and why.
    Whom the spec's `notify` names for rollbacks is told.

    Exit status: 1 when nothing was moved, or when a serving process does not answer with it.
    """
    from include.ledger.ledger import Ledger
    from include.registry.gateway import Registry
    from include.rollback.rollback import Rollback, roll_back
    from include.settings import get_settings
    from include.stack.status import running_settings

    settings = running_settings(get_settings())
    ask = Rollback(
        registry=Registry(settings.mlflow),
        ledger=Ledger(settings.ledger_dsn),
        name=name,
        cache=settings.home / "cache" / "models",
        key=f"rollback/cli/{uuid.uuid4().hex}",
        reason=reason,
        actor=f"{getpass.getuser()} (command line)",
        clock=lambda: datetime.now(UTC),
        sleep=time.sleep,
    )
    result = roll_back(ask, version)
    if as_json:
        print_json(result.to_dict())
    else:
        _print(result)
    tell_people(settings, result.move)
    result.require_all()


def _print(result: RollbackResult) -> None:
    was = f"was {result.previous}" if result.previous else "there was none"
    if result.previous == result.version:
        was = "as before"
    click.echo(f"Champion of {result.model}: version {result.version} ({was}).")
    click.echo(f"Nothing is promoted until `./evergreen unpin {result.model}`.")
    click.echo(result.said)


def tell_people(settings: Settings, event: Event) -> None:
    """Tell whom the spec names; the rollback is done, so that whatever goes wrong here is only said."""
    from include.errors import EvergreenError
    from include.notify.channels import CONNECTION
    from include.spec.loader import find_spec, load_spec

    if event.kind != "rollback":
        return  # the version was champion already, by whatever made it so
    try:
        notify = load_spec(find_spec(event.model, settings), settings).notify
        if "rollback" not in notify.on or not notify.to:
            return
        kept = any(receiver.startswith(CONNECTION) for receiver in notify.to)
        told = _ask_airflow(settings, event) if kept else _tell(settings, event, notify.to)
    except EvergreenError as error:
        click.echo(f"Nobody was told: {error}", err=True)
        return
    for receiver in told["taken"]:
        click.echo(f"Told {receiver}", err=True)
    for missed in told["missed"]:
        click.echo(f"Not told: {missed}", err=True)


def _tell(settings: Settings, event: Event, to: Sequence[str]) -> dict[str, Any]:
    from include.notify.channels import receiver_of
    from include.notify.rollback import tell_rollback

    receivers = [receiver_of(url) for url in to]
    delivery = tell_rollback(settings, event, receivers, now=datetime.now(UTC)).delivery
    return {
        "taken": delivery.taken if delivery else (),
        "missed": delivery.missed if delivery else (),
    }


def _ask_airflow(settings: Settings, event: Event) -> dict[str, Any]:
    """Let a process of Airflow tell, which alone can read connections.

    Raises:
        ServiceError: It could not.
    """
    from include.errors import ServiceError

    command = [sys.executable, "-m", "evergreen.tell", event.model, str(event.seq)]
    try:
        done = subprocess.run(
            command,
            env=_airflow_environment(settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        output = getattr(error, "stderr", None) or str(error)
        raise ServiceError(
            "notify.to",
            f"Airflow must be able to read its connections, got {str(output).splitlines()[-1]}",
            "The rollback is done.",
        ) from error
    return answer


def _airflow_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of the embedded Airflow; this process's own where Airflow is elsewhere."""
    from include.stack.credentials import read_credentials
    from include.stack.environment import stack_environment
    from include.stack.layout import get_layout

    layout = get_layout(settings.home)
    credentials = None if settings.airflow_url else read_credentials(layout)
    if credentials is None:
        return dict(os.environ)
    return stack_environment(settings, layout, credentials, os.environ)
