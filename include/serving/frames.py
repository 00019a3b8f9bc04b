"""Requests in the forms of MLflow's scoring server: four kinds of JSON, and CSV.

Owns their conversion to columns. Like MLflow, columns the model does not know are ignored; unlike MLflow, a
missing value never turns a column of whole numbers into an error. Only columns the model knows are ever built, and
only once the rows are known to be few enough: records may name any number of others.

Source: https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/#json-input
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from include.serving.columns import Columns, Schema
from include.serving.identity import Identity
from include.serving.rejection import bad, listed, quote
from include.serving.tensors import read_json

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_FIX = (
    'Send {"dataframe_split": {"columns": [...], "data": [[...]]}}, {"dataframe_records": [{...}]}, '
    '{"instances": [{...}]} or {"inputs": {"column": [...]}}.'
)
_WIDEST = range(-(2**63), 2**64)  # what a JSON body keeps as a whole number
_TRUE, _FALSE = frozenset(("true", "1", "1.0")), frozenset(("false", "0", "0.0"))

Table = dict[str, list[Any]]


@dataclass(frozen=True)
class Frame:
    """A checked data frame.

    Args:
        columns: One column per feature, `rows` long.
        rows: Number of rows, at least 1.
        identity: Key and time of the rows, where sent.
    """

    columns: Columns
    rows: int
    identity: Identity


def read_invocation(body: bytes, schema: Schema, *, max_rows: int) -> Frame:
    """Check and convert a JSON body.

    Args:
        body: JSON as it came.
        schema: The model's features.
        max_rows: Most rows one request may have.

    Raises:
        RequestError: Anything is wrong with it, naming the column and what to do.
    """
    request = read_json(body)
    if not isinstance(request, dict):
        raise bad("body", f"must be a JSON object, got {quote(request)}", _FIX)
    given = [form for form in FORMS if form in request]
    if len(given) != 1:
        got = listed(given) if given else f"the keys {listed(request)}" if request else "none"
        raise bad("body", f"must have exactly one of {listed(FORMS)}, got {got}", _FIX)
    content = request[given[0]]
    if given[0] == "dataframe_split":
        table = _split(content, schema, max_rows)
    elif given[0] == "inputs" and isinstance(content, dict):
        table = _by_column(content, schema)
    else:
        table = _rows(content, given[0], schema, max_rows)
    return _frame(table, schema, max_rows)


def read_csv(body: bytes, schema: Schema, *, max_rows: int) -> Frame:
    """Check and convert a CSV body with a header; an empty cell is a missing value.

    Raises:
        RequestError: Anything is wrong with it, naming the column and what to do.
    """
    try:
        text = body.decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise bad("body", f"must be CSV in UTF-8, got {error}", "Send a header and rows.") from None
    if not lines:
        raise bad("body", "must be CSV with a header, got nothing", "Send a header and rows.")
    data = [line for line in lines[1:] if line]
    table = _split({"columns": lines[0], "data": data}, schema, max_rows)
    typed = {
        name: _typed(name, values, schema)
        if name in schema.names
        else [cell or None for cell in values]
        for name, values in table.items()
    }
    return _frame(typed, schema, max_rows)


def _frame(table: Table, schema: Schema, max_rows: int) -> Frame:
    rows = len(table[schema.names[0]])
    for name, values in table.items():
        if len(values) != rows:
            raise bad(
                f"column {quote(name)}",
                f"must have as many rows as the others, got {len(values)} where others have {rows}",
                "Send one value per row in every column; null for missing.",
            )
    _check_count(rows, max_rows)
    columns = {name: schema.column(name, table[name], "column") for name in schema.names}
    beside = {name: table[name] for name in schema.beside.intersection(table)}
    return Frame(columns, rows, schema.identity(beside, "column"))


def _check_count(rows: int, max_rows: int) -> None:
    if not 1 <= rows <= max_rows:
        raise bad("rows", f"must be 1 to {max_rows}, got {rows}", "Split or fill the request.")


def _known(given: Iterable[str], schema: Schema) -> list[str]:
    """Return the names the model knows, its features first.

    Raises:
        RequestError: A feature is missing.
    """
    present = dict.fromkeys(given)
    schema.check_names(list(present), "column", extra_ok=True)
    return [*schema.names, *schema.beside.intersection(present)]


def _split(content: Any, schema: Schema, max_rows: int) -> Table:
    names = content.get("columns") if isinstance(content, dict) else None
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise bad("dataframe_split.columns", f"must be a list of names, got {quote(names)}", _FIX)
    if len(set(names)) != len(names):
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        raise bad(
            "dataframe_split.columns", f"must differ, got {listed(twice)} twice", "Remove one."
        )
    if not isinstance(data, list):
        raise bad("dataframe_split.data", f"must be a list of rows, got {quote(data)}", _FIX)
    known = _known(names, schema)
    _check_count(len(data), max_rows)
    for position, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(names):
            raise bad(
                f"row {position}",
                f"must have {len(names)} values, one per column, got {quote(row)}",
                "Send null for missing.",
            )
    places = {name: place for place, name in enumerate(names)}
    return {name: [row[places[name]] for row in data] for name in known}


def _by_column(content: dict[str, Any], schema: Schema) -> Table:
    for name, values in content.items():
        if not isinstance(values, list):
            raise bad(f"inputs.{name}", f"must be a list of values, got {quote(values)}", _FIX)
    table: Table = {}
    for name in _known(content, schema):
        values = content[name]
        nested = bool(values) and all(isinstance(v, list) and len(v) == 1 for v in values)
        table[name] = [v[0] for v in values] if nested else values
    return table


def _rows(content: Any, form: str, schema: Schema, max_rows: int) -> Table:
    if not isinstance(content, list):
        raise bad(form, f"must be a list of rows, got {quote(content)}", _FIX)
    if not content:
        raise bad(form, "must have at least one row, got none", "Send one object per row.")
    if form != "dataframe_records" and all(isinstance(row, list) for row in content):
        by_position = {"columns": list(schema.names), "data": content}  # like MLflow
        return _split(by_position, schema, max_rows)
    _check_count(len(content), max_rows)
    for position, row in enumerate(content):
        if not isinstance(row, dict):
            raise bad(f"{form}[{position}]", f"must be an object by column, got {quote(row)}", _FIX)
    # A record may leave a value out, but a column that no record has is missing.
    known = _known((name for row in content for name in row), schema)
    return {name: [row.get(name) for row in content] for name in known}


def _typed(name: str, cells: Sequence[str], schema: Schema) -> list[Any]:
    kind = schema.types.get(name, "")
    if name not in schema.numeric:
        return [_category(cell, kind) for cell in cells]
    made: list[Any] = []
    for row, cell in enumerate(cells):
        value = _number(cell.strip(), kind)
        if isinstance(value, str):
            raise bad(
                f"column {quote(name)}",
                f"must hold numbers, got {quote(cell)} in row {row}",
                "Leave the cell empty for missing.",
            )
        made.append(value)
    return made


def _category(cell: str, kind: str) -> Any:
    """Return the cell as the kind of value the category was trained on; else as text, which it may be as well."""
    text = cell.strip()
    if kind not in ("int", "float", "bool"):
        return cell or None
    if not text:
        return None
    if kind == "bool":
        known = text.lower() in _TRUE | _FALSE
        return text.lower() in _TRUE if known else cell
    if kind == "int" and "_" not in text:
        try:
            whole = int(text)  # a float would change it beyond 2**53
        except ValueError:
            pass
        else:
            if whole in _WIDEST:
                return whole
    value = _number(text, kind)
    return cell if isinstance(value, str) else value


def _number(text: str, kind: str) -> Any:
    """Return the text as None, bool or float; as it is where it is no finite number."""
    if not text:
        return None
    if kind == "bool" and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    try:
        number = math.nan if "_" in text else float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text
