"""`evergreen freeze`."""

from __future__ import annotations

import getpass
import uuid
from datetime import UTC, datetime

import click


@click.command(short_help="Stop retraining a model.")
@click.argument("name")
@click.option("--reason", default="by hand", show_default=True, help="Why; kept in the ledger.")
def command(name: str, reason: str) -> None:
    """Stop retraining the model NAME until `evergreen unfreeze`; its champion goes on serving.

    A run that is forced still goes through. The ledger keeps who did it and why.
    """
    from include.ledger.ledger import Ledger
    from include.settings import get_settings
    from include.spec.loader import find_spec

    settings = get_settings()
    find_spec(name, settings)  # a name mistyped would freeze nothing
    event = Ledger(settings.ledger_dsn).freeze(
        name,
        reason,
        key=f"freeze/cli/{uuid.uuid4().hex}",
        actor=f"{getpass.getuser()} (command line)",
        now=datetime.now(UTC),
    )
    click.echo(f"{name} is frozen: {event.payload['reason']}.")
