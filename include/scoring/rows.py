"""Parquet files as one DuckDB relation, in bounded memory: how stages look at every row of a log.

Columns are addressed by position (`c0`, `c1`, ...), because DuckDB's names ignore case while features' do not,
and because no name can then break a query.
"""

# ruff: noqa: S608  queries are put together from positions and numbers, never from names or values of the data

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from include.errors import DataError
from include.store import duck

Answer = TypeVar("Answer")
_BATCH = 20  # columns per query: with more, the sketches of quantiles take much memory


class Rows:
    """Parquet files as one relation; use it as a context manager.

    Args:
        paths: The files, at least one, all with the same columns.
        answered: Whether rows of requests that were refused (`_error`) are left out.

    Attributes:
        at: Position of each column, as queries write it, by name.
        types: Type of each column, by name.
        source: The relation, as queries write it.

    Raises:
        DataError: The files cannot be read.
    """

    def __init__(self, paths: Sequence[Path], *, answered: bool = False) -> None:
        schema = _metadata(paths[0]).schema.to_arrow_schema()
        self.at = {name: f"c{i}" for i, name in enumerate(schema.names)}
        self.types: dict[str, pa.DataType] = dict(zip(schema.names, schema.types, strict=True))
        self.source = f"{duck.source(paths)} AS t({', '.join(self.at.values())})"
        if answered and "_error" in self.at:
            self.source = f"(SELECT * FROM {self.source} WHERE {self.at['_error']} IS NULL)"
        self._stack = ExitStack()
        spill = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="evergreen-monitor-"))
        self._connection = self._stack.enter_context(duck.connect(spill, memory_mb=512))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def is_number(self, name: str) -> bool:
        """Tell whether a column holds numbers or truth values."""
        kind = self.types[name]
        return bool(
            pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
        )

    def missing(self, name: str) -> str:
        """Return the condition under which a row has no value; NaN is none."""
        at = self.at[name]
        if pa.types.is_floating(self.types[name]):
            return f"({at} IS NULL OR isnan({at}))"
        return f"({at} IS NULL)"

    def finite(self, name: str) -> str:
        """Return a numeric column's values as DOUBLE, NULL where missing or infinite."""
        value = f"{self.at[name]}::DOUBLE"
        return f"(CASE WHEN isfinite({value}) THEN {value} END)"

    def count(self) -> int:
        """Return the number of rows."""
        return int(self.one(f"SELECT count(*) FROM {self.source}")[0])

    def offer(self, name: str, table: pa.Table) -> None:
        """Offer a table to queries as relation `name`."""
        self._connection.register(name, table)

    def table(self, query: str) -> pa.Table:
        """Return an answer as an Arrow table."""
        return self._asked(lambda: self._connection.sql(query).to_arrow_table())

    def per_column(
        self, names: Sequence[str], parts: dict[str, list[str]]
    ) -> dict[str, tuple[Any, ...]]:
        """Compute aggregates of many columns, some columns a query.

        Args:
            names: The columns.
            parts: SQL expressions by column.

        Returns:
            Values of the expressions, by column.
        """
        found: dict[str, tuple[Any, ...]] = {}
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            wanted = ", ".join(part for name in batch for part in parts[name])
            values, taken = self.one(f"SELECT {wanted} FROM {self.source}"), 0
            for name in batch:
                found[name] = values[taken : taken + len(parts[name])]
                taken += len(parts[name])
        return found

    def one(self, query: str) -> tuple[Any, ...]:
        """Return the only row of an answer."""
        found = self.all(query)
        return found[0] if found else ()

    def all(self, query: str) -> list[tuple[Any, ...]]:
        """Return all rows of a short answer."""
        return [tuple(row) for row in self._asked(lambda: self._connection.sql(query).fetchall())]

    @staticmethod
    def _asked(ask: Callable[[], Answer]) -> Answer:
        try:
            return ask()
        except duckdb.Error as error:
            raise DataError(
                "monitored rows",
                f"must be Parquet that DuckDB can read, got {str(error).splitlines()[0]}",
                "Run the task that made it again; if that does not help, give the task more memory.",
            ) from error


def count_rows(path: Path) -> int:
    """Return the number of rows of a Parquet file, without reading them.

    Raises:
        DataError: The file cannot be read.
    """
    return int(_metadata(path).num_rows)


def _metadata(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (OSError, ValueError) as error:
        raise DataError(
            str(path),
            f"must be a Parquet file, got {error}",
            "Run the task that made it again.",
        ) from error
