"""References and windows written by hand, so that checks are tested against files and not against serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from include.monitor.drift import check_drift
from include.monitor.findings import Finding
from include.monitor.profile import build_profile
from include.monitor.quality import check_quality
from include.monitor.reference import Reference
from include.monitor.windows import Window
from include.spec.schema import Spec
from include.store.features import Features
from include.store.predictions import prediction_schema
from include.store.snapshots import Manifest

WINDOW = Window(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC))
NOW = WINDOW.end + timedelta(minutes=5)


def make_spec(task: str = "binary", *, validate: Any = None, **monitor: Any) -> Spec:
    return Spec.model_validate(
        {
            "model": "toy",
            "task": task,
            "ingest": {"source": {"kind": "file", "path": "x.csv"}, "target": "y"},
            "validate": validate or {},
            "monitor": {"min_rows": 100, **monitor},
        }
    )


def rows(count: int, seed: int = 0) -> pd.DataFrame:
    """Return well-behaved rows: two numbers, a long-tailed one, a category."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.normal(40, 10, count),
            "use": rng.normal(0, 1, count),
            "income": rng.lognormal(0, 2, count),
            "region": rng.choice(["north", "south", "west"], count),
        }
    )


def features_of(frame: pd.DataFrame) -> Features:
    numeric = tuple(str(n) for n in frame if frame[n].dtype.kind == "f")
    return Features(numeric, tuple(str(n) for n in frame if n not in numeric))


def table_of(frame: pd.DataFrame) -> pa.Table:
    numeric = features_of(frame).numeric
    kinds = [(str(n), pa.float64() if n in numeric else pa.string()) for n in frame]
    arrays = [pa.array(frame[n], kind, from_pandas=True) for n, kind in kinds]
    return pa.Table.from_arrays(arrays, schema=pa.schema(kinds))


@dataclass
class World:
    """A folder with a reference, and what tests do with it."""

    folder: Path
    spec: Spec
    frame: pd.DataFrame
    score: np.ndarray | None = None
    target: Sequence[Any] | None = None

    @property
    def reference(self) -> Reference:
        rows = len(self.frame)
        score = self.spread(rows) if self.score is None else self.score
        target = ["no", "yes"] * (rows // 2) + ["no"] * (rows % 2)
        target = target if self.target is None else list(self.target)
        inputs, scored = self.folder / "inputs.parquet", self.folder / "scored.parquet"
        table = table_of(self.frame)
        pq.write_table(table.append_column("y", pa.array(target)), inputs)
        texts = np.where(score > 0.5, "yes", "no")
        pq.write_table(pa.table({"_score": score, "_prediction": texts}), scored)
        manifest = Manifest("toy", "0" * 32, rows, (), (), None, None, "a test", "")
        profile = build_profile([inputs], manifest, features_of(self.frame))
        return Reference("3", inputs, scored, profile, {})

    @staticmethod
    def spread(rows: int) -> np.ndarray:
        """Return scores of the same distribution for any number of rows."""
        return (np.arange(rows) + 0.5) / max(rows, 1)

    def window(
        self,
        frame: pd.DataFrame,
        *,
        times: Sequence[datetime] | None = None,
        score: np.ndarray | None = None,
        replace: Mapping[str, pa.Array] | None = None,
    ) -> Path:
        """Write a window; `replace` sets columns of another type."""
        rows, features = len(frame), features_of(frame)
        step = (WINDOW.end - WINDOW.start) / max(rows, 1)
        times = [WINDOW.start + step * i for i in range(rows)] if times is None else times
        score = self.spread(rows) if score is None else score
        columns: dict[str, Any] = {
            "_request_id": [f"r{i}" for i in range(rows)],
            "_row": [0] * rows,
            "_key": [None] * rows,
            "_time": times,
            "_logged_at": times,
            "_version": ["3"] * rows,
            "_arm": ["champion"] * rows,
            "_prediction": ["yes" if s > 0.5 else "no" for s in score],
            "_score": score,
            "_probability": [None] * rows,
            "_latency_ms": [1.0] * rows,
            "_error": [None] * rows,
            **{str(n): frame[n] for n in frame},
        }
        schema = prediction_schema(features.numeric, features.categorical)
        arrays = {f.name: pa.array(columns[f.name], f.type, from_pandas=True) for f in schema}
        path = self.folder / "window.parquet"
        pq.write_table(pa.table({**arrays, **(replace or {})}), path)
        return path

    def drift(self, frame: pd.DataFrame, *, labels: Any = None, **window: Any) -> list[Finding]:
        path = self.window(frame, **window)
        return list(check_drift(self.spec, path, self.reference, labels=labels))

    def quality(
        self,
        frame: pd.DataFrame,
        *,
        history: Sequence[int] = (),
        now: datetime = NOW,
        **window: Any,
    ) -> list[Finding]:
        path = self.window(frame, **window)
        found = check_quality(self.spec, path, self.reference, WINDOW, now=now, history=history)
        return list(found)


def of(findings: Sequence[Finding], check: str, column: str | None = None) -> list[Finding]:
    return [f for f in findings if f.check == check and (column is None or f.column == column)]


def status(findings: Sequence[Finding], check: str, column: str | None = None) -> str:
    """Return the status of the only finding."""
    found = of(findings, check, column)
    assert len(found) == 1, [f.message for f in findings]
    return found[0].status


def stirred(findings: Sequence[Finding]) -> list[str]:
    """Return what is neither ok nor insufficient data."""
    return [f.message for f in findings if f.status in ("warn", "alert")]
