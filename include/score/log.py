"""Rows of the prediction log that scoring writes: the champion's as arm `batch`, a challenger's as arm `shadow`.

Owns who asked (each row is a request, whose id is the same on every try), what each column holds, and that a repeat
adds nothing: it writes the same parts anew, with the same rows in them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.score.answers import Answer
from include.score.rows import Inputs, Wanted, key_texts
from include.serving.engine import Engine, Prediction
from include.store import parts
from include.store.features import category_text
from include.store.files import Store
from include.store.predictions import PREDICTIONS, prediction_schema, write_part

#: Columns that are measured, and so differ each time the same rows are scored.
_MEASURED = ("_logged_at", "_latency_ms")
_PART_ROWS = 250_000


def request_prefix(model: str, partition: str, version: str) -> str:
    """Return what the request ids of a partition's rows begin with; a row's place in the partition follows.

    Args:
        model: Registered name.
        partition: Its name.
        version: The champion that scored it; a challenger's rows carry the same ids.
    """
    identity = json.dumps([model, partition, version]).encode()
    return f"batch-{hashlib.sha256(identity).hexdigest()[:24]}-"


@dataclass(frozen=True)
class Entry:
    """What all rows of a scoring have in common.

    Attributes:
        prefix: See `request_prefix`.
        arm: `batch`: these are the predictions; `shadow`: nobody gets them.
        at: Event time of rows where the model has no time column.
        logged_at: When this scoring takes place.
    """

    prefix: str
    arm: Literal["batch", "shadow"]
    at: datetime
    logged_at: datetime


class LogFile:
    """Rows of the log on their way: a local file until the output is safe. Use it as a context manager.

    Args:
        path: The file.
        engine: Whose predictions they are.
        wanted: The columns of the source.
        entry: What they have in common.
    """

    def __init__(self, path: Path, engine: Engine, wanted: Wanted, entry: Entry) -> None:
        self.path, self._engine, self._wanted, self._entry = path, engine, wanted, entry
        self._schema = prediction_schema(wanted.numeric, wanted.categorical)
        self._writer = pq.ParquetWriter(path, self._schema, **parts.write_options(self._schema))

    def __enter__(self) -> LogFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add(self, some: pa.Table, before: int, inputs: Inputs, answer: Answer) -> None:
        """Add what was said about some rows; a failure goes without features, as serving logs it.

        Args:
            some: The rows.
            before: Rows of the partition before the piece they are of.
            inputs: What the model was given for that piece.
            answer: What it said about them.
        """
        columns = self._own(some, before + answer.first, answer)
        if answer.prediction is not None:
            columns |= _answered(self._engine, answer.prediction)
            arrays = inputs.part(answer.first, answer.count).arrays
            columns |= {n: a for n, a in arrays.items() if n not in PREDICTIONS.names}
        made = [
            columns[field.name] if field.name in columns else pa.nulls(answer.count, field.type)
            for field in self._schema
        ]
        self._writer.write_table(pa.table(made, schema=self._schema))

    def _own(self, some: pa.Table, first: int, answer: Answer) -> dict[str, Any]:
        entry, wanted, rows = self._entry, self._wanted, answer.count
        alike = {
            "_row": 0,
            "_logged_at": entry.logged_at,
            "_version": self._engine.version,
            "_arm": entry.arm,
            "_latency_ms": answer.latency_ms if answer.error is None else None,
            "_error": answer.error,
            "_time": entry.at,
        }
        columns: dict[str, Any] = {
            name: pa.repeat(pa.scalar(value, self._schema.field(name).type), rows)
            for name, value in alike.items()
        }
        places = pa.array(np.arange(first, first + rows)).cast(pa.string())
        columns["_request_id"] = pc.binary_join_element_wise(entry.prefix, places, "")
        columns["_key"] = key_texts(some, wanted)
        if wanted.time:
            columns["_time"] = some.column(wanted.time)
        return columns


def write_log(store: Store, model: str, path: Path) -> int:
    """Put the rows of a closed `LogFile` into the prediction log; return how many parts. Safe to repeat."""
    count = 0
    for batch in pq.ParquetFile(path).iter_batches(_PART_ROWS):
        rows = pa.Table.from_batches([batch])
        count += len(write_part(store, model, rows, measured=_MEASURED))
    return count


def _answered(engine: Engine, prediction: Prediction) -> dict[str, Any]:
    """Return prediction, score and probabilities, as serving logs them."""
    said, spread = prediction.predict, prediction.probability
    if engine.task == "regression":
        numbers = np.array(said, dtype=np.float64)
        return {
            "_prediction": pa.array([repr(float(value)) for value in said], pa.string()),
            "_score": pa.array(numbers),
        }
    texts = {label: category_text(label) for label in engine.classes}
    made = {"_prediction": pa.array([texts[label] for label in said], pa.string())}
    if spread is not None:
        score = spread[:, 1] if engine.task == "binary" else spread.max(axis=1)
        ends = np.arange(len(said) + 1, dtype=np.int32) * spread.shape[1]
        made["_score"] = pa.array(np.ascontiguousarray(score))
        made["_probability"] = pa.ListArray.from_arrays(pa.array(ends), pa.array(spread.ravel()))
    return made
