from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from include.errors import SnapshotError
from include.ingest.ingest import ingest
from include.monitor.opening import open_reference
from include.registry.package import Version
from include.spec.schema import Spec
from include.store.features import Features
from include.store.folder import FolderStore
from include.store.snapshots import Manifest

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Kept:
    """Stands for the registry: a version's package, and the folders kept with runs."""

    package: Any
    folder: Path
    kept: list[str] = field(default_factory=list)
    loads: int = 0

    def fetch_folder(self, run_id: str, path: str, into: Path) -> bool:
        source = self.folder / run_id / path
        if source.is_dir():
            shutil.copytree(source, into, dirs_exist_ok=True)
        return source.is_dir()

    def keep_folder(self, run_id: str, folder: Path, path: str) -> None:
        shutil.copytree(folder, self.folder / run_id / path)
        self.kept.append(f"{run_id}/{path}")

    def load(self, version: Version, cache: Path) -> Any:
        self.loads += 1
        return self.package


@pytest.fixture
def world(tmp_path: Path) -> tuple[Spec, FolderStore, Kept, Version, Manifest]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=300)})
    frame["y"] = np.where(frame["a"] + rng.normal(size=300) > 0, "yes", "no")
    frame.to_csv(tmp_path / "data.csv", index=False)
    source = {"kind": "file", "path": f"{tmp_path}/data.csv"}
    spec = Spec.model_validate(
        {"model": "toy", "task": "binary", "ingest": {"source": source, "target": "y"}}
    )
    store = FolderStore(tmp_path / "store")
    manifest = ingest(spec, store, now=NOW, workdir=tmp_path / "work").manifest
    pipeline = LogisticRegression().fit(frame[["a"]], (frame["y"] == "yes").astype(int))
    package = SimpleNamespace(
        pipeline=pipeline,
        features=Features(("a",), ()),
        classes=["no", "yes"],
        meta={"metrics": {"roc_auc": 0.8}},
    )
    tags = {"evergreen.snapshot_id": manifest.snapshot_id}
    version = Version("toy", "3", "run3", tags, (), NOW.isoformat())
    return spec, store, Kept(package, tmp_path / "runs"), version, manifest


def test_is_made_once_and_kept_with_the_run(world: Any, tmp_path: Path) -> None:
    spec, store, registry, version, _ = world
    made = open_reference(spec, store, registry, version, tmp_path / "home")
    assert (made.version, made.metrics) == ("3", {"roc_auc": 0.8})
    assert registry.kept == ["run3/reference"]
    again = open_reference(spec, store, registry, version, tmp_path / "home")
    assert (again, registry.loads) == (made, 1)
    # another machine has no cache, and needs neither model nor snapshot
    shutil.rmtree(tmp_path / "store")
    other = open_reference(spec, store, registry, version, tmp_path / "elsewhere")
    assert (other.metrics, registry.loads, registry.kept) == (made.metrics, 1, ["run3/reference"])


def test_a_failure_leaves_no_half_of_it(world: Any, tmp_path: Path) -> None:
    spec, store, registry, version, _ = world
    shutil.rmtree(tmp_path / "store" / "snapshots")
    with pytest.raises(SnapshotError, match="must exist"):
        open_reference(spec, store, registry, version, tmp_path / "home")
    cache = tmp_path / "home" / "cache" / "references" / "toy"
    assert list(cache.iterdir()) == []
    assert registry.kept == []


def test_who_comes_second_takes_what_is_there(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, store, registry, version, _ = world
    first = open_reference(spec, store, registry, version, tmp_path / "first")
    target = tmp_path / "home" / "cache" / "references" / "toy" / "3-unknown"

    def slow(run_id: str, path: str, into: Path) -> bool:
        shutil.copytree(first.inputs.parent, target)  # meanwhile the other one is done
        shutil.copytree(first.inputs.parent, into, dirs_exist_ok=True)
        return True

    monkeypatch.setattr(registry, "fetch_folder", slow)
    found = open_reference(spec, store, registry, version, tmp_path / "home")
    assert found.inputs.parent == target
    assert [entry.name for entry in target.parent.iterdir()] == ["3-unknown"]
