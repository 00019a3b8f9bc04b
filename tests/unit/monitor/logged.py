"""A prediction log of some days with its labels, and the reference it is compared with."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from include.monitor.reference import Reference
from include.scoring.metrics import score
from include.spec.schema import Spec
from include.store.folder import FolderStore
from include.store.labels import LABELS, write_labels
from include.store.predictions import prediction_schema, write_part
from tests.unit.monitor.live import World, make_spec

START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = 13
BEGAN = START + timedelta(days=9)
END = START + timedelta(days=DAYS)
ROWS = 200
DELAY = timedelta(days=2)


def toy_spec(**drift: Any) -> Spec:
    rules = {"alert": 0.2, "violations": {"k": 2, "of": 3}, **drift}
    labels, performance = {"delay": "2d"}, {"metric": "roc_auc", "max_drop": 0.08}
    return make_spec(drift=rules, labels=labels, performance=performance)


def inputs(rows: int, rng: np.random.Generator, *, shift: float = 0.0) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "a": rng.normal(shift, 1, rows),
            "b": rng.normal(5 + shift, 2, rows),
            "c": rng.choice(["x", "y", "z"], rows, p=[0.5, 0.3, 0.2]),
        }
    )


def answers(frame: pd.DataFrame, rng: np.random.Generator, *, concept: bool) -> tuple[Any, Any]:
    """Return scores that follow `a`, and a truth that does so only while the concept holds."""
    scores = 1 / (1 + np.exp(-frame["a"].to_numpy()))
    chance = np.full(len(frame), 0.5) if concept else scores**2 / (scores**2 + (1 - scores) ** 2)
    return scores, np.where(rng.random(len(frame)) < chance, "yes", "no")


def log_day(
    store: FolderStore, day: datetime, *, shift: float, concept: bool, **columns: Any
) -> None:
    rng = np.random.default_rng(day.toordinal())
    frame = inputs(ROWS, rng, shift=shift)
    scores, truth = answers(frame, rng, concept=concept)
    ids = [f"{day:%m%d}-{n}" for n in range(ROWS)]
    times = [day + timedelta(days=1) * n / ROWS for n in range(ROWS)]
    schema = prediction_schema(("a", "b"), ("c",))
    values = {name: [None] * ROWS for name in schema.names} | {
        "_request_id": ids,
        "_row": [0] * ROWS,
        "_time": times,
        "_logged_at": times,
        "_version": ["3"] * ROWS,
        "_arm": ["champion"] * ROWS,
        "_prediction": ["yes" if s > 0.5 else "no" for s in scores],
        "_score": scores,
        **{name: frame[name] for name in frame},
        **columns,
    }
    arrays = {f.name: pa.array(values[f.name], f.type, from_pandas=True) for f in schema}
    write_part(store, "toy", pa.table(arrays))
    known = dict.fromkeys(LABELS.names, [None] * ROWS) | {
        "request_id": ids,
        "row": [0] * ROWS,
        "time": [t + DELAY for t in times],
        "label": truth,
        "received_at": [t + DELAY for t in times],
    }
    write_labels(store, "toy", pa.table({f.name: pa.array(known[f.name], f.type) for f in LABELS}))


def make_reference(folder: Path) -> Reference:
    rng = np.random.default_rng(1)
    frame = inputs(4000, rng)
    scores, truth = answers(frame, rng, concept=False)
    world = World(folder, toy_spec(), frame, score=scores, target=truth)
    metrics = score("binary", (truth == "yes").astype(int), scores)
    reference = world.reference
    table = pq.read_table(reference.scored).append_column("y", pa.array(truth))
    pq.write_table(table, reference.scored)
    return replace(reference, metrics=metrics)
