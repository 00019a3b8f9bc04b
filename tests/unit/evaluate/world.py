"""A small world with a known truth: snapshots in a folder, and versions fitted on part of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from include.evaluate.evaluate import EvaluateResult, evaluate
from include.scoring.model import LoadedModel
from include.spec.metrics import Task
from include.spec.schema import Spec
from include.store.features import Features, model_frame, target_array
from include.store.files import Store, open_store
from include.store.snapshots import (
    ARROW_TYPES,
    Column,
    ColumnType,
    File,
    Manifest,
    commit_snapshot,
    read_frame,
)
from include.store.split import Split, holdout_mask, plan_split

TYPES: dict[str, ColumnType] = {
    "id": "int",
    "seen_at": "timestamp",
    "age": "float",
    "use": "float",
    "region": "string",
    "target": "string",
}
GOOD, POOR = Features(("age", "use"), ("region",)), Features(("age",), ())


def make_frame(task: Task, rows: int, seed: int = 0, start: str = "2024-01-01") -> pd.DataFrame:
    """Return rows whose target depends on `use` a lot and on `age` a little."""
    rng = np.random.default_rng(seed)
    age, use = rng.normal(40, 10, rows), rng.normal(0, 1, rows)
    region = rng.choice(["north", "south", "tiny"], rows, p=[0.55, 0.44, 0.01])
    signal = 0.05 * (age - 40) + 1.8 * use + np.where(region == "north", 0.5, 0)
    target: Any = signal * 10 + 100 + rng.normal(0, 4, rows)
    if task == "binary":
        target = np.where(rng.random(rows) < 1 / (1 + np.exp(-signal)), "yes", "no")
    elif task == "multiclass":
        target = np.array(["high", "low", "mid"])[
            np.digitize(signal + rng.normal(0, 0.5, rows), [-1, 1])
        ]
    times = pd.Timestamp(start, tz="UTC") + pd.to_timedelta(np.arange(rows), unit="h")
    return pd.DataFrame(
        {
            "id": np.arange(rows) + 1_000_000 * seed,
            "seen_at": times,
            "age": age,
            "use": use,
            "region": region,
            "target": target,
        }
    )


@dataclass
class World:
    """Specs, snapshots and fitted versions of one task."""

    task: Task
    folder: Path
    timed: bool = True
    rules: dict[str, Any] = field(default_factory=dict)
    approval: Any = "auto"

    @property
    def store(self) -> Store:
        return open_store(str(self.folder / "store"))

    @property
    def types(self) -> dict[str, ColumnType]:
        number = self.task == "regression"
        return {**TYPES, "target": "float"} if number else TYPES

    @property
    def spec(self) -> Spec:
        ingest = {"source": {"kind": "file", "path": "x.csv"}, "target": "target", "key": "id"}
        return Spec.model_validate(
            {
                "model": "world",
                "task": self.task,
                "ingest": {**ingest, **({"time": "seen_at"} if self.timed else {})},
                "evaluate": self.rules,
                "register": {"approval": self.approval},
            }
        )

    def snapshot(self, frame: pd.DataFrame, *, files: int = 2, row_group: int = 97) -> Manifest:
        """Store a frame as a snapshot of several files."""
        schema = pa.schema([(n, ARROW_TYPES[self.types[n]]) for n in frame])
        paths, entries = {}, []
        for number, part in enumerate(np.array_split(np.arange(len(frame)), files)):
            path = self.folder / f"part{number}.parquet"
            table = pa.Table.from_pandas(frame.iloc[part], schema=schema, preserve_index=False)
            pq.write_table(table, path, row_group_size=row_group)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            name = f"{digest}.parquet"
            entries.append(File(name, digest, path.stat().st_size, len(part)))
            paths[name] = path
        columns = tuple(Column(n, self.types[n], 0.0, None, None, None) for n in frame)
        snapshot_id = hashlib.sha256("".join(paths).encode()).hexdigest()[:32]
        manifest = Manifest(
            "world", snapshot_id, len(frame), columns, tuple(entries), None, None, "test", "now"
        )
        commit_snapshot(self.store, manifest, paths)
        return manifest

    def split(self, manifest: Manifest, not_before: str | None = None) -> Split:
        return plan_split(self.spec, self.store, manifest, not_before=not_before)

    def fit(
        self,
        manifest: Manifest,
        split: Split,
        features: Features = GOOD,
        *,
        version: str = "2",
        estimator: Any = None,
    ) -> LoadedModel:
        """Fit a version on everything but the holdout."""
        frame = read_frame(self.store, manifest)
        frame = frame[~holdout_mask(frame, split)]
        y, classes = target_array(frame, self.spec)
        encode = ColumnTransformer(
            [("region", OneHotEncoder(handle_unknown="ignore"), list(features.categorical))],
            remainder=StandardScaler(),
        )
        default = LinearRegression() if self.task == "regression" else LogisticRegression()
        pipeline = make_pipeline(encode, default if estimator is None else estimator)
        pipeline.fit(model_frame(frame, features), y)
        return LoadedModel(pipeline, features, classes, version, split.cutoff)

    def judge(
        self,
        manifest: Manifest,
        split: Split,
        challenger: LoadedModel,
        champion: LoadedModel | None = None,
        **more: Any,
    ) -> EvaluateResult:
        """Run the stage."""
        out = self.folder / "out"
        return evaluate(
            self.spec, self.store, manifest, split, challenger, champion, out=out, **more
        )


class Changed:
    """A pipeline whose answers are changed on the way out."""

    def __init__(self, pipeline: Any, change: Callable[[Any], Any]) -> None:
        self.pipeline, self.change, self.calls = pipeline, change, 0
        self.classes_ = getattr(pipeline, "classes_", None)

    def predict(self, rows: Any) -> Any:
        self.calls += 1
        return self.change(self.pipeline.predict(rows))

    def predict_proba(self, rows: Any) -> Any:
        self.calls += 1
        return self.change(self.pipeline.predict_proba(rows))


def changed(model: LoadedModel, change: Callable[[Any], Any]) -> LoadedModel:
    """Return the version with its answers changed."""
    return replace(model, pipeline=Changed(model.pipeline, change))
