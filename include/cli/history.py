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
#: Passes of the monitor that come one after the other and found nothing are told as one.
_QUIET = ("OK", "INSUFFICIENT_DATA")


@click.command(short_help="Show what was decided about a model, and by whom.")
@click.argument("name")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="How many events, the newest; quiet passes of the monitor in a row are told as one.",
)
@json_option
@click.pass_context
def command(ctx: click.Context, name: str, limit: int, as_json: bool) -> None:
    """Show what was decided about the model NAME and by whom, from the ledger.

    Also checks the ledger's chain of hashes: exit status 1 when somebody changed a row.
    """
    from include.ledger.ledger import Ledger
    from include.registry.pins import find_pin
    from include.settings import get_settings

    settings = get_settings()
    ledger = Ledger(settings.ledger_dsn)
    told = [event for event in ledger.events(name) if event.kind not in _BOOKKEEPING]
    if not told:
        _ensure_known(name)
    verification = ledger.verify(name)
    standing = find_pin(ledger, name)
    if as_json:
        keys = ("seq", "at", "kind", "actor", "payload", "hash")
        print_json(
            {
                "model": name,
                "intact": verification.ok,
                "problem": verification.problem,
                "pin": standing.to_dict() if standing else None,
                "events": [{key: getattr(event, key) for key in keys} for event in told[-limit:]],
            }
        )
    elif told:
        _print(_grouped(told)[-limit:])
        if standing:
            click.secho(f"{name} is {standing}", fg="yellow")
    else:
        click.echo(f"Nothing has been decided about {name} yet.")
    if not verification.ok:
        click.secho(f"The ledger is not intact: {verification.problem}", fg="red", err=True)
        ctx.exit(1)


def _ensure_known(name: str) -> None:
    # A model whose spec is gone still has its history; one without either is a typing error.
    from include.spec.loader import find_spec

    find_spec(name)


def _grouped(events: Sequence[Event]) -> list[list[Event]]:
    """Put quiet passes of the monitor that follow each other together; every other event stands alone."""
    groups: list[list[Event]] = []
    for event in events:
        if groups and _is_like(groups[-1][-1], event):
            groups[-1].append(event)
        else:
            groups.append([event])
    return groups


def _is_like(before: Event, event: Event) -> bool:
    same = ("verdict", "version")
    return (
        before.kind == event.kind == "monitor"
        and event.payload.get("verdict") in _QUIET
        and all(before.payload.get(name) == event.payload.get(name) for name in same)
    )


def _print(groups: Sequence[Sequence[Event]]) -> None:
    console = get_console()
    for group in groups:
        event, many = group[-1], len(group) > 1
        when = event.at[:19].replace("T", " ")
        kind = event.kind.replace("_", " ")
        told = describe(event.payload)
        if many:
            told = f"{len(group)} windows in a row {told}"
        console.print(f"{when}  {kind:<10}", style="dim", end="  ", soft_wrap=True)
        console.print(told, markup=False, soft_wrap=True)
        if not many:
            console.print(f"{'':<33}by {event.actor}", style="dim", markup=False, soft_wrap=True)


def describe(payload: dict[str, Any]) -> str:
    """Return an event's payload as a sentence: the verdict or move, and the reason."""
    reason = payload.get("reason") or ""
    because = f": {reason}" if reason else ""
    if (wish := payload.get("wish")) and wish not in reason:
        because += f" ({wish})"
    if as_of := payload.get("as_of"):
        because += f" (as of {as_of[:16].replace('T', ' ')})"
    if "action" in payload and "mode" in payload:
        how = payload.get("outcome") or f"{payload['share']:.0%}"
        return f"{payload['action']}, {payload['mode']} of version {payload['version']}, {how}{because}"
    if "window" in payload and "verdict" in payload:
        return f"{payload['verdict']}, {_window(payload)}{because}"
    if "verdict" in payload:
        return f"{payload['verdict']}{because}"
    if "to" in payload:
        return f"version {payload.get('from') or 'none'} → {payload['to'] or 'none'}{because}"
    if payload.keys() == {"version", "reason"}:
        return f"version {payload['version']}{because}"
    if "request" in payload:
        return f"{payload['source']}{because}"
    if reason:
        return str(payload["reason"])
    return json.dumps(payload, sort_keys=True, default=str)


def _window(payload: dict[str, Any]) -> str:
    """Return which window of which version a pass of the monitor judged."""
    ends = (str(payload.get(name) or "?")[:16].replace("T", " ") for name in ("start", "end"))
    rows = f", {payload['rows']:,} rows" if isinstance(payload.get("rows"), int) else ""
    return f"version {payload.get('version')}, {' to '.join(ends)}{rows}"
