"""The check of an infer request, compiled for one model: the well-formed request passes in one short loop.

Owns no rule. Whatever this is not sure about goes to `tensors.check_infer`, which has all the rules and the words
for what is wrong. A test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from include.serving.columns import Columns, Schema
from include.serving.identity import NOBODY
from include.serving.tensors import InferRequest, check_infer, read_json, routing_key

_NONE: type = type(None)
Types = frozenset[type]
_NUMBERS: Types = frozenset((int, float, _NONE))
_TEXT: Types = frozenset((str, _NONE))
_BOOLS: Types = frozenset((bool, _NONE))
_WHOLE: Types = frozenset((int, _NONE))
_KNOWN = frozenset(("id", "inputs", "parameters"))
_FIELDS = 4  # name, shape, datatype, data
Accepted = dict[tuple[str, str], Types]


def _accepted(schema: Schema) -> Accepted:
    """Return which types are right without a further look, by column and datatype."""
    made: Accepted = {}
    for name in schema.names:
        if name in schema.numeric:
            made[name, "FP64"], made[name, "BOOL"] = _NUMBERS, _BOOLS
        else:
            made[name, "BYTES"] = _TEXT
    for name in schema.beside:
        made[name, "BYTES"], made[name, "INT64"] = _TEXT, _WHOLE
        made[name, "FP64"] = _NUMBERS
    return made


class Compiled:
    """Reads infer requests for one model.

    Args:
        schema: The model's features.
        outputs: Names of the outputs the model has.
    """

    def __init__(self, schema: Schema, outputs: Sequence[str]) -> None:
        self._schema, self._outputs = schema, tuple(outputs)
        self._accepted = _accepted(schema)
        self._beside, self._width = tuple(schema.beside), len(schema.names)
        names = schema.names
        self._in_order = itemgetter(*names) if len(names) > 1 else lambda of: (of[names[0]],)

    def read(self, body: bytes, *, max_rows: int) -> InferRequest:
        """Check and convert the body of an infer request; see `tensors.check_infer`.

        Raises:
            RequestError: Anything is wrong with it, naming the input and what to do.
        """
        document = read_json(body)
        return self._quick(document, max_rows) or check_infer(
            document, self._schema, self._outputs, max_rows=max_rows
        )

    def _quick(self, document: Any, max_rows: int) -> InferRequest | None:
        """Return the request where it is plainly right; None for a closer look."""
        try:
            if not _KNOWN.issuperset(document):
                return None
            identifier = document.get("id")
            tensors = document["inputs"]
            rows = len(tensors[0]["data"])
            if not 1 <= rows <= max_rows or not (identifier is None or type(identifier) is str):
                return None
            columns = self._one_row(tensors) if rows == 1 else self._many_rows(tensors, rows)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            return None  # something is not what it should be
        return None if columns is None else self._request(document, columns, rows)

    def _one_row(self, tensors: list[Any]) -> Columns | None:
        accepted, one = self._accepted, [1]
        columns: Columns = {}
        for tensor in tensors:
            data, shape, name = tensor["data"], tensor["shape"], tensor["name"]
            (value,) = data
            if (
                type(value) not in accepted[name, tensor["datatype"]]
                or type(data) is not list
                or shape != one
                or type(shape[0]) is not int
                or len(tensor) != _FIELDS
            ):
                return None
            columns[name] = data
        return columns if len(columns) == len(tensors) else None

    def _many_rows(self, tensors: list[Any], rows: int) -> Columns | None:
        accepted = self._accepted
        columns: Columns = {}
        for tensor in tensors:
            data, shape, name = tensor["data"], tensor["shape"], tensor["name"]
            if (
                not accepted[name, tensor["datatype"]].issuperset(map(type, data))
                or type(data) is not list
                or len(data) != rows
                or shape != [rows]
                or type(shape[0]) is not int
                or len(tensor) != _FIELDS
            ):
                return None
            columns[name] = data
        return columns if len(columns) == len(tensors) else None

    def _request(
        self, document: dict[str, Any], columns: Columns, rows: int
    ) -> InferRequest | None:
        beside = {name: columns.pop(name) for name in self._beside if name in columns}
        if len(columns) != self._width:
            return None
        key = routing_key(document["parameters"]) if "parameters" in document else None
        identity = self._schema.identity(beside, "input") if beside else NOBODY
        values = None
        if rows == 1:
            values = tuple([data[0] for data in self._in_order(columns)])
        return InferRequest(document.get("id"), columns, rows, (), identity, key, values)
