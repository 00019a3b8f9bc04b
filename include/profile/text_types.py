"""Which type a column has: the rules by which texts become numbers, booleans, times, or stay texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from include.profile.column import Column, Type
from include.profile.dates import DateFormat, find_format
from include.profile.table import Table, literal

# Texts that mean missing wherever they stand, and those that do so only among numbers or dates:
# in a column of words `None` or `NA` may be a real value (no internet service, North America).
ALWAYS_MISSING = ("", "?", "N/A", "n/a", "#N/A", "NULL", "null", "NaN", "nan")
MISSING_AMONG_NUMBERS = (
    "NA",
    "na",
    "None",
    "none",
    "-",
    "--",
    ".",
    "unknown",
    "Unknown",
    "missing",
)
SENTINELS = ("-99", "-999", "-9999", "-99.0", "-999.0", "-9999.0")
_INT = r"[+-]?\d{1,18}"
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_DATE_SAMPLE = 5000


def find_type(table: Table, blank: Column, kind: str) -> tuple[Column, str]:
    """Return the column with its type, and DuckDB's type for it."""
    if kind != "VARCHAR":
        return _from_type(blank, kind)
    return _from_text(table, blank) if table.text else _from_stored_text(table, blank)


def _from_type(blank: Column, kind: str) -> tuple[Column, str]:
    """Take the type a Parquet or JSON file declares."""
    base = kind.split("(", maxsplit=1)[0]
    if base in ("FLOAT", "DOUBLE", "DECIMAL") and "[" not in kind:
        return replace(blank, type="float"), kind
    if base == "BOOLEAN":
        return replace(blank, type="bool"), kind
    if base.endswith(("INT", "INTEGER")):
        return replace(blank, type="int"), kind
    if base == "DATE" or (base.startswith("TIMESTAMP") and "[" not in kind):
        return replace(blank, type="timestamp"), kind
    if base == "UUID":
        return replace(blank, type="string"), "VARCHAR"
    return replace(blank, type="other"), kind


def _from_stored_text(table: Table, blank: Column) -> tuple[Column, str]:
    """Take a text of a typed file for what it is, unless all of them are times."""
    value = f"trim({blank.ref})"
    if date := _find_date(table, value, f"{value} IS NOT NULL"):
        return replace(blank, type="timestamp", date=date), "TIMESTAMP"
    doubtful = tuple(m for m in _count_markers(table, value) if m[0] not in SENTINELS)
    return replace(blank, doubtful=doubtful), "VARCHAR"


def _from_text(table: Table, blank: Column) -> tuple[Column, str]:
    """Find the type of a text column once its missing markers are left out."""
    value = f"trim({blank.ref})"
    found = _count_markers(table, value)
    sentinels = tuple(m for m in found if m[0] in SENTINELS)
    markers = tuple(m for m in found if m not in sentinels)
    certain = tuple(m for m in markers if m[0] in ALWAYS_MISSING)
    doubtful = tuple(m for m in markers if m not in certain)
    column = replace(blank, markers=certain, doubtful=doubtful)
    markers_too = replace(blank, markers=markers)
    some = f"{value} NOT IN {_list([*ALWAYS_MISSING, *MISSING_AMONG_NUMBERS])}"  # false for NULL
    first = table.query(f"SELECT {value} FROM {table.name} WHERE {some} LIMIT 1")  # noqa: S608
    if not first:
        return column, "VARCHAR"
    # The first value says which type can be meant at all; then every value has its say.
    if re.fullmatch(_NUMBER, first[0][0]):
        kind, zeros = _number_type(table, value, some)
        if kind:
            extra = sentinels if _are_missing(table, value, sentinels) else ()
            markers_too = replace(markers_too, markers=(*markers, *extra), leading_zeros=zeros)
            return replace(markers_too, type=kind), "BIGINT" if kind == "int" else "DOUBLE"
    elif first[0][0].lower() in ("true", "false"):
        if (
            table.row([f"count(*) FILTER ({some} AND lower({value}) NOT IN ('true', 'false'))"])[0]
            == 0
        ):
            return replace(markers_too, type="bool"), "BOOLEAN"
    elif date := _find_date(table, value, some):
        return replace(markers_too, type="timestamp", date=date), "TIMESTAMP"
    return column, "VARCHAR"


def _number_type(table: Table, value: str, some: str) -> tuple[Type | None, bool]:
    """Return int or float where all values are numbers, and whether some start with a zero."""
    (others,) = table.row(
        [f"count(*) FILTER ({some} AND NOT regexp_full_match({value}, {literal(_NUMBER)}))"]
    )
    if others:
        return None, False
    fractions, zeros = table.row(
        [
            f"count(*) FILTER ({some} AND NOT regexp_full_match({value}, {literal(_INT)}))",
            f"count(*) FILTER ({value} LIKE '0_%')",
        ]
    )
    return ("float", False) if fractions else ("int", bool(zeros))


def _are_missing(table: Table, value: str, sentinels: tuple[tuple[str, int], ...]) -> bool:
    """Whether -999 and its like stand where every other number is 0 or more."""
    if not sentinels:
        return False
    others = f"{value} NOT IN {_list([text for text, _ in sentinels])}"
    (lowest,) = table.row([f"min(TRY_CAST({value} AS DOUBLE)) FILTER ({others})"])
    return lowest is not None and lowest >= 0


def _count_markers(table: Table, value: str) -> tuple[tuple[str, int], ...]:
    """Count texts that may mean missing; -999 and its like among them."""
    wanted = _list([*ALWAYS_MISSING, *MISSING_AMONG_NUMBERS, *SENTINELS])
    found = table.query(
        f"SELECT {value}, count(*) FROM {table.name} WHERE {value} IN {wanted} GROUP BY 1 ORDER BY 1"  # noqa: S608
    )
    return tuple((str(text), int(count)) for text, count in found)


def _find_date(table: Table, value: str, some: str) -> DateFormat | None:
    sample = table.query(
        f"SELECT v FROM (SELECT {value} AS v, min(rowid) AS first FROM {table.name} "  # noqa: S608
        f"WHERE {some} GROUP BY 1 ORDER BY hash(v) LIMIT {_DATE_SAMPLE}) ORDER BY first"
    )
    date = find_format([str(v) for (v,) in sample])
    if date is None:
        return None
    (unread,) = table.row([f"count(*) FILTER ({some} AND {_moment(value, date)} IS NULL)"])
    return None if unread else date


def _moment(value: str, date: DateFormat) -> str:
    if date.format:
        return f"try_strptime({value}, {literal(date.format)})"
    return f"CAST(TRY_CAST({value} AS TIMESTAMPTZ) AS TIMESTAMP)"


def typed_sql(column: Column, kind: str, missing: Sequence[str]) -> str:
    """Return the SQL of a column with its final type; what means missing is NULL."""
    name = column.ref
    if column.type == "other":
        return name
    if column.type == "timestamp":
        parsed = _moment(f"trim({name})", column.date) if column.date else name
        return f"CAST({parsed} AS TIMESTAMP)"
    if missing:
        name = f"CASE WHEN trim({name}) IN {_list(missing)} THEN NULL ELSE {name} END"
    target = {"int": kind, "float": "DOUBLE", "bool": "BOOLEAN"}.get(column.type, "VARCHAR")
    cast = f"TRY_CAST({name} AS {target})"
    return f"nullif({cast}, 'nan'::DOUBLE)" if target == "DOUBLE" else cast


def _list(texts: Sequence[str]) -> str:
    return "(" + ", ".join(literal(t) for t in texts) + ")"
