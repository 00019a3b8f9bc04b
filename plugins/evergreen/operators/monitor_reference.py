"""The champion's reference: made once per version, kept with its MLflow run, cached on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from evergreen.operators.stage import Workbench, loaded_model

if TYPE_CHECKING:
    from include.monitor.reference import Reference
    from include.registry.package import Version

ARTIFACT = "reference"


def open_reference(bench: Workbench, version: Version) -> Reference:
    """Return a version's reference: from the cache, from MLflow, or made from the version's snapshot.

    Two processes may do so at once: a folder is complete before it gets its name.

    Raises:
        SnapshotError: It has to be made, and the version's snapshot is gone.
        ModelError: It has to be made, and the version cannot be loaded or asked.
    """
    from include.monitor.reference import load_reference

    name = f"{version.version}-{(version.digest or 'unknown')[:12]}"
    folder = bench.settings.home / "cache" / "references" / bench.model / name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as scratch:
            part = Path(scratch) / "reference"
            _fill(bench, version, part)
            try:
                part.rename(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
    return load_reference(folder)


def _fill(bench: Workbench, version: Version, folder: Path) -> None:
    from include.monitor.reference import build_reference

    fetched = folder.with_name("fetched")
    fetched.mkdir()
    if bench.registry.fetch_folder(version.run_id, ARTIFACT, fetched):
        fetched.rename(folder)
        return
    package = bench.registry.load(version, bench.model_cache)
    build_reference(
        bench.spec,
        bench.store,
        bench.manifest(version.tags.get("evergreen.snapshot_id", "")),
        loaded_model(package, version.version),
        package.meta.get("metrics") or {},
        folder,
    )
    bench.registry.keep_folder(version.run_id, folder, ARTIFACT)
