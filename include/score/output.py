"""The rows that scoring writes: key and time, the prediction, its probabilities, the version.

Owns the columns and their types.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from include.errors import SpecError
from include.score.rows import Wanted
from include.serving.engine import Engine, Prediction
from include.store.features import category_text

_LABELS = {"FP64": pa.float64(), "INT64": pa.int64(), "BOOL": pa.bool_(), "BYTES": pa.string()}


def output_schema(engine: Engine, wanted: Wanted, piece: pa.Table) -> pa.Schema:
    """Return the columns of the output.

    Args:
        engine: What predicts.
        wanted: Names key and time.
        piece: Any rows, for the type of the key.

    Raises:
        SpecError: Two columns would have one name.
    """
    fields = [pa.field(name, piece.schema.field(name).type) for name in _identity(wanted)]
    fields.append(pa.field("predict", _LABELS[engine.label_datatype]))
    if engine.has_probability:
        fields += [pa.field(name, pa.float64()) for name in _probabilities(engine)]
    fields.append(pa.field("version", pa.string()))
    lower = [field.name.lower() for field in fields]  # many databases do not tell a from A
    twice = sorted({field.name for field in fields if lower.count(field.name.lower()) > 1})
    if twice:
        raise SpecError(
            f"model {engine.model.name}: score",
            f"columns of the output must differ, got {' and '.join(twice)}",
            "Rename the key or time column at the source, or the classes.",
        )
    return pa.schema(fields)


def output_rows(
    engine: Engine, wanted: Wanted, piece: pa.Table, prediction: Prediction, schema: pa.Schema
) -> pa.Table:
    """Return the output of a piece, shape (rows, columns of `schema`)."""
    said: list[Any] = prediction.predict
    if engine.label_datatype == "BYTES":
        texts = {label: category_text(label) for label in engine.classes}
        said = [texts[label] for label in said]
    columns = [piece.column(name) for name in _identity(wanted)]
    columns.append(pa.array(said, schema.field("predict").type))
    if engine.has_probability:
        spread = prediction.probability
        columns += [pa.array(spread[:, n]) for n in range(len(engine.classes))]  # type: ignore[index]
    columns.append(pa.repeat(pa.scalar(engine.version, pa.string()), piece.num_rows))
    return pa.table(columns, schema=schema)


def _identity(wanted: Wanted) -> list[str]:
    return [name for name in (wanted.key, wanted.time) if name is not None]


def _probabilities(engine: Engine) -> list[str]:
    return [f"probability_{category_text(label)}" for label in engine.classes]
