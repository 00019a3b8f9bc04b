"""`evergreen setup`."""

from __future__ import annotations

import click


@click.command(short_help="Install what Evergreen needs and stop there.")
@click.option("--dev", is_flag=True, help="Also what tests and linters need.")
def command(dev: bool) -> None:
    """Install what Evergreen needs into .venv, from its lock, and stop there.

    The launcher script does it before any command when it is due; this is for doing it alone.
    """
    # By the time Python runs this, the launcher has done the work.
    click.echo(f"Set-up is complete{' (with development tools)' if dev else ''}.")
