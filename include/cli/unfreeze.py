"""`evergreen unfreeze`."""

from __future__ import annotations

import getpass
import uuid
from datetime import UTC, datetime

import click


@click.command(short_help="Let a frozen model be retrained again.")
@click.argument("name")
@click.option("--reason", default="by hand", show_default=True, help="Why; kept in the ledger.")
def command(name: str, reason: str) -> None:
    """Let the model NAME be retrained again after `evergreen freeze`."""
    from include.ledger.ledger import Ledger
    from include.settings import get_settings
    from include.spec.loader import find_spec

    settings = get_settings()
    find_spec(name, settings)
    Ledger(settings.ledger_dsn).unfreeze(
        name,
        reason,
        key=f"unfreeze/cli/{uuid.uuid4().hex}",
        actor=f"{getpass.getuser()} (command line)",
        now=datetime.now(UTC),
    )
    click.echo(f"{name} may be retrained again.")
