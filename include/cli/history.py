"""`evergreen history`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from include.cli.display import get_console, json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from include.ledger.chain import Event

#: Says that MLflow was brought in line with an earlier row; nothing was decided.
_BOOKKEEPING = ("applied",)


@click.command(short_help="Show what was decided about a model, and by whom.")
@click.argument("name")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="How many events, the newest.",
)
@json_option
@click.pass_context
def command(ctx: click.Context, name: str, limit: int, as_json: bool) -> None:
    """Show what was decided about the model NAME and by whom, from the ledger.

    Also checks the ledger's chain of hashes: exit status 1 when somebody changed a row.
    """
    from include.ledger.ledger import Ledger
    from include.settings import get_settings

    settings = get_settings()
    ledger = Ledger(settings.ledger_dsn)
    told = [event for event in ledger.events(name) if event.kind not in _BOOKKEEPING]
    events = told[-limit:]
    if not events:
        _ensure_known(name)
    verification = ledger.verify(name)
    if as_json:
        keys = ("seq", "at", "kind", "actor", "payload", "hash")
        print_json(
            {
                "model": name,
                "intact": verification.ok,
                "problem": verification.problem,
                "events": [{key: getattr(event, key) for key in keys} for event in events],
            }
        )
    elif events:
        _print(events)
    else:
        click.echo(f"Nothing has been decided about {name} yet.")
    if not verification.ok:
        click.secho(f"The ledger is not intact: {verification.problem}", fg="red", err=True)
        ctx.exit(1)


def _ensure_known(name: str) -> None:
    # A model whose spec is gone still has its history; one without either is a typing error.
    from include.spec.loader import find_spec

    find_spec(name)


def _print(events: Sequence[Event]) -> None:
    console = get_console()
    for event in events:
        when = event.at[:19].replace("T", " ")
        console.print(f"{when}  {event.kind:<10}", style="dim", end="  ", soft_wrap=True)
        console.print(describe(event.payload), markup=False, soft_wrap=True)
        console.print(f"{'':<33}by {event.actor}", style="dim", markup=False, soft_wrap=True)


def describe(payload: dict[str, Any]) -> str:
    """Return an event's payload as a sentence: the verdict or move, and the reason."""
    reason = payload.get("reason") or ""
    because = f": {reason}" if reason else ""
    if wish := payload.get("wish"):
        because += f" ({wish})"
    if "verdict" in payload:
        return f"{payload['verdict']}{because}"
    if "to" in payload:
        return f"version {payload.get('from') or 'none'} → {payload['to'] or 'none'}{because}"
    if reason:
        return str(payload["reason"])
    return json.dumps(payload, sort_keys=True, default=str)
