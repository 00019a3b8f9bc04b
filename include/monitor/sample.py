"""Bounded samples of reference and window, as drift is measured on and the report draws.

Owns what is compared with what, and which columns cannot be compared.
"""

# ruff: noqa: S608  queries are put together from positions and numbers, never from names or values of the data

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from include.monitor.distance import Pair, pooled
from include.monitor.reference import SAMPLE_ROWS, Reference
from include.scoring.rows import Rows
from include.spec.schema import Spec
from include.store.features import category_text

LEAST_VALUES = 50  # with fewer on either side nothing is said about a column
SubjectCheck = Literal["drift", "prediction_drift", "target_drift"]
Kind = Literal["numeric", "categorical"]


@dataclass(frozen=True)
class Subject:
    """One column to compare.

    Attributes:
        check: What it stands for.
        name: The feature; for predictions and target the column's name in the log and in the data.
        pair: The samples; None where they cannot be compared.
        reason: Why they cannot.
    """

    check: SubjectCheck
    name: str
    pair: Pair | None
    reason: str = ""


def subjects(
    spec: Spec, path: Path, reference: Reference, *, labels: pa.Table | None = None, seed: int = 0
) -> list[Subject]:
    """Draw the samples of every feature, of the predictions and, where labels are given, of the target.

    Args:
        spec: Names the target and the task.
        path: The window's rows.
        reference: What they are compared with.
        labels: The window's labels, with a column `label` as the store writes them.
        seed: Of the sample; the same rows are drawn for the same seed, whatever the file's order.

    Raises:
        DataError: A file cannot be read.
    """
    kinds: dict[str, Kind] = {c.name: c.kind for c in reference.profile.columns}
    said: tuple[str, Kind] = ("_score", "numeric")
    if spec.task == "multiclass":
        said = ("_prediction", "categorical")
    with Rows([path], answered=True) as rows:
        live = _draw(rows, [*kinds, said[0]], seed)
    found = []
    inputs = pq.ParquetFile(reference.inputs)
    bounds = {c.name: c.bounds() for c in reference.profile.columns}
    for name, kind in kinds.items():
        before = inputs.read([name]).column(0).to_numpy()
        found.append(_subject("drift", name, kind, before, live.get(name), bounds[name]))
    scored = pq.read_table(reference.scored, columns=[said[0]])
    found.append(
        _subject("prediction_drift", *said, scored.column(0).to_numpy(), live.get(said[0]))
    )
    if labels is not None:
        found.append(_target(spec, inputs, labels))
    return found


def _target(spec: Spec, inputs: pq.ParquetFile, labels: pa.Table) -> Subject:
    name = spec.ingest.target
    before = inputs.read([name]).column(0).to_numpy()
    texts = labels.column("label").to_pandas()
    if spec.task == "regression":
        numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64)
        return _subject("target_drift", name, "numeric", before, numbers)
    return _subject("target_drift", name, "categorical", before, texts.to_numpy(dtype=object))


def _draw(rows: Rows, names: Sequence[str], seed: int) -> dict[str, NDArray[Any]]:
    """Read those of the columns that are there: all rows, or a sample of at most `SAMPLE_ROWS`."""
    there = [name for name in names if name in rows.at]
    total = rows.count()
    order = f"hash({rows.at['_request_id']}, {rows.at['_row']}, {seed:d})"
    # A little fewer than wanted, so that chance never brings more.
    limit = int(2**64 * min(1.0, 0.985 * SAMPLE_ROWS / max(total, 1))) - 1
    few = f"WHERE h <= {limit}::UBIGINT" if total > SAMPLE_ROWS else ""
    wanted = ", ".join(rows.at[name] for name in there)
    source = f"(SELECT *, {rows.at['_time']} AS moment, {order} AS h FROM {rows.source})"
    table = rows.table(f"SELECT {wanted} FROM {source} {few} ORDER BY moment, h")
    return {name: table.column(place).to_numpy() for place, name in enumerate(there)}


def _subject(
    check: SubjectCheck,
    name: str,
    kind: Kind,
    reference: NDArray[Any],
    current: NDArray[Any] | None,
    bounds: tuple[float, float] | None = None,
) -> Subject:
    """Clean both samples: no missing values, no infinities, and no number farther out than `bounds`."""
    if current is None:
        return Subject(check, name, None, "the window has no such column")
    if kind == "numeric" and current.dtype == object:
        return Subject(check, name, None, "the window has no numbers in it")
    before, now = (_clean(kind, side, bounds) for side in (reference, current))
    for side, text in ((before, "the reference"), (now, "the window")):
        if len(side) < LEAST_VALUES:
            return Subject(
                check, name, None, f"{text} has {len(side)} values, {LEAST_VALUES} are needed"
            )
    if kind == "categorical":
        before, now = pooled(before, now)
    return Subject(check, name, Pair(kind, before, now))


def _clean(kind: Kind, values: NDArray[Any], bounds: tuple[float, float] | None) -> NDArray[Any]:
    if kind == "categorical":
        there = values[~pd.isna(values)]
        return (
            there
            if there.dtype == object
            else np.array([category_text(v) for v in there], dtype=object)
        )
    numbers = values.astype(np.float64)
    numbers = numbers[np.isfinite(numbers)]
    return np.clip(numbers, *bounds) if bounds else numbers
