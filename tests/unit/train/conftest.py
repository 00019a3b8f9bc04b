"""A store with real snapshots, made without the ingest stage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.spec.schema import Spec
from include.store.files import Store, open_store
from include.store.snapshots import ARROW_TYPES, Column, File, Manifest, commit_snapshot
from include.store.split import Split, plan_split


@dataclass(frozen=True)
class World:
    """What every stage function of this room takes."""

    spec: Spec
    store: Store
    manifest: Manifest
    split: Split

    @property
    def args(self) -> tuple[Spec, Store, Manifest, Split]:
        return self.spec, self.store, self.manifest, self.split


_KINDS = {"i": "int", "f": "float", "b": "bool", "M": "timestamp"}


@pytest.fixture
def make_world(tmp_path: Path) -> Callable[..., World]:
    """Return a function that stores a frame as a snapshot and plans its split."""

    def make(frame: pd.DataFrame, spec: Mapping[str, Any]) -> World:
        store = open_store(str(tmp_path / "store"))
        parsed = make_spec(spec)
        manifest = _snapshot(store, frame, parsed.model, tmp_path)
        return World(parsed, store, manifest, plan_split(parsed, store, manifest))

    return make


def make_spec(spec: Mapping[str, Any]) -> Spec:
    """Return a spec with the parts every test needs filled in."""
    whole: dict[str, Any] = {
        "model": "toy",
        "task": "binary",
        "ingest": {"source": {"kind": "file", "path": "x.csv"}, "target": "y"},
    }
    for name, value in spec.items():
        whole[name] = {**whole.get(name, {}), **value} if isinstance(value, dict) else value
    return Spec.model_validate(whole)


def _snapshot(store: Store, frame: pd.DataFrame, model: str, folder: Path) -> Manifest:
    types = {n: _KINDS.get(t.kind, "string") for n, t in frame.dtypes.items()}
    schema = pa.schema([(n, ARROW_TYPES[t]) for n, t in types.items()])  # type: ignore[index]
    path = folder / "part.parquet"
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False).cast(schema), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name = f"{digest}.parquet"
    manifest = Manifest(
        model=model,
        snapshot_id=digest[:32],
        rows=len(frame),
        columns=tuple(Column(n, t, 0.0, None, None, None) for n, t in types.items()),  # type: ignore[arg-type]
        files=(File(name, digest, path.stat().st_size, len(frame)),),
        time_start=None,
        time_end=None,
        source="test",
        created_at="2026-01-01T00:00:00Z",
    )
    commit_snapshot(store, manifest, {name: path})
    return manifest


@pytest.fixture
def frame() -> pd.DataFrame:
    """400 rows with numbers, categories, missing values, rare categories, an empty column and times."""
    rng = np.random.default_rng(7)
    count = 400
    a, b = rng.normal(size=count), rng.normal(size=count)
    region = rng.choice(np.array(["north", "south", "west"], dtype=object), count)
    chance = 1 / (1 + np.exp(-(1.5 * a - b + (region == "north"))))
    table = pd.DataFrame(
        {
            "a": np.where(rng.random(count) < 0.1, np.nan, a),
            "b": b,
            "whole": rng.integers(0, 5, count),
            "empty": np.full(count, np.nan),
            "region": region,
            "rare": [f"r{n}" for n in rng.integers(0, 150, count)],
            "at": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(count) // 3, unit="h"),
            "y": (rng.random(count) < chance).astype(int),
        }
    )
    table.loc[rng.random(count) < 0.1, "region"] = None
    return table


FEATURES = {"numeric": ["a", "b", "whole", "empty"], "categorical": ["region", "rare"]}
SMALL = {"tune": {"trials": 3, "folds": 2, "timeout": "1m"}}


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """URL of an Optuna storage that does not exist yet."""
    return f"sqlite:///{tmp_path / 'deep' / 'optuna.db'}"
