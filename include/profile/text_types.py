"""Which type a column has: the rules by which texts become numbers, booleans, times, or stay texts."""

from __future__ import annotations

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
    (present,) = table.row([f"count({blank.ref})"])
    date = _find_date(table, value, f"{value} IS NOT NULL", present) if present else None
    if date:
        return replace(blank, type="timestamp", date=date), "TIMESTAMP"
    return replace(blank, doubtful=_count_markers(table, value)), "VARCHAR"


def _from_text(table: Table, blank: Column) -> tuple[Column, str]:
    """Find the type of a text column once its missing markers are left out."""
    value = f"trim({blank.ref})"
    markers = _count_markers(table, value)
    among_numbers = _list([*ALWAYS_MISSING, *MISSING_AMONG_NUMBERS])
    strict = f"{value} IS NOT NULL AND {value} NOT IN {among_numbers}"
    present, numbers, whole, zeros, booleans = table.row(
        [
            f"count(*) FILTER ({strict})",
            f"count(*) FILTER ({strict} AND regexp_full_match({value}, {literal(_NUMBER)}))",
            f"count(*) FILTER ({strict} AND regexp_full_match({value}, {literal(_INT)}))",
            f"count(*) FILTER ({strict} AND regexp_full_match({value}, '0\\d+'))",
            f"count(*) FILTER ({strict} AND lower({value}) IN ('true', 'false'))",
        ]
    )
    certain = tuple(m for m in markers if m[0] in ALWAYS_MISSING)
    doubtful = tuple(m for m in markers if m not in certain)
    column = replace(blank, markers=certain, doubtful=doubtful)
    markers_too = replace(blank, markers=markers)
    if not present:
        return column, "VARCHAR"
    if numbers == present:
        kind: Type = "int" if whole == present else "float"
        column = replace(markers_too, type=kind, leading_zeros=bool(zeros))
        column = _with_sentinel(table, column, value)
        return column, "BIGINT" if kind == "int" else "DOUBLE"
    if booleans == present:
        return replace(markers_too, type="bool"), "BOOLEAN"
    date = _find_date(table, value, strict, present)
    if date:
        return replace(markers_too, type="timestamp", date=date), "TIMESTAMP"
    return column, "VARCHAR"


def _count_markers(table: Table, value: str) -> tuple[tuple[str, int], ...]:
    wanted = _list([*ALWAYS_MISSING, *MISSING_AMONG_NUMBERS])
    found = table.query(
        f"SELECT {value}, count(*) FROM {table.name} WHERE {value} IN {wanted} GROUP BY 1 ORDER BY 1"  # noqa: S608
    )
    return tuple((str(text), int(count)) for text, count in found)


def _with_sentinel(table: Table, column: Column, value: str) -> Column:
    """Add -999 and its like to the markers where every other number is 0 or more."""
    number = f"TRY_CAST({value} AS DOUBLE)"
    found = table.query(
        f"SELECT {value}, count(*) FROM {table.name} WHERE {value} IN {_list(SENTINELS)} "  # noqa: S608
        "GROUP BY 1 ORDER BY 1"
    )
    if not found:
        return column
    texts = [str(text) for text, _ in found]
    (lowest,) = table.row([f"min({number}) FILTER ({value} NOT IN {_list(texts)})"])
    if lowest is None or lowest < 0:
        return column
    extra = tuple((str(text), int(count)) for text, count in found)
    return replace(column, markers=(*column.markers, *extra))


def _find_date(table: Table, value: str, present_rows: str, present: int) -> DateFormat | None:
    sample = table.query(
        f"SELECT v FROM (SELECT {value} AS v, min(rowid) AS first FROM {table.name} "  # noqa: S608
        f"WHERE {present_rows} GROUP BY 1 ORDER BY hash(v) LIMIT {_DATE_SAMPLE}) ORDER BY first"
    )
    date = find_format([str(v) for (v,) in sample])
    if date is None:
        return None
    parsed = _moment(value, date)
    (read,) = table.row([f"count(*) FILTER ({present_rows} AND {parsed} IS NOT NULL)"])
    return date if read == present else None


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
