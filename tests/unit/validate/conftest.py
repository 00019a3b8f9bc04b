"""Snapshots written by hand, so that the stage is tested against files and not against ingest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.spec.schema import Spec
from include.store.files import Store, open_store
from include.store.snapshots import (
    ARROW_TYPES,
    Column,
    File,
    Manifest,
    commit_snapshot,
)
from include.validate.findings import Finding, ValidateResult
from include.validate.stage import validate

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def kind(values: pd.Series) -> str:
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return "timestamp"
    return {"i": "int", "f": "float", "b": "bool"}.get(values.dtype.kind, "string")


def describe(name: str, values: pd.Series) -> Column:
    what = kind(values)
    there = values.dropna()
    low: Any = None
    high: Any = None
    if len(there) and what != "string":
        low, high = there.min(), there.max()
        low, high = (
            (low.isoformat(), high.isoformat())
            if what == "timestamp"
            else (float(low), float(high))
        )
    return Column(
        name,
        what,
        float(values.isna().mean()) if len(values) else 0.0,
        low,
        high,
        int(there.nunique()),
    )


class Bench:
    """A store, and what tests do with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store: Store = open_store(str(folder / "store"))

    def snapshot(
        self, frame: pd.DataFrame, *, time: str | None = None, files: int = 1, model: str = "toy"
    ) -> Manifest:
        columns = tuple(describe(n, frame[n]) for n in frame.columns)
        schema = pa.schema([(c.name, ARROW_TYPES[c.type]) for c in columns])
        paths: dict[str, Path] = {}
        stored = []
        for part in np.array_split(np.arange(len(frame)), files):
            path = self.folder / f"part{len(paths)}.parquet"
            table = pa.Table.from_pandas(frame.iloc[part], schema=schema, preserve_index=False)
            pq.write_table(table, path, compression="zstd")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            paths[f"{digest}.parquet"] = path
            stored.append(File(f"{digest}.parquet", digest, path.stat().st_size, len(part)))
        identity = hashlib.sha256("".join(f.sha256 for f in stored).encode()).hexdigest()[:32]
        ends = (None, None)
        if time is not None and kind(frame[time]) == "timestamp" and len(frame):
            ends = (frame[time].min(), frame[time].max())
        manifest = Manifest(
            model,
            identity,
            len(frame),
            columns,
            tuple(stored),
            ends[0].isoformat() if ends[0] is not None else None,
            ends[1].isoformat() if ends[1] is not None else None,
            "made by a test",
            NOW.isoformat(),
        )
        commit_snapshot(self.store, manifest, paths)
        return manifest

    def check(
        self,
        spec: Spec,
        frame: pd.DataFrame | Manifest,
        reference: pd.DataFrame | Manifest | None = None,
        now: datetime = NOW,
    ) -> ValidateResult:
        def manifest(of: pd.DataFrame | Manifest) -> Manifest:
            return of if isinstance(of, Manifest) else self.snapshot(of, time=spec.ingest.time)

        return validate(
            spec,
            self.store,
            manifest(frame),
            now=now,
            out=self.folder / "out",
            reference=None if reference is None else manifest(reference),
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def make_spec() -> Callable[..., Spec]:
    def make(
        *, ingest: Mapping[str, Any] | None = None, task: str = "binary", **validate: Any
    ) -> Spec:
        data = {"source": {"kind": "file", "path": "x.csv"}, "target": "y", **(ingest or {})}
        return Spec.model_validate(
            {
                "model": "toy",
                "task": task,
                "ingest": data,
                "validate": {"min_rows": 10, **validate},
            }
        )

    return make


def good(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """Return good data: two numbers, a category, and a noisy binary target."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=rows)
    return pd.DataFrame(
        {
            "id": [f"id{i}" for i in range(rows)],
            "at": pd.date_range("2026-02-01", periods=rows, freq="h", tz="UTC"),
            "a": a,
            "b": rng.integers(0, 1000, rows),
            "c": rng.choice(["red", "green", "blue"], rows),
            "y": np.where(a + rng.normal(size=rows) > 0, "yes", "no"),
        }
    )


@pytest.fixture
def frame() -> pd.DataFrame:
    return good()


@pytest.fixture
def roles() -> dict[str, str]:
    return {"key": "id", "time": "at"}


class Read:
    """Finds findings in a result."""

    @staticmethod
    def of(result: ValidateResult, check: str, severity: str | None = None) -> list[Finding]:
        wanted = ("warn", "error") if severity is None else (severity,)
        return [f for f in result.findings if f.check == check and f.severity in wanted]

    def only(self, result: ValidateResult, check: str) -> Finding:
        """Return the check's one complaint."""
        found = self.of(result, check)
        assert len(found) == 1, [f.message for f in found]
        return found[0]

    def passed(self, result: ValidateResult, check: str) -> bool:
        """Tell whether the check ran and had nothing to complain about."""
        return not self.of(result, check) and bool(self.of(result, check, "ok"))


@pytest.fixture
def read() -> Read:
    return Read()
