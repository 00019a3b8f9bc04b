"""`evergreen lineage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from include.cli.display import get_console, json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from include.registry.package import Version
    from include.settings import Settings
    from include.store.snapshots import Manifest

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
    from include.registry.lookup import choose_version
    from include.settings import get_settings
    from include.stack.status import running_settings

    settings = running_settings(get_settings())
    registry = Registry(settings.mlflow)
    found = choose_version(registry, name, version)
    facts = {
        "model": found.name,
        "version": found.version,
        "aliases": list(found.aliases),
        "created_at": found.created_at,
        "run_id": found.run_id,
        "run_url": registry.run_url(found.run_id),
        "snapshot": _snapshot(found, settings),
        "tags": dict(sorted(found.tags.items())),
    }
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def _snapshot(version: Version, settings: Settings) -> dict[str, Any] | None:
    """Return what is known of a version's data; None when the store no longer holds it."""
    from include.errors import SnapshotError
    from include.store.files import open_store
    from include.store.snapshots import read_manifest

    snapshot_id = version.tags.get("evergreen.snapshot_id")
    if not snapshot_id:
        return None
    store = open_store(settings.store_uri, cache=settings.home / "cache")
    try:
        return snapshot_facts(read_manifest(store, version.name, snapshot_id))
    except SnapshotError:
        return None


def snapshot_facts(manifest: Manifest) -> dict[str, Any]:
    """Return what a person wants to know of a snapshot, as plain JSON values."""
    keys = ("snapshot_id", "rows", "source", "time_start", "time_end", "created_at")
    return {key: getattr(manifest, key) for key in keys}


def describe_snapshot(facts: Mapping[str, Any]) -> str:
    """Return `snapshot_facts` as one line."""
    start, end = facts["time_start"], facts["time_end"]
    span = f", {start[:10]} to {end[:10]}" if start and end else ""
    return f"{facts['snapshot_id']}, {facts['rows']:,} rows of {facts['source']}{span}"


def _print(facts: dict[str, Any]) -> None:
    console = get_console()
    aliases = f" ({', '.join(facts['aliases'])})" if facts["aliases"] else ""
    console.print(f"[bold]{facts['model']} version {facts['version']}[/]{aliases}")
    lines = {"registered": facts["created_at"]}
    lines |= {label: facts["tags"][tag] for tag, label in _LABELS.items() if tag in facts["tags"]}
    if "snapshot" in lines:
        snapshot = facts["snapshot"]
        gone = f"{lines['snapshot']}, no longer in the store"
        lines["snapshot"] = describe_snapshot(snapshot) if snapshot else gone
    lines["MLflow run"] = facts["run_url"]
    for label, value in lines.items():
        console.print(f"  {label:<22} {value}", markup=False, soft_wrap=True)
