"""`evergreen new`: a spec from a data file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from include.profile.new import NewSpec


@click.command("new")
@click.argument("name")
@click.option(
    "--from", "source", required=True, metavar="FILE", help="CSV, Parquet or JSONL file, or a glob."
)
@click.option("--target", required=True, metavar="COLUMN", help="Column to predict.")
@click.option("--time", metavar="COLUMN", help="When a row happened; looked for when omitted.")
@click.option("--key", metavar="COLUMN", help="What identifies a row; looked for when omitted.")
@click.option(
    "--task",
    type=click.Choice(["binary", "multiclass", "regression"]),
    help="Kind of prediction; goes by the target's values when omitted.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing spec.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def command(
    name: str,
    source: str,
    target: str,
    time: str | None,
    key: str | None,
    task: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Profile a data file and write a spec for it.

    The commented spec of the model NAME goes to include/models, ready for `check` and `run`.
    """
    from include.profile.new import new_spec
    from include.settings import get_settings

    made = new_spec(
        name, source, target, settings=get_settings(), time=time, key=key, task=task, force=force
    )
    if as_json:
        click.echo(json.dumps(_as_dict(made, name), indent=2, ensure_ascii=False))
    else:
        _print(made, name)


def _as_dict(made: NewSpec, name: str) -> dict[str, object]:
    draft = made.draft
    return {
        "model": name,
        "path": str(made.path),
        "rows": draft.rows,
        "task": draft.target.task,
        "target": draft.target.column.name,
        "positive": draft.target.positive,
        "key": draft.key.name if draft.key else None,
        "time": draft.time.name if draft.time else None,
        "numeric": [c.name for c in draft.numeric],
        "categorical": [c.name for c in draft.categorical],
        "drop": {column: reason for column, reason in draft.drop},
        "findings": [vars(finding) for finding in draft.findings],
    }


def _print(made: NewSpec, name: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from include.spec.loader import display_path

    draft = made.draft
    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "column", "found"):
        table.add_column(title)
    for finding in draft.findings:
        style = "yellow" if finding.warn else ""
        table.add_row(
            escape(finding.kind), escape(finding.column or ""), escape(finding.message), style=style
        )
    console.print(table)
    features = f"{len(draft.numeric)} numeric and {len(draft.categorical)} categorical features"
    console.print(f"\n{draft.rows:,} rows, {features}, {len(draft.drop)} columns left out.")
    console.print(f"Wrote [bold]{escape(display_path(made.path))}[/]. Read it, then:")
    console.print(f"  ./evergreen check {name}\n  ./evergreen trigger {name}")
