"""Versions as the registry would load them, without a registry: ingested, fitted and dumped for real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from include.ingest.ingest import ingest
from include.registry.package import LoadedPackage, Version
from include.registry.trust import load_model
from include.spec.schema import Spec
from include.store.files import Store, open_store
from include.store.snapshots import Manifest
from include.store.split import plan_split
from include.train.fit import fit

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = "2026-03-02T00:00:00+00:00"


@dataclass(frozen=True)
class Made:
    """A version, and where its data lies."""

    package: LoadedPackage
    store: Store
    manifest: Manifest


def write_environment(folder: Path, python: str = "3.11.9") -> Path:
    """Write the two files that say what a version was trained with."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "python_env.yaml").write_text(f"python: {python}\n")
    (folder / "requirements.txt").write_text("scikit-learn==1.0.2\nnumpy==2.0.0\n")
    return folder


@pytest.fixture
def frame() -> pd.DataFrame:
    """300 rows: numbers with gaps, a category, and a target of each kind."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=300), rng.normal(size=300)
    score = a - b + rng.normal(size=300)
    return pd.DataFrame(
        {
            "id": np.arange(300),
            "at": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(300), unit="h"),
            "a": np.where(rng.random(300) < 0.1, np.nan, a),
            "b": b,
            "place": rng.choice(np.array(["north", "south", None], dtype=object), 300),
            "binary": np.where(score > 0, "paid", "default"),
            "multiclass": np.select([score < -1, score > 1], ["low", "high"], "middle"),
            "regression": score * 1000,
        }
    )


@pytest.fixture
def make_version(tmp_path: Path, frame: pd.DataFrame) -> Callable[..., Made]:
    """Return a function that trains a version on the frame, as the stages do."""

    def make(task: str, candidate: dict[str, Any], params: dict[str, Any], **changes: Any) -> Made:
        source = tmp_path / "data.parquet"
        targets = {"binary", "multiclass", "regression"} - {task}
        frame.drop(columns=sorted(targets)).to_parquet(source)
        ingested = {"source": {"kind": "file", "path": str(source)}, "target": task}
        spec = Spec.model_validate(
            {
                "model": "toy",
                "task": task,
                "ingest": {**ingested, "key": "id", **changes},
                "train": {"candidates": [{"estimator": "sklearn.dummy.Nothing"}, candidate]},
            }
        )
        store = open_store(str(tmp_path / "store"))
        manifest = ingest(spec, store, now=NOW).manifest
        split = plan_split(spec, store, manifest)
        fitted = fit(spec, store, manifest, split, 1, params, tmp_path / "model")
        meta = {
            "task": task,
            "features": fitted.features.to_dict(),
            "classes": fitted.classes,
            "snapshot_id": manifest.snapshot_id,
            "spec_hash": spec.spec_hash,
            "split": split.to_dict(),
            "estimator": candidate["estimator"],
            "fixed": candidate.get("params", {}),
            "params": params,
            "spec": spec.shaping(),
        }
        tags = {
            "evergreen.seed": "42",
            "evergreen.snapshot_id": manifest.snapshot_id,
            "evergreen.spec_hash": spec.spec_hash,
            "evergreen.git_commit": "abc",
            "evergreen.lock_hash": "123",
        }
        package = LoadedPackage(
            pipeline=load_model(fitted.model_path, fitted.sha256),
            meta=meta,
            folder=write_environment(tmp_path / "version"),
            version=Version("toy", "3", "run", tags, (), LATER),
        )
        return Made(package, store, manifest)

    return make
