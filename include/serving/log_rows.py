"""From answered requests to the rows of the prediction log, many requests at a time.

Owns what each column of the log holds. It runs in the log's own thread: a request only leaves references here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from include.serving.columns import Columns
from include.serving.engine import Engine, Prediction
from include.serving.identity import NOBODY, Identity
from include.store.features import Features, category_text, category_texts
from include.store.predictions import PREDICTIONS, prediction_schema

_OBJECT_BYTES = 56  # a text without its characters, or a number, as Python keeps them


@dataclass(frozen=True, slots=True)
class Author:
    """What the log says of a version; not the version, which could not leave memory while its rows wait."""

    model: str
    version: str
    task: str
    features: Features
    classes: tuple[Any, ...]
    has_probability: bool

    @classmethod
    def of(cls, engine: Engine) -> Author:
        """Return it for a version."""
        features = engine.schema.features
        name, version = engine.model.name, engine.version
        return cls(name, version, engine.task, features, engine.classes, engine.has_probability)


@dataclass(frozen=True, slots=True)
class Entry:
    """One request that a model answered, or was asked and refused.

    Args:
        author: The version.
        arm: Why it was this one: champion, challenger, or version where the path named it.
        request_id: The caller's id or a generated one.
        arrived: When the request came, microseconds since 1970.
        latency_ms: From the whole body read to the prediction made, queueing included.
        texts: Bytes of the body or of the error, which bound those of all texts in the entry.
        columns: The checked features; None for a refused request.
        prediction: The answer; None likewise.
        identity: Key and time of the rows.
        error: Why it was refused; None for an answer.
        size: About how many bytes the entry keeps in memory.
    """

    author: Author
    arm: str
    request_id: str
    arrived: int
    latency_ms: float
    texts: int
    columns: Columns | None = None
    prediction: Prediction | None = None
    identity: Identity = NOBODY
    error: str | None = None
    size: int = field(init=False)

    def __post_init__(self) -> None:
        """Count once, for it is asked whenever the entry moves."""
        object.__setattr__(self, "size", self._count_bytes())

    @property
    def rows(self) -> int:
        """How many rows of the log it makes: one per prediction, one for a refusal."""
        return 1 if self.prediction is None else len(self.prediction.predict)

    def _count_bytes(self) -> int:
        total = _OBJECT_BYTES * 20 + self.texts
        for column in (self.columns or {}).values():
            total += column.nbytes + (column.size * _OBJECT_BYTES if column.dtype == object else 0)
        if self.prediction is not None:
            total += (
                8 + _OBJECT_BYTES
            ) * self.rows  # numbers are objects of their own, labels are shared
            if self.prediction.probability is not None:
                total += self.prediction.probability.nbytes
        for identity in (self.identity.keys, self.identity.times):
            total += (8 + _OBJECT_BYTES) * len(identity or ())
        return total


def to_tables(entries: Iterable[Entry]) -> list[tuple[str, pa.Table]]:
    """Return the entries' rows as one table for each model and version, with the model's name."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.author.model, entry.author.version), []).append(entry)
    return [(name, _table(group)) for (name, _), group in groups.items()]


def _table(entries: Sequence[Entry]) -> pa.Table:
    # Refusals last, so that what answers have and they lack is a run of nulls at the end.
    ordered = sorted(entries, key=lambda entry: entry.prediction is None)
    answers = [entry for entry in ordered if entry.prediction is not None]
    counts = np.array([entry.rows for entry in ordered])
    author = ordered[0].author
    schema = prediction_schema(author.features.numeric, author.features.categorical)
    columns = _own_columns(ordered, counts) | _answered(author, answers)
    columns |= _features(author, answers)
    whole = int(counts.sum())
    return pa.table([_padded(columns[f.name], f.type, whole) for f in schema], schema=schema)


def _own_columns(entries: Sequence[Entry], counts: np.ndarray[Any, Any]) -> dict[str, Any]:
    def spread(value: Callable[[Entry], Any], kind: pa.DataType) -> pa.Array:
        return pa.array(
            np.repeat(np.array([value(e) for e in entries], dtype=object), counts), kind
        )

    first = np.cumsum(counts) - counts
    arrived = np.repeat(np.array([e.arrived for e in entries], dtype=np.int64), counts)
    version = entries[0].author.version
    return {
        "_request_id": spread(lambda e: e.request_id, pa.string()),
        "_row": pa.array(np.arange(counts.sum()) - np.repeat(first, counts), pa.int32()),
        "_key": pa.array(_keys(entries), pa.string()),
        "_time": pa.array(_times(entries, arrived), pa.int64()),
        "_logged_at": pa.array(arrived),
        "_version": pa.repeat(pa.scalar(version, pa.string()), len(arrived)),
        "_arm": spread(lambda e: e.arm, pa.string()),
        "_latency_ms": pa.array(np.repeat([e.latency_ms for e in entries], counts)),
        "_error": spread(lambda e: e.error, pa.string()),
    }


def _keys(entries: Sequence[Entry]) -> list[str | None]:
    keys: list[str | None] = []
    for entry in entries:
        keys.extend(entry.identity.keys or [None] * entry.rows)
    return keys


def _times(entries: Sequence[Entry], arrived: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the event time of each row: what the caller sent, else when the request came."""
    if all(entry.identity.times is None for entry in entries):
        return arrived
    sent: list[int | None] = []
    for entry in entries:
        sent.extend(entry.identity.times or [None] * entry.rows)
    known = np.array([time is not None for time in sent])
    return np.where(known, np.array([time or 0 for time in sent], dtype=np.int64), arrived)


def _answered(author: Author, answers: Sequence[Entry]) -> dict[str, Any]:
    """Return prediction, score and probabilities; shorter than the table by the refusals."""
    predictions = [entry.prediction for entry in answers if entry.prediction is not None]
    said = [value for prediction in predictions for value in prediction.predict]
    if author.task == "regression":
        return {
            "_prediction": pa.array([repr(float(value)) for value in said], pa.string()),
            "_score": pa.array(np.array(said, dtype=np.float64), from_pandas=True),
            "_probability": pa.nulls(len(said), pa.list_(pa.float64())),
        }
    texts = {label: category_text(label) for label in author.classes}
    given = [p.probability for p in predictions if p.probability is not None]
    if given and author.has_probability:
        probability = np.concatenate(given)
        score = probability[:, 1] if author.task == "binary" else probability.max(axis=1)
        ends = np.arange(len(said) + 1, dtype=np.int32) * probability.shape[1]
        spread = pa.ListArray.from_arrays(pa.array(ends), pa.array(probability.ravel()))
    else:
        score = np.full(len(said), np.nan)
        spread = pa.nulls(len(said), pa.list_(pa.float64()))
    return {
        "_prediction": pa.array([texts[label] for label in said], pa.string()),
        "_score": pa.array(score, from_pandas=True),
        "_probability": spread,
    }


def _features(author: Author, answers: Sequence[Entry]) -> dict[str, Any]:
    """Return the features: numbers with null for missing, categories as the model sees them."""
    held = [entry.columns for entry in answers if entry.columns is not None]
    features = author.features
    if not held:
        return {n: pa.nulls(0) for n in features.names if n not in PREDICTIONS.names}
    made: dict[str, Any] = {}
    for name in features.numeric:
        values = np.concatenate([columns[name] for columns in held])
        made[name] = pa.array(values, pa.float64(), from_pandas=True)
    for name in features.categorical:
        made[name] = _texts(np.concatenate([columns[name] for columns in held]))
    return {name: column for name, column in made.items() if name not in PREDICTIONS.names}


def _texts(values: np.ndarray[Any, Any]) -> pa.Array:
    """Return categories as text; most are text already, and Arrow refuses to take anything else for it."""
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return pa.array(category_texts(pd.Series(values)), pa.string())


def _padded(column: pa.Array, kind: pa.DataType, rows: int) -> pa.Array:
    whole = column.cast(kind) if column.type != kind else column
    if len(whole) == rows:
        return whole
    return pa.concat_arrays([whole, pa.nulls(rows - len(whole), kind)])
