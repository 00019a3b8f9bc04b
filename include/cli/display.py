"""How commands speak: JSON for programs, a table or a line for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def print_json(value: Any) -> None:
    """Print one JSON document on standard output; times and paths become text."""
    click.echo(json.dumps(value, indent=2, default=str))


def get_console(*, stderr: bool = False) -> Console:
    """Return a console that writes plain text where no terminal is."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table; cells may hold rich markup."""
    from rich import box
    from rich.table import Table

    table = Table(*columns, title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for row in rows:
        table.add_row(*row)
    get_console().print(table)


def duration(seconds: float | None) -> str:
    """Return seconds as a person says them; a dash for None."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    return f"{whole // 3600} h" if whole < 172_800 else f"{whole // 86_400} d"
