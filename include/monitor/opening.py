"""A version's reference: made once, kept with its MLflow run, cached on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from include.monitor.reference import Reference, build_reference, load_reference
from include.scoring.model import as_asked
from include.store.snapshots import read_manifest

if TYPE_CHECKING:
    from include.registry.gateway import Registry
    from include.registry.package import Version
    from include.spec.schema import Spec
    from include.store.files import Store

ARTIFACT = "reference"


def open_reference(
    spec: Spec, store: Store, registry: Registry, version: Version, home: Path
) -> Reference:
    """Return a version's reference: from the cache, from MLflow, or made from the version's snapshot.

    Several processes may do so at once: a folder is complete before it gets its name.

    Args:
        spec: Names target and task.
        store: Where the snapshot is.
        registry: Where the version is.
        version: The version.
        home: Folder of everything local; the cache is in it.

    Raises:
        SnapshotError: It has to be made, and the version's snapshot is gone.
        ModelError: It has to be made, and the version cannot be loaded or asked.
    """
    name = f"{version.version}-{(version.digest or 'unknown')[:12]}"
    folder = home / "cache" / "references" / spec.model / name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as scratch:
            made = _fill(spec, store, registry, version, Path(scratch), home)
            try:
                made.rename(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
    return load_reference(folder)


def _fill(
    spec: Spec, store: Store, registry: Registry, version: Version, scratch: Path, home: Path
) -> Path:
    fetched, made = scratch / "fetched", scratch / "made"
    fetched.mkdir()
    if registry.fetch_folder(version.run_id, ARTIFACT, fetched):
        return fetched
    package = registry.load(version, home / "cache" / "models")
    manifest = read_manifest(store, spec.model, version.tags.get("evergreen.snapshot_id", ""))
    model, metrics = as_asked(package, version.version), package.meta.get("metrics") or {}
    build_reference(spec, store, manifest, model, metrics, made)
    registry.keep_folder(version.run_id, made, ARTIFACT)
    return made
