"""`evergreen logs`."""

from __future__ import annotations

import time
from pathlib import Path

import click


@click.command(short_help="Show the end of a component's log.")
@click.argument("name")
@click.option("-n", "--lines", default=40, show_default=True, help="How many lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added, until Ctrl-C.")
def command(name: str, lines: int, follow: bool) -> None:
    """Show the end of the log of NAME: mlflow, api-server, scheduler, dag-processor, triggerer,
    serving, watcher, supervisord or databases.
    """  # noqa: D205 - click joins the lines
    from include.errors import SpecError
    from include.settings import get_settings
    from include.stack.layout import get_layout
    from include.stack.supervision import last_lines

    layout = get_layout(get_settings().home)
    known = sorted(path.stem for path in layout.logs.glob("*.log"))
    if name not in known:
        raise SpecError(
            "logs",
            f"NAME must be one of {', '.join(known) or 'none yet'}, got {name!r}",
            "Choose one, or start the stack first.",
        )
    for line in last_lines(layout.log(name), lines):
        click.echo(line)
    if follow:
        _follow(layout.log(name))


def _follow(path: Path) -> None:
    file = path.open(errors="replace")
    file.seek(0, 2)
    try:
        while True:
            text = file.read()
            if text:
                click.echo(text, nl=False)
                continue
            time.sleep(0.3)
            if path.exists() and path.stat().st_ino != _inode(file.fileno()):
                file.close()
                file = path.open(errors="replace")  # rotated
    finally:
        file.close()


def _inode(descriptor: int) -> int:
    import os

    return os.fstat(descriptor).st_ino
