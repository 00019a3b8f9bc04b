"""How two versions compare where the truth is known already: the primary metric on each one's labelled rows."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.scoring.answers import Answers, Unreadable, answers_of
from include.scoring.bootstrap import Interval, interval, resample
from include.scoring.labelled import join_labels
from include.scoring.metrics import LABEL_METRICS, statistic
from include.spec.schema import Spec
from include.store.files import Store
from include.store.labels import read_labels


def compare_labelled(
    spec: Spec, store: Store, champion: Path, challenger: Path
) -> tuple[Interval | None, str]:
    """Return the interval of the challenger's improvement, or why there is none.

    The step looks again and again, and a lucky look must not decide: rows count when they have doubled since the
    look before (`deploy.min_rows`, twice, four times as many, ...), and the k-th of these looks gets 1 / (k (k + 1))
    of the chance of error that `evaluate.primary.confidence` leaves, so all together stay within it. Each look is at the
    rows that were known first: what arrives later, about earlier events too, changes no look that was had.

    Args:
        spec: The model's spec, with `monitor.labels`.
        store: Where the labels are.
        champion: Parquet file of its rows, with the prediction log's own columns.
        challenger: Likewise.
    """
    if spec.monitor.labels is None:
        raise ValueError("needs monitor.labels")
    since = _first(champion, challenger)
    if since is None:
        return None, "no predictions yet"
    labels, metric = read_labels(store, spec.model, since), spec.primary.metric
    if not labels.num_rows:
        return None, "no labels yet"
    lists = spec.task == "multiclass" and metric not in LABEL_METRICS
    joined = [
        join_labels(
            path, labels, spec.monitor.labels.delay, probability=lists, by_arrival=True
        ).rows
        for path in (champion, challenger)
    ]
    rows, look = looked_at(min(table.num_rows for table in joined), spec.deploy.min_rows)
    if not look:
        counts = " and ".join(f"{table.num_rows:,}" for table in joined)
        return None, f"{counts} labelled rows, {spec.deploy.min_rows:,} of each are needed"
    theirs, ours = (table.slice(0, rows) for table in joined)
    try:
        sides = _answers(spec, metric, ours, theirs), _answers(spec, metric, theirs, ours)
    except Unreadable as error:
        return None, str(error)
    return _compare(spec, metric, *sides, look)


def looked_at(rows: int, least: int) -> tuple[int, int]:
    """Return how many rows are looked at, and which look that is; 0 and 0 where there are too few."""
    if rows < least:
        return 0, 0
    doublings = int(math.log2(rows / least))
    return least * 2**doublings, doublings + 1


def _answers(spec: Spec, metric: str, rows: pa.Table, others: pa.Table) -> Answers:
    texts = pa.concat_tables(
        [t.select([name]).rename_columns(["text"]) for t in (rows, others) for name in _TEXTS]
    )
    known = [] if spec.task == "regression" else pc.unique(texts["text"]).drop_null().to_pylist()
    return answers_of(spec.task, metric, rows, "label", sorted(known), others)


_TEXTS = ("label", "_prediction")


def _compare(
    spec: Spec, metric: str, ours: Answers, theirs: Answers, look: int
) -> tuple[Interval | None, str]:
    points = []
    for side in (ours, theirs):
        once = np.ones(len(side.y), dtype=np.int64)
        value = statistic(spec.task, metric, side.y, side.prediction)(once)
        points.append(value)
    if not all(math.isfinite(value) for value in points):
        return None, f"{metric} is undefined on the labelled rows"
    # Different rows, so different seeds: the two samples have nothing to do with each other.
    drawn = [
        resample(spec.task, metric, side.y, [side.prediction], seed=seed)[:, 0]
        for seed, side in enumerate((ours, theirs))
    ]
    confidence = 1 - (1 - spec.primary.confidence) / (look * (look + 1))
    rows = min(len(ours.y), len(theirs.y))
    found = interval(
        metric, drawn[0], drawn[1], (points[0], points[1]), confidence=confidence, rows=rows
    )
    return found, ""


def _first(*paths: Path) -> datetime | None:
    """Return the earliest event time: no label that belongs to these rows is dated before it."""
    times = [pc.min(pq.read_table(path, columns=["_time"])["_time"]).as_py() for path in paths]
    known = [time for time in times if time is not None]
    return min(known) if known else None
