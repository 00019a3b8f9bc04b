"""`evergreen check`: every problem of every spec at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pathlib import Path

    from include.spec.loader import Problem


@click.command("check")
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print the problems as a JSON list.")
def command(names: tuple[str, ...], as_json: bool) -> None:
    """List every problem of every spec, or of the NAMES given; exit 1 if there is any."""
    from include.spec.loader import find_spec, spec_paths

    paths = [find_spec(name) for name in names] if names else spec_paths()
    problems: list[Problem] = []
    for path in paths:
        problems += _problems(path)
    if as_json:
        click.echo(json.dumps([vars(p) for p in problems], indent=2))
    else:
        for problem in problems:
            click.echo(str(problem))
        count = f"{len(paths)} spec{'s' if len(paths) != 1 else ''}"
        click.echo(
            f"{count} checked: {len(problems) or 'no'} problem{'s' if len(problems) != 1 else ''}."
        )
    if problems:
        raise SystemExit(1)


def _problems(path: Path) -> list[Problem]:
    from include.settings import get_settings
    from include.spec.loader import InvalidSpecError, Problem, display_path, load_spec
    from include.train.candidates import check_candidates

    try:
        spec = load_spec(path)
    except InvalidSpecError as error:
        return list(error.problems)
    return [
        Problem(display_path(path), key, *text.split(". ", 1))
        for key, text in check_candidates(spec, get_settings().allowed_prefixes)
    ]
