"""`evergreen unpin`."""

from __future__ import annotations

import getpass
import uuid
from datetime import UTC, datetime

import click

from include.cli.display import json_option, print_json


@click.command(short_help="Let a rolled-back model be promoted again.")
@click.argument("name")
@click.option("--reason", default="by hand", show_default=True, help="Why; kept in the ledger.")
@json_option
def command(name: str, reason: str, as_json: bool) -> None:
    """Release the pin that `evergreen rollback` set on the model NAME.

    From then on a version that passes the gate is promoted again; the champion stays until one does.
    """
    from include.ledger.ledger import Ledger
    from include.registry.pins import unpin
    from include.settings import get_settings
    from include.spec.loader import find_spec

    settings = get_settings()
    ledger = Ledger(settings.ledger_dsn)
    released = unpin(
        ledger,
        name,
        reason=reason,
        key=f"unpin/cli/{uuid.uuid4().hex}",
        actor=f"{getpass.getuser()} (command line)",
        now=datetime.now(UTC),
    )
    if released is None and not ledger.head(name):
        find_spec(name, settings)  # a name mistyped is pinned to nothing
    version = released.payload["version"] if released else None
    if as_json:
        print_json({"model": name, "released": version})
    elif version:
        click.echo(f"{name} is no longer pinned to version {version}.")
    else:
        click.echo(f"{name} is not pinned.")
