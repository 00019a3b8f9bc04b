"""`evergreen status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from include.cli.display import duration, json_option, print_json, print_table

if TYPE_CHECKING:
    from include.stack.status import ComponentStatus, Status

_EXIT_DOWN = 3
_STARTING = 60.0  # seconds a process may take before its first answer


@click.command(short_help="Say what runs, and where.")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Say what runs, and where.

    Exit status: 0 when everything works, 3 when it does not.
    """
    from include.settings import get_settings
    from include.stack.status import get_status

    status = get_status(get_settings())
    if as_json:
        print_json(_as_dict(status))
    else:
        _print(status)
    if not status.healthy:
        ctx.exit(_EXIT_DOWN)


def _as_dict(status: Status) -> dict[str, Any]:
    return {
        "up": status.supervised,
        "healthy": status.healthy,
        "leftovers": list(status.leftovers),
        "components": [
            {
                "name": item.component.name,
                "state": item.process.state,
                "healthy": item.healthy,
                "pid": item.process.pid or None,
                "uptime_seconds": item.process.uptime,
                "port": item.component.port,
                "url": item.component.url or None,
            }
            for item in status.components
        ],
    }


def _row(item: ComponentStatus) -> list[str]:
    if item.healthy:
        word = "[green]healthy[/]"
    elif item.process.state == "RUNNING":
        starting = item.process.uptime is not None and item.process.uptime < _STARTING
        word = "[yellow]starting[/]" if starting else "[yellow]no answer[/]"
    else:
        word = f"[red]{item.process.state.lower()}[/]"
    return [
        item.component.name,
        word,
        str(item.process.pid or "-"),
        duration(item.process.uptime),
        item.component.url or "-",
    ]


def _print(status: Status) -> None:
    if status.leftovers:
        click.echo(
            f"The supervisor is gone, {len(status.leftovers)} of its processes still run. "
            "`./evergreen up` starts afresh, `./evergreen down` ends them."
        )
    elif not status.supervised:
        click.echo("Not running. `./evergreen up` starts it.")
    else:
        print_table(("component", "state", "pid", "up", "address"), map(_row, status.components))
