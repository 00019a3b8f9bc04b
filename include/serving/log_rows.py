"""From answered requests to the rows of the prediction log, many requests at a time.

Owns what each column of the log holds. It runs in the log's own thread: a request only leaves references here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.serving.columns import Columns
from include.serving.engine import Engine, Prediction
from include.serving.identity import NOBODY, Identity
from include.store.inputs import Features, category_text
from include.store.predictions import PREDICTIONS, prediction_schema

_OBJECT_BYTES = 56  # a text without its characters, as Python keeps it
_LIST_BYTES = 88  # a list, and its place in a dictionary
_CELL_BYTES = (
    40  # a number or a short text in a list, on average: some numbers and many texts are shared
)


#: The features of one row.
Values = tuple[Any, ...]


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


@dataclass(slots=True)
class Entry:
    """One request that a model answered, or was asked and refused. Nothing changes one once it is made.

    (Not declared frozen: that alone would make each cost a request 3 microseconds more.)

    Args:
        author: The version.
        arm: Why it was this one: champion, challenger, shadow, or version where the path named it.
        request_id: The caller's id or a generated one.
        arrived: When the request came, microseconds since 1970.
        latency_ms: From the whole body read to the prediction made, queueing included.
        texts: Bytes of the body or of the error, which bound those of all texts in the entry.
        columns: The checked features, or of a single row just its values in the order of the features: hundreds of
            thousands of entries may wait, and the garbage collector looks at every list among them but at no
            such tuple. None for a refused request.
        prediction: The answer; None likewise.
        identity: Key and time of the rows.
        error: Why it was refused, after its HTTP status; None for an answer.
    """

    author: Author
    arm: str
    request_id: str
    arrived: int
    latency_ms: float
    texts: int
    columns: Columns | Values | None = None
    prediction: Prediction | None = None
    identity: Identity = NOBODY
    error: str | None = None

    @property
    def rows(self) -> int:
        """How many rows of the log it makes: one per prediction, one for a refusal."""
        return 1 if self.prediction is None else len(self.prediction.predict)

    @property
    def size(self) -> int:
        """About how many bytes the entry keeps in memory."""
        rows = self.rows
        total = _OBJECT_BYTES * 20 + self.texts
        if isinstance(self.columns, tuple):
            total += _CELL_BYTES * len(self.columns)
        elif self.columns is not None:
            total += (_LIST_BYTES + _CELL_BYTES * rows) * len(self.columns)
        if self.prediction is not None:
            # Numbers are objects of their own, labels are shared.
            total += (8 + _OBJECT_BYTES) * rows
            if self.prediction.probability is not None:
                total += self.prediction.probability.nbytes
        if self.identity is not NOBODY:
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
    # Single rows first, since they are many and need no loop; refusals last, so that what answers have and they
    # lack is a run of nulls at the end.
    answers = [entry for entry in entries if isinstance(entry.columns, tuple)]
    answers += [entry for entry in entries if isinstance(entry.columns, dict)]
    ordered = [*answers, *(entry for entry in entries if entry.columns is None)]
    counts = np.array([entry.rows for entry in ordered])
    author = ordered[0].author
    schema = prediction_schema(author.features.numeric, author.features.categorical)
    columns = _own_columns(ordered, counts) | _answered(author, answers)
    columns |= _features(author, answers)
    whole = int(counts.sum())
    return pa.table([_padded(columns[f.name], f.type, whole) for f in schema], schema=schema)


def _own_columns(entries: Sequence[Entry], counts: np.ndarray[Any, Any]) -> dict[str, Any]:
    # Most requests ask about one row: then nothing is repeated, and plain lists are the fastest way into Arrow.
    single = len(entries) == int(counts.sum())

    def spread(values: list[Any], kind: pa.DataType) -> pa.Array:
        column = pa.array(values, kind)
        return column if single else column.take(of)

    of = None if single else pa.array(np.repeat(np.arange(len(entries)), counts))
    arrived = spread([e.arrived for e in entries], pa.int64())
    first = np.repeat(np.cumsum(counts) - counts, counts)
    version = entries[0].author.version
    return {
        "_request_id": spread([e.request_id for e in entries], pa.string()),
        "_row": pa.array(np.arange(len(first)) - first, pa.int32()),
        "_key": _keys(entries, len(first)),
        "_time": _times(entries, arrived),
        "_logged_at": arrived,
        "_version": pa.repeat(pa.scalar(version, pa.string()), len(first)),
        "_arm": spread([e.arm for e in entries], pa.string()),
        "_latency_ms": spread([e.latency_ms for e in entries], pa.float64()),
        "_error": spread([e.error for e in entries], pa.string()),
    }


def _keys(entries: Sequence[Entry], rows: int) -> pa.Array:
    if all(entry.identity.keys is None for entry in entries):
        return pa.nulls(rows, pa.string())
    keys: list[str | None] = []
    for entry in entries:
        keys.extend(entry.identity.keys or [None] * entry.rows)
    return pa.array(keys, pa.string())


def _times(entries: Sequence[Entry], arrived: pa.Array) -> pa.Array:
    """Return the event time of each row: what the caller sent, else when the request came."""
    if all(entry.identity.times is None for entry in entries):
        return arrived
    sent: list[int | None] = []
    for entry in entries:
        sent.extend(entry.identity.times or [None] * entry.rows)
    return pc.coalesce(pa.array(sent, pa.int64()), arrived)


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
    features = author.features
    single = zip(*(e.columns for e in answers if isinstance(e.columns, tuple)), strict=True)
    by_name: dict[str, Sequence[Any]] = dict(zip(features.names, single, strict=False))
    held = [e.columns for e in answers if isinstance(e.columns, dict)]
    made: dict[str, Any] = {}
    numeric = frozenset(features.numeric)
    for name in features.names:
        if name in PREDICTIONS.names:
            continue
        values = _joined(by_name.get(name, ()), [columns[name] for columns in held])
        if name in numeric:
            # NumPy takes any mixture of int, float, bool and None for numbers, which Arrow does not.
            numbers = np.array(values, dtype=np.float64)
            made[name] = pa.array(numbers, pa.float64(), from_pandas=True)
        else:
            made[name] = _texts(values)
    return made


def _joined(single: Sequence[Any], parts: Sequence[Sequence[Any]]) -> Any:
    """Return one column of many requests; arrays stay arrays, as long as all are."""
    if not parts:
        return single
    if not single and all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    return [*single, *chain.from_iterable(parts)]


def _texts(values: Sequence[Any]) -> pa.Array:
    """Return categories as text; most are text already, and Arrow refuses to take anything else for it."""
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return pa.array([category_text(value) for value in values], pa.string())


def _padded(column: pa.Array, kind: pa.DataType, rows: int) -> pa.Array:
    whole = column.cast(kind) if column.type != kind else column
    if len(whole) == rows:
        return whole
    return pa.concat_arrays([whole, pa.nulls(rows - len(whole), kind)])
