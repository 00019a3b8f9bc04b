"""`evergreen forget`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from include.cli.display import json_option, print_json

if TYPE_CHECKING:
    from include.settings import Settings
    from include.store.forget import Forgotten


@click.command(short_help="Remove one entity from logs, labels and refused data.")
@click.argument("name")
@click.option("--key", required=True, help="The entity: a value of the model's key column.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def command(name: str, key: str, yes: bool, as_json: bool) -> None:
    """Remove what the model NAME has logged about one entity; it cannot be undone.

    Predictions, labels and refused snapshots are searched. Snapshots that versions were trained on stay. Predictions
    made in the last seconds are still in the memory of serving: run it again a little later.
    """
    from include.settings import get_settings
    from include.spec.loader import find_spec, load_spec
    from include.stack.status import running_settings
    from include.store.files import open_store
    from include.store.forget import forget

    settings = running_settings(get_settings())
    spec = load_spec(find_spec(name, settings), settings)
    if not yes:
        click.confirm(f"Remove what is known about {key} from the logs of {name}?", abort=True)
    gone = forget(
        open_store(settings.store_uri),
        name,
        key,
        column=spec.ingest.key,
        in_use=lambda: _trained_on(settings, name),
    )
    if as_json:
        print_json({"model": name, "key": key, **asdict(gone)})
    else:
        _report(name, gone, settings.log_seconds)


def _trained_on(settings: Settings, name: str) -> set[str]:
    from include.registry.gateway import Registry

    versions = Registry(settings.mlflow).versions(name)
    return {version.tags.get("evergreen.snapshot_id", "") for version in versions}


def _report(name: str, gone: Forgotten, seconds: float) -> None:
    refused = f"{gone.quarantine} in {len(gone.snapshots)} refused snapshots (removed whole)"
    click.echo(
        f"{name}: removed {gone.predictions} rows of predictions, {gone.labels} labels, {refused}."
    )
    if gone.copies:
        click.echo(f"Removed {gone.copies} work files of the monitor.")
    if gone.kept:
        click.echo(f"Kept, because a version was trained on it: snapshot {', '.join(gone.kept)}.")
    click.echo(
        "What stays: the snapshots that versions were trained on, and the reports in MLflow. Rows that serving "
        f"holds in memory are written within {seconds:g} seconds: run it again then."
    )
