"""`evergreen reproduce`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from include.cli.display import duration, get_console, json_option, print_json
from include.cli.lineage import describe_snapshot, snapshot_facts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from include.reproduce.changes import Change
    from include.reproduce.rebuild import Rebuild
    from include.reproduce.record import Record
    from include.store.snapshots import Manifest

_SHOWN_CHANGES = 10
_WORDS = {
    "identical": "[green]identical[/]",
    "equal": "[green]equal within 1e-9[/]",
    "different": "[red]different[/]",
}


@click.command(short_help="Build a version again and compare.")
@click.argument("name")
@click.argument("version")
@json_option
@click.pass_context
def command(ctx: click.Context, name: str, version: str, as_json: bool) -> None:
    """Train a version of the model NAME again and compare its predictions with the stored one's.

    VERSION is a number or an alias. Data, spec, arguments and seed are those the version was made from,
    whatever the spec says now; only the code and the libraries are the present ones. Nothing is registered.

    Exit status 1 when the two predict differently.
    """
    from include.registry.gateway import Registry
    from include.registry.lookup import choose_version
    from include.reproduce.changes import find_changes, likely_reasons, look_around
    from include.reproduce.rebuild import read_snapshot, rebuild
    from include.reproduce.record import read_record
    from include.settings import get_settings
    from include.stack.status import running_settings
    from include.store.files import open_store

    settings = running_settings(get_settings())
    registry = Registry(settings.mlflow)
    cache = settings.home / "cache"
    package = registry.load(choose_version(registry, name, version), cache / "models")
    record = read_record(package)
    store = open_store(settings.store_uri, cache=cache)
    manifest = read_snapshot(record, store)
    changes = find_changes(record, look_around(record, settings))
    if not as_json:
        _print_recipe(record, manifest, changes)
    with get_console(stderr=as_json).status("Training it again"):
        result = rebuild(record, store, manifest)
    same = result.comparison.verdict == "identical"
    reasons = [] if same else likely_reasons(record, changes, manifest)
    if as_json:
        facts = _facts(record, manifest)
        facts["changes"] = [vars(change) for change in changes]
        print_json({**facts, **_outcome(result), "reasons": reasons})
    else:
        _print_outcome(result, reasons)
    if result.comparison.verdict == "different":
        ctx.exit(1)


def _facts(record: Record, manifest: Manifest) -> dict[str, Any]:
    estimator = record.estimator
    return {
        "model": record.spec.model,
        "version": record.package.version.version,
        "snapshot": snapshot_facts(manifest),
        "split": record.split.to_dict(),
        "spec": dict(record.sections),
        "spec_hash": record.package.meta["spec_hash"],
        "estimator": estimator.estimator,
        "params": estimator.params,
        "seed": record.spec.train.seed,
    }


def _outcome(result: Rebuild) -> dict[str, Any]:
    return {
        **vars(result.comparison),
        "held_out": result.held_out,
        "trained_rows": result.trained_rows,
        "seconds": round(result.seconds, 3),
    }


def _print_recipe(record: Record, manifest: Manifest, changes: Sequence[Change]) -> None:
    estimator = record.estimator
    arguments = ", ".join(f"{name}={value!r}" for name, value in estimator.params.items())
    console = get_console()
    console.print(f"[bold]{record.title}[/]")
    lines = {
        "snapshot": describe_snapshot(snapshot_facts(manifest)),
        "estimator": f"{estimator.estimator}({arguments})",
        "seed": record.spec.train.seed,
    }
    for label, value in lines.items():
        console.print(f"  {label:<22} {value}", markup=False, soft_wrap=True)
    if changes:
        console.print("Changed since (the version's own spec is used, with the present code):")
    for change in changes[:_SHOWN_CHANGES]:
        text = f"  {change.what:<22} {change.then} → {change.now}"
        console.print(text, markup=False, soft_wrap=True)
    if len(changes) > _SHOWN_CHANGES:
        console.print(f"  and {len(changes) - _SHOWN_CHANGES} more; --json lists them all")


def _print_outcome(result: Rebuild, reasons: Sequence[str]) -> None:
    found, console = result.comparison, get_console()
    rows = f"{found.rows:,} {'holdout' if result.held_out else 'training'} rows"
    console.print(
        f"Trained again on {result.trained_rows:,} rows in {duration(result.seconds)} and asked about {rows}:",
        soft_wrap=True,
    )
    apart = "not a number" if found.max_difference is None else f"{found.max_difference:.3g}"
    labels = "" if found.equal_labels is None else f", {found.equal_labels:.2%} equal labels"
    console.print(f"{_WORDS[found.verdict]}: largest difference {apart}{labels}", soft_wrap=True)
    if reasons:
        console.print("Likely because:")
    for reason in reasons:
        console.print(f"  - {reason}", markup=False, soft_wrap=True)
