"""Describes every column of a file from all its values: range, distinct values, missing ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from include.profile.column import Column
from include.profile.table import Table
from include.profile.text_types import find_type, typed_sql

_SHOWN = 40  # values kept of a column
_FEW = 10_000  # distinct values up to which they are counted exactly


def read_columns(table: Table) -> tuple[Table, tuple[Column, ...]]:
    """Find the type of every column and describe it.

    Args:
        table: The open file.

    Returns:
        The same rows as a table of typed columns (`typed`), and one description for each column.
    """
    typed = [
        find_type(table, blank, kind)
        for blank, kind in (
            (Column(f"c{i}", table.columns[i], "string", table.rows), table.types[i])
            for i in range(len(table.columns))
        )
    ]
    missing = missing_texts([c for c, _ in typed]) if table.text else ()
    selected = ", ".join(
        f"{typed_sql(column, kind, missing)} AS {column.ref}" for column, kind in typed
    )
    table.connection.execute(f"CREATE TABLE typed AS SELECT {selected} FROM raw")  # noqa: S608
    result = replace(table, name="typed")
    return result, tuple(_describe(result, column) for column, _ in typed)


def missing_texts(columns: Sequence[Column]) -> tuple[str, ...]:
    """Return every missing marker of the file, blanks first: they hold for all its columns."""
    found = {marker for column in columns for marker, _ in column.markers}
    return ("", *sorted(found - {""}))


def _describe(table: Table, column: Column) -> Column:
    name = column.ref
    if column.type == "other":
        return column
    number = f"CAST({name} AS DOUBLE)" if column.numeric else "NULL"
    finite = f" FILTER (isfinite({number}))" if column.numeric else ""
    edge = {"timestamp": f"strftime({name}, '%Y-%m-%dT%H:%M:%S')"}.get(column.type, number)
    nulls, distinct, low, high, infinite, length, slope, correlation = table.row(
        [
            f"count(*) - count({name})",
            f"approx_count_distinct({name})",
            f"min({edge}){finite}",
            f"max({edge}){finite}",
            f"count(*) FILTER (isinf({number}))" if column.numeric else "0",
            f"avg(length({name}))" if column.type == "string" else "NULL",
            f"regr_slope({number}, rowid){finite}" if column.numeric else "NULL",
            f"corr({number}, rowid){finite}" if column.numeric else "NULL",
        ]
    )
    if distinct < 1.2 * _FEW or distinct > 0.9 * column.rows:
        (distinct,) = table.row([f"count(DISTINCT {name})"])
    if column.type == "timestamp" and low is not None:
        low, high = low.removesuffix("T00:00:00"), high.removesuffix("T00:00:00")
    found = replace(
        column, nulls=nulls, distinct=distinct, low=low, high=high, infinite=infinite, length=length,
        values=_values(table, name, few=distinct <= _FEW),
    )  # fmt: skip
    return replace(found, counts_rows=_counts_rows(found, slope, correlation))


def _values(table: Table, name: str, *, few: bool) -> tuple[tuple[Any, int], ...]:
    known = f"FROM {table.name} WHERE {name} IS NOT NULL"
    if few:
        sql = f"SELECT {name}, count(*) {known} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {_SHOWN}"
    else:
        sql = f"SELECT {name}, 1 {known} ORDER BY rowid LIMIT {_SHOWN}"
    return tuple((value, int(count)) for value, count in table.query(sql))


def _counts_rows(column: Column, slope: float | None, correlation: float | None) -> bool:
    if not column.numeric or not column.unique or column.rows < 3:
        return False
    low, high = float(column.low or 0), float(column.high or 0)
    if column.type == "int" and low in (0, 1) and high - low == column.rows - 1:
        return True
    return bool(slope and correlation and 0.9 < slope < 1.1 and correlation > 0.9999)
