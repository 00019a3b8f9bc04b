"""Requests and answers of `POST /predict/<model>`: named fields, for people and their scripts.

Owns the shape of this protocol: one object of features in, one object with the prediction out; several rows under
`rows` and `predictions`. Stricter than MLflow's forms: a field nobody knows is an error, because a misspelt name
that is ignored is a silent missing value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.serving.columns import Columns, Schema
from include.serving.identity import Identity
from include.serving.rejection import bad, listed, quote, suggest
from include.serving.tensors import read_json

if TYPE_CHECKING:
    from include.serving.engine import Prediction

_ROWS = "rows"
_FIX = 'Send {"feature": value, ...}, or {"rows": [{"feature": value, ...}, ...]}.'


@dataclass(frozen=True)
class Fields:
    """A checked request.

    Args:
        columns: One column per feature, `rows` long.
        rows: Number of rows, at least 1.
        identity: Key and time of the rows, where sent.
        many: Whether the caller sent a list of rows, and so gets a list.
    """

    columns: Columns
    rows: int
    identity: Identity
    many: bool


def read_fields(body: bytes, schema: Schema, *, max_rows: int) -> Fields:
    """Check and convert the body of a request with named fields.

    Args:
        body: JSON as it came.
        schema: The model's features.
        max_rows: Most rows one request may have.

    Raises:
        RequestError: Anything is wrong with it, naming the field and what to do.
    """
    request = read_json(body)
    if not isinstance(request, dict):
        raise bad("body", f"must be a JSON object, got {quote(request)}", _FIX)
    many = isinstance(request.get(_ROWS), list)  # no feature's value is a list
    rows = _rows(request, max_rows) if many else [request]
    names = frozenset(schema.names)
    for position, row in enumerate(rows):
        if row.keys() != names:
            _check_row(row, schema, f"rows[{position}]" if many else "fields")
    columns = {
        name: schema.column(name, [row[name] for row in rows], "field") for name in schema.names
    }
    beside = {
        name: [row.get(name) for row in rows]
        for name in schema.beside
        if any(name in row for row in rows)
    }
    return Fields(columns, len(rows), schema.identity(beside, "field"), many)


def _rows(request: Mapping[str, Any], max_rows: int) -> list[dict[str, Any]]:
    rows: list[Any] = request[_ROWS]
    if len(request) > 1:
        others = listed(name for name in request if name != _ROWS)
        raise bad("body", f"must have nothing beside rows, got {others}", _FIX)
    if not 1 <= len(rows) <= max_rows:
        raise bad("rows", f"must be 1 to {max_rows}, got {len(rows)}", "Split or fill the request.")
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            raise bad(f"rows[{position}]", f"must be an object of fields, got {quote(row)}", _FIX)
    return rows


def _check_row(row: Mapping[str, Any], schema: Schema, where: str) -> None:
    missing = [name for name in schema.names if name not in row]
    unknown = sorted(row.keys() - schema.beside - frozenset(schema.names))
    if not missing and not unknown:
        return
    parts = []
    if missing:
        parts.append(f"missing {listed(missing)}")
    if unknown:
        hints = ", ".join(suggest(name, missing or schema.names) for name in unknown[:10])
        parts.append(f"unknown {hints}")
    raise bad(
        where,
        f"must be the {len(schema.names)} features of the model, got {'; '.join(parts)}",
        "Send every feature, null where its value is missing.",
    )


def answer_fields(
    model: str,
    version: str,
    prediction: Prediction,
    classes: Sequence[Any],
    *,
    request_id: str,
    many: bool,
) -> dict[str, Any]:
    """Return the answer to a request with named fields.

    Args:
        model: Its name.
        version: The version that answered.
        prediction: What it said.
        classes: The model's classes, in the order of the probabilities.
        request_id: By which labels can refer to it.
        many: Whether the caller sent a list of rows.
    """
    said: list[dict[str, Any]]
    if prediction.probability is None:
        said = [{"prediction": value} for value in prediction.predict]
    else:
        names = [class_name(each) for each in classes]
        said = [
            {"prediction": value, "probability": dict(zip(names, row, strict=True))}
            for value, row in zip(prediction.predict, prediction.probability.tolist(), strict=True)
        ]
    head = {"model": model, "version": version}
    body = {"predictions": said} if many else said[0]
    return head | body | {"request_id": request_id}


def class_name(label: Any) -> str:
    """Return a class as the key of a JSON object: text as it is, anything else as JSON writes it."""
    return label if isinstance(label, str) else json.dumps(label)
