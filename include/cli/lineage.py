"""`evergreen lineage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from include.cli.display import get_console, json_option, print_json

if TYPE_CHECKING:
    from include.registry.gateway import Registry
    from include.registry.package import Version

#: What a person reads, by tag, in the order from cause to result.
_LABELS = {
    "evergreen.snapshot_id": "snapshot",
    "evergreen.cutoff": "trained on rows up to",
    "evergreen.spec_hash": "spec",
    "evergreen.git_commit": "git commit",
    "evergreen.lock_hash": "library lock",
    "evergreen.seed": "seed",
    "airflow.dag_id": "Dag",
    "airflow.run_id": "Dag run",
    "evergreen.verdict": "verdict",
}


@click.command(short_help="Show what a version was made from.")
@click.argument("name")
@click.argument("version", required=False)
@json_option
def command(name: str, version: str | None, as_json: bool) -> None:
    """Show what a version of the model NAME was made from: data, spec, code, libraries, run.

    VERSION is a number or an alias; without it, the champion, else the newest.
    """
    from include.registry.gateway import Registry
    from include.settings import get_settings
    from include.stack.status import running_settings

    registry = Registry(running_settings(get_settings()).mlflow)
    found = _find(registry, name, version)
    # Versions found by search carry no aliases.
    aliases = sorted(a for a, v in registry.aliases(name).items() if v == found.version)
    facts = {
        "model": found.name,
        "version": found.version,
        "aliases": aliases,
        "created_at": found.created_at,
        "run_id": found.run_id,
        "run_url": registry.run_url(found.run_id),
        "tags": dict(sorted(found.tags.items())),
    }
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def _find(registry: Registry, name: str, version: str | None) -> Version:
    from include.errors import ModelError

    if version is not None:
        found = registry.get_version(name, version)
    else:
        found = registry.get_version(name, "champion") or next(iter(registry.versions(name)), None)
    if found is None:
        known = ", ".join(item.version for item in registry.versions(name))
        raise ModelError(
            f"MLflow model {name!r}",
            f"must have version {version or 'any'}, got {f'only {known}' if known else 'none'}",
            "Choose one of those." if known else f"Train it: `./evergreen trigger {name}`.",
        )
    return found


def _print(facts: dict[str, Any]) -> None:
    console = get_console()
    aliases = f" ({', '.join(facts['aliases'])})" if facts["aliases"] else ""
    console.print(f"[bold]{facts['model']} version {facts['version']}[/]{aliases}")
    lines = {"registered": facts["created_at"]}
    lines |= {label: facts["tags"][tag] for tag, label in _LABELS.items() if tag in facts["tags"]}
    lines["MLflow run"] = facts["run_url"]
    for label, value in lines.items():
        console.print(f"  {label:<22} {value}", markup=False, soft_wrap=True)
