"""`evergreen rollback`."""

from __future__ import annotations

import getpass
import uuid
from datetime import UTC, datetime

import click

from include.cli.display import json_option, print_json


@click.command(short_help="Let an earlier version serve again.")
@click.argument("name")
@click.option("--to", "version", metavar="VERSION", help="Which; else the previous champion.")
@click.option("--reason", default="by hand", show_default=True, help="Why; kept in the ledger.")
@json_option
def command(name: str, version: str | None, reason: str, as_json: bool) -> None:
    """Let an earlier version of the model NAME serve again.

    The ledger keeps who did it and why; serving follows within seconds.
    """
    from include.ledger.ledger import Ledger
    from include.registry.gateway import Registry
    from include.registry.promotion import rollback
    from include.settings import get_settings
    from include.stack.status import running_settings

    settings = running_settings(get_settings())
    event = rollback(
        Registry(settings.mlflow),
        Ledger(settings.ledger_dsn),
        name,
        to=version,
        key=f"rollback/cli/{uuid.uuid4().hex}",
        reason=reason,
        actor=f"{getpass.getuser()} (command line)",
        now=datetime.now(UTC),
    )
    before, after = event.payload.get("from"), event.payload["to"]
    if as_json:
        print_json({"model": name, "from": before, "to": after, "seq": event.seq})
    else:
        click.echo(f"Champion of {name}: version {after} (was {before}).")
