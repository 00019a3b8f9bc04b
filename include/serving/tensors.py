"""Requests and answers of the Open Inference Protocol v2 (REST, JSON tensors).

Owns the shape of the protocol: one named tensor per feature column in, `predict` and `probability` out. Knows
nothing of HTTP or of models.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from include.serving.columns import Columns, Schema
from include.serving.identity import NOBODY, Identity
from include.serving.rejection import bad, listed, quote, suggest

_INTEGERS = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
_FLOATS = {"FP16": 65504.0, "FP32": (2 - 2**-23) * 2.0**127, "FP64": math.inf}
_NONE = type(None)
_JSON_TYPES: Mapping[str, frozenset[type]] = {
    **dict.fromkeys(_FLOATS, frozenset((int, float, _NONE))),
    **dict.fromkeys(_INTEGERS, frozenset((int, float, _NONE))),
    "BOOL": frozenset((bool, _NONE)),
    "BYTES": frozenset((str, _NONE)),
}
_NUMERIC = frozenset((*_FLOATS, *_INTEGERS, "BOOL"))
_CATEGORICAL: Mapping[str, frozenset[str]] = {
    "int": frozenset(("BYTES", *_INTEGERS, *_FLOATS)),
    "float": frozenset(("BYTES", *_INTEGERS, *_FLOATS)),
    "bool": frozenset(("BYTES", "BOOL")),
    "string": frozenset(("BYTES",)),
}
_TENSOR_FIX = (
    'Send {"name": ..., "shape": [rows], "datatype": ..., "data": [...]}, one per feature.'
)


@dataclass(slots=True)
class InferRequest:
    """A checked request. Not declared frozen only because that makes each cost 2 microseconds more.

    Args:
        id: The caller's id, to be echoed; None when there was none.
        columns: One column per feature, `rows` long.
        rows: Number of rows, at least 1.
        outputs: Names of the outputs asked for, in that order; empty for all.
        identity: Key and time of the rows, where sent.
        routing_key: Whom the request is about, for the routing between versions; None where it does not say.
        values: The features of a single row in the model's order; None where they were not put so.
    """

    id: str | None
    columns: Columns
    rows: int
    outputs: tuple[str, ...]
    identity: Identity = NOBODY
    routing_key: str | None = None
    values: tuple[Any, ...] | None = None


def read_json(body: bytes) -> Any:
    """Return the parsed body.

    Raises:
        RequestError: It is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad(
            "body", f"must be JSON, got {error}", "Send a JSON object; write null for missing."
        ) from None


def check_infer(
    request: Any, schema: Schema, outputs: Sequence[str], *, max_rows: int
) -> InferRequest:
    """Check and convert the body of an infer request.

    Args:
        request: The parsed JSON, whatever it is.
        schema: The model's features.
        outputs: Names of the outputs the model has.
        max_rows: Most rows one request may have.

    Raises:
        RequestError: Anything is wrong with it, naming the input and what to do.
    """
    if not isinstance(request, dict):
        raise bad("body", f"must be a JSON object, got {quote(request)}", _TENSOR_FIX)
    identifier = request.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise bad("id", f"must be a string, got {quote(identifier)}", "Send text, or leave it out.")
    key = routing_key(request.get("parameters"))
    tensors = request.get("inputs")
    if not isinstance(tensors, list) or not tensors:
        raise bad("inputs", f"must be a list of tensors, got {quote(tensors)}", _TENSOR_FIX)
    named = _by_name(tensors)
    schema.check_names(list(named), "input")
    wanted = _wanted_outputs(request.get("outputs"), outputs)
    rows = _check_rows(named, max_rows)
    columns = {name: _column(name, named[name], schema, rows) for name in schema.names}
    beside = {
        name: _flat(f"input {quote(name)}", named[name], rows)
        for name in schema.beside.intersection(named)
    }
    identity = schema.identity(beside, "input")
    return InferRequest(identifier, columns, rows, wanted, identity, key)


def routing_key(parameters: Any) -> str | None:
    """Check a request's parameters; return the one that says whom it is about, None where it does not.

    Raises:
        RequestError: They are no parameters, or the key is no text.
    """
    _check_parameters({"parameters": parameters}, "parameters")
    key = parameters.get("routing_key") if parameters else None
    if key is not None and not isinstance(key, str):
        raise bad(
            "parameters.routing_key",
            f"must be a string, got {quote(key)}",
            "Send text, or leave it out.",
        )
    return key


def _by_name(tensors: list[Any]) -> dict[str, dict[str, Any]]:
    named: dict[str, dict[str, Any]] = {}
    for position, tensor in enumerate(tensors):
        if not isinstance(tensor, dict):
            raise bad(f"inputs[{position}]", f"must be an object, got {quote(tensor)}", _TENSOR_FIX)
        name = tensor.get("name")
        if not isinstance(name, str):
            raise bad(
                f"inputs[{position}].name", f"must be a string, got {quote(name)}", _TENSOR_FIX
            )
        if name in named:
            raise bad(f"input {quote(name)}", "must be there once, got it twice", "Remove one.")
        named[name] = tensor
    return named


def _check_rows(named: Mapping[str, dict[str, Any]], max_rows: int) -> int:
    rows, first = -1, ""
    for name, tensor in named.items():
        here = _rows(name, tensor)
        if rows < 0:
            rows, first = here, name
        elif here != rows:
            raise bad(
                f"input {quote(name)}",
                f"must have as many rows as the others, got {here} where {quote(first)} has {rows}",
                "Send one value per row in every input; null for missing.",
            )
    if rows < 1:
        raise bad("inputs", "must have at least one row, got none", "Send one value per row.")
    if rows > max_rows:
        raise bad(
            "inputs",
            f"must have at most {max_rows} rows, got {rows}",
            "Split the request into smaller ones.",
        )
    return rows


def _rows(name: str, tensor: Mapping[str, Any]) -> int:
    shape = tensor.get("shape")
    whole = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    if isinstance(shape, list) and whole and shape and shape[1:] in ([], [1]):
        return int(shape[0])
    raise bad(
        f"input {quote(name)}",
        f"must have shape [rows] or [rows, 1], got {quote(shape)}",
        "Send one tensor per feature column.",
    )


def _column(name: str, tensor: Mapping[str, Any], schema: Schema, rows: int) -> Sequence[Any]:
    where = f"input {quote(name)}"
    datatype = tensor.get("datatype")
    if not isinstance(datatype, str) or datatype not in _JSON_TYPES:
        raise bad(
            where,
            f"must have a datatype, got {quote(datatype)}",
            f"Use one of {', '.join(_JSON_TYPES)}.",
        )
    if name in schema.numeric:
        accepted = _NUMERIC
    else:
        accepted = _CATEGORICAL.get(schema.types.get(name, ""), frozenset(_JSON_TYPES))
    if datatype not in accepted:
        raise bad(
            where,
            f"must have datatype {schema.datatype(name)}, got {datatype}",
            "Send the values as the training data had them.",
        )
    if "parameters" in tensor:
        _check_parameters(tensor, f"{where}: parameters")
    values = _flat(where, tensor, rows)
    _check_values(where, datatype, values)
    return schema.column(name, values, "input")


def _flat(where: str, tensor: Mapping[str, Any], rows: int) -> list[Any]:
    data = tensor.get("data")
    if not isinstance(data, list):
        raise bad(where, f"must have a list as data, got {quote(data)}", _TENSOR_FIX)
    if data and len(tensor["shape"]) == 2 and type(data[0]) is list:
        odd = next((r for r in data if type(r) is not list or len(r) != 1), None)
        if odd is not None:
            raise bad(
                where,
                f"must have one value per row in nested data, got {quote(odd)}",
                "Send [[1], [2]] or flat data [1, 2] with shape [rows, 1].",
            )
        data = [row[0] for row in data]
    if len(data) != rows:
        raise bad(
            where,
            f"must have as many values as its shape {tensor['shape']} says, got {len(data)}",
            "Send one value per row; null for missing.",
        )
    return data


def _check_values(where: str, datatype: str, values: list[Any]) -> None:
    allowed = _JSON_TYPES[datatype]
    found = frozenset(map(type, values))
    if not found <= allowed:
        row = next(i for i, value in enumerate(values) if type(value) not in allowed)
        raise bad(
            where,
            f"must hold {datatype} values, got {quote(values[row])} in row {row}",
            "Send values of the datatype you declare; null for missing.",
        )
    if datatype in _INTEGERS:
        low, high = _INTEGERS[datatype]
        _check_range(
            where,
            datatype,
            values,
            lambda v: low <= v <= high and (type(v) is int or v.is_integer()),
        )
    elif datatype in ("FP16", "FP32"):
        limit = _FLOATS[datatype]
        _check_range(where, datatype, values, lambda v: -limit <= v <= limit)


def _check_range(where: str, datatype: str, values: list[Any], fits: Any) -> None:
    for row, value in enumerate(values):
        if value is not None and not fits(value):
            raise bad(
                where,
                f"must hold {datatype} values, got {quote(value)} in row {row}",
                "Declare a datatype that holds the value, such as FP64 or INT64.",
            )


def _check_parameters(holder: Mapping[str, Any], where: str) -> None:
    parameters = holder.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise bad(where, f"must be an object, got {quote(parameters)}", "Leave it out.")
    if parameters and "binary_data_size" in parameters:
        raise bad(where, "must not announce binary data", "Send the data as JSON.")


def _wanted_outputs(asked: Any, known: Sequence[str]) -> tuple[str, ...]:
    if asked is None:
        return ()
    if not isinstance(asked, list):
        raise bad("outputs", f"must be a list, got {quote(asked)}", "Leave it out to get all.")
    names: list[str] = []
    for position, item in enumerate(asked):
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            raise bad(
                f"outputs[{position}]",
                f"must be an object with a name, got {quote(item)}",
                f"Ask for {listed(known)}.",
            )
        _check_parameters(item, f"outputs[{position}].parameters")
        if name not in known:
            raise bad(
                f"outputs[{position}]",
                f"must be one of {listed(known)}, got {suggest(name, known)}",
                "Leave outputs out to get all.",
            )
        if name in names:
            raise bad(
                f"output {quote(name)}", "must be asked for once, got it twice", "Remove one."
            )
        names.append(name)
    return tuple(names)


def tensor(name: str, datatype: str, data: Any, shape: Sequence[int]) -> dict[str, Any]:
    """Return one tensor as the protocol writes it; `data` is flat, row-major."""
    return {"name": name, "shape": list(shape), "datatype": datatype, "data": data}
