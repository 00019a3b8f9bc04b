"""`evergreen down`."""

from __future__ import annotations

import click


@click.command(short_help="Stop them.")
def command() -> None:
    """Stop the stack: everything `up` started, also what a crash left behind. Data stays."""
    stop_stack()


def stop_stack() -> int:
    """Stop the stack and say so; returns how many processes ran."""
    from include.cli.display import get_console
    from include.settings import get_settings
    from include.stack import lifecycle

    console = get_console()
    with console.status("Stopping"):
        stopped = lifecycle.down(get_settings(), lifecycle.Reports(say=console.print))
    console.print("Stopped." if stopped else "Nothing was running.")
    return stopped
