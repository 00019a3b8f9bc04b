"""Counts over every row of a snapshot's Parquet files, by DuckDB, in bounded memory.

Owns all SQL of the stage. Columns are addressed by position (`c0`, `c1`, ...), because DuckDB's names
ignore case while a snapshot's do not, and because no name can then break a query.
"""

# ruff: noqa: S608  queries are put together from positions and numbers, never from names or values of the data

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import numpy as np
import pyarrow.parquet as pq

from include.errors import DataError
from include.store import duck
from include.store.snapshots import Column

_BATCH = 100  # columns per query: planning time grows with the number of aggregates
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NUMERIC = ("int", "float", "bool")


@dataclass(frozen=True)
class Statistics:
    """What one scan says about one column.

    Args:
        nulls: Rows without a value; NaN counts as none.
        infinite: Rows holding an infinity.
        low: Smallest finite value (bool: 0 or 1; timestamp: ISO text, UTC; string: None); None when there is none.
        high: Largest, likewise.
        distinct: Approximate number of different values.
        constant: True when all rows hold one and the same value and none is missing.
        outside: Rows outside the bounds asked for.
    """

    name: str
    type: str
    nulls: int
    infinite: int
    low: float | str | None
    high: float | str | None
    distinct: int
    constant: bool
    outside: int


class Scan:
    """A snapshot's files as one DuckDB relation; use it as a context manager.

    Args:
        paths: Parquet files, at least one, all with the same columns.
        columns: Columns of the manifest; those the files lack are an error.
        reference: Files of the snapshot to compare categories with; may be empty.

    Raises:
        DataError: The files cannot be read, or lack a column of the manifest.
    """

    def __init__(
        self, paths: Sequence[Path], columns: Sequence[Column], reference: Sequence[Path] = ()
    ) -> None:
        self.columns = {c.name: c for c in columns}
        self._source, self._at = _relation(paths)
        self._reference, self._reference_at = _relation(reference) if reference else ("", {})
        absent = sorted(set(self.columns) - set(self._at))
        if absent:
            raise DataError(
                f"snapshot file {paths[0].name}",
                f"must hold every column of its manifest, got none called {', '.join(absent)}",
                "Run ingest again; the stored snapshot is damaged.",
            )
        self._stack = ExitStack()
        spill = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="evergreen-scan-"))
        self._connection = self._stack.enter_context(duck.connect(spill))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def has_reference(self) -> bool:
        """True when there are reference files to compare with."""
        return bool(self._reference)

    def statistics(
        self, bounds: Mapping[str, tuple[float, float]] | None = None
    ) -> dict[str, Statistics]:
        """Describe every column over every row.

        Args:
            bounds: By numeric column, the inclusive (low, high) outside of which rows are counted.
        """
        found: dict[str, Statistics] = {}
        every = list(self.columns.values())
        for start in range(0, len(every), _BATCH):
            batch = every[start : start + _BATCH]
            parts = [p for c in batch for p in self._aggregates(c, (bounds or {}).get(c.name))]
            values = self._one(f"SELECT {', '.join(parts)} FROM {self._source}")
            width = len(parts) // len(batch)
            for number, column in enumerate(batch):
                row = values[number * width : (number + 1) * width]
                found[column.name] = _statistics(column, row[:-1], row[-1])
        return found

    def repeated(self, name: str) -> tuple[int, int, list[str]]:
        """Look for values that occur more than once.

        Returns:
            Number of such values, number of rows beyond the first of each, and up to three of the values.
        """
        where = f"SELECT {self._at[name]} AS v, count(*) AS n FROM {self._source} WHERE v IS NOT NULL GROUP BY v HAVING n > 1"
        values, extra = self._one(f"SELECT count(*), coalesce(sum(n - 1), 0) FROM ({where})")
        some = self._all(f"SELECT v::VARCHAR FROM ({where}) ORDER BY 1 LIMIT 3") if values else []
        return int(values), int(extra), [str(v[0]) for v in some]

    def repeated_rows(self) -> int:
        """Return how many rows repeat an earlier row in every column."""
        every = ", ".join(self._at[name] for name in self.columns)
        total, different = self._one(
            f"SELECT count(h), count(DISTINCT h) FROM (SELECT hash({every}) AS h FROM {self._source})"
        )
        return int(total) - int(different)

    def class_counts(self, name: str, limit: int = 1000) -> list[tuple[Any, int]]:
        """Return the values of a column with their numbers of rows, most frequent first; no missing ones."""
        at = self._at[name]
        found = self._all(
            f"SELECT {at} AS v, count(*) AS n FROM {self._source} WHERE v IS NOT NULL "
            f"GROUP BY v ORDER BY n DESC, v LIMIT {limit:d}"
        )
        return [(value, int(number)) for value, number in found if value == value]  # NaN is missing

    def unseen(self, name: str) -> tuple[int, list[str]]:
        """Count rows whose value the reference snapshot never had.

        Returns:
            Number of rows, and up to three of the values, most frequent first.
        """
        known = f"(SELECT {self._reference_at[name]}::VARCHAR AS r FROM {self._reference} WHERE r IS NOT NULL)"
        new = (
            f"SELECT v, count(*) AS n FROM (SELECT {self._at[name]}::VARCHAR AS v FROM {self._source}) "
            f"WHERE v IS NOT NULL AND v NOT IN {known} GROUP BY v"
        )
        rows = int(self._one(f"SELECT coalesce(sum(n), 0) FROM ({new})")[0])
        some = self._all(f"{new} ORDER BY n DESC, v LIMIT 3") if rows else []
        return rows, [str(v[0]) for v in some]

    def numeric_share(self, name: str) -> float:
        """Return the share of a text column's values that read as numbers; 0 when it has no values."""
        at = self._at[name]
        share = self._one(
            f"SELECT avg((TRY_CAST({at} AS DOUBLE) IS NOT NULL)::INT) FROM {self._source} WHERE {at} IS NOT NULL"
        )[0]
        return float(share or 0.0)

    def sample(
        self, numeric: Sequence[str], coded: Sequence[str], known: str, rows: int, limit: int
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Draw the same rows every time: those whose hash over all columns falls on a fixed residue.

        Args:
            numeric: Columns wanted as float64; missing is NaN.
            coded: Columns wanted as uint64 codes of their text; missing is a code of its own.
            known: Column that must not be missing in a row.
            rows: Rows of the snapshot.
            limit: About how many rows are wanted; all of them when there are no more.

        Returns:
            Arrays by column name, and the rows' hashes under the empty name.
        """
        every = ", ".join(self._at[name] for name in self.columns)
        wanted = [f"{self._at[n]}::DOUBLE AS n{i}" for i, n in enumerate(numeric)]
        wanted += [
            f"hash(coalesce({self._at[n]}::VARCHAR, chr(0))) AS k{i}" for i, n in enumerate(coded)
        ]
        step = max(1, -(-rows // limit))
        query = f"SELECT h, {', '.join(wanted)} FROM (SELECT *, hash({every}) AS h FROM {self._source}) WHERE h % {step} = 0 AND {self._at[known]} IS NOT NULL"
        arrays = self._run(query).fetchnumpy()
        found: dict[str, np.ndarray[Any, Any]] = {"": np.asarray(arrays["h"])}
        for i, name in enumerate(numeric):
            found[name] = np.ma.filled(np.ma.asarray(arrays[f"n{i}"], dtype=float), np.nan)
        for i, name in enumerate(coded):
            found[name] = np.asarray(arrays[f"k{i}"])
        return found

    def _aggregates(self, column: Column, bounds: tuple[float, float] | None) -> list[str]:
        at = self._at[column.name]
        missing, infinite, outside = f"{at} IS NULL", "0", "0"
        low, high = f"min({at})", f"max({at})"
        if column.type in NUMERIC:
            low, high = f"min({at}::DOUBLE)", f"max({at}::DOUBLE)"
            if bounds:
                outside = f"count_if({at}::DOUBLE NOT BETWEEN {bounds[0]!r} AND {bounds[1]!r})"
        if column.type == "float":
            # Infinities and NaN would be the extremes; NaN means missing here, as everywhere in Evergreen.
            missing = f"{at} IS NULL OR isnan({at})"
            infinite = f"count_if(isinf({at}))"
            low, high = (f"{f}(CASE WHEN isfinite({at}) THEN {at} END)" for f in ("min", "max"))
            if bounds:
                outside = (
                    f"count_if(isfinite({at}) AND {at} NOT BETWEEN {bounds[0]!r} AND {bounds[1]!r})"
                )
        if column.type == "timestamp":
            low, high = f"epoch_us(min({at}))", f"epoch_us(max({at}))"
        different = f"approx_count_distinct({at})"
        return [f"count_if({missing})", infinite, low, high, different, outside, "count(*)"]

    def _run(self, query: str) -> duckdb.DuckDBPyConnection:
        try:
            return self._connection.execute(query)
        except duckdb.Error as error:
            raise DataError(
                "snapshot files",
                f"must be Parquet that DuckDB can read, got {str(error).splitlines()[0]}",
                "Run ingest again; if that does not help, give the task more memory.",
            ) from error

    def _one(self, query: str) -> tuple[Any, ...]:
        row = self._run(query).fetchone()
        return tuple(row or ())

    def _all(self, query: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._run(query).fetchall()]


def _relation(paths: Sequence[Path]) -> tuple[str, dict[str, str]]:
    try:
        names = pq.read_schema(paths[0]).names
    except (OSError, ValueError, IndexError) as error:
        raise DataError(
            "snapshot", f"must be made of Parquet files, got {error}", "Run ingest again."
        ) from error
    at = {name: f"c{i}" for i, name in enumerate(names)}
    return f"{duck.source(paths)} AS t({', '.join(at.values())})", at


def _statistics(column: Column, row: tuple[Any, ...], rows: int) -> Statistics:
    nulls, infinite, low, high, distinct, outside = row
    same = low is not None and low == high
    if column.type == "timestamp":
        low, high = (v if v is None else _iso(int(v)) for v in (low, high))
    elif column.type == "string":
        low = high = None
    return Statistics(
        name=column.name,
        type=column.type,
        nulls=int(nulls),
        infinite=int(infinite or 0),  # DuckDB 2 answers NULL where every value is NULL
        low=low,
        high=high,
        distinct=min(int(distinct), rows - int(nulls)),  # an estimate, so it may overshoot
        constant=same and not nulls and not infinite,
        outside=int(outside or 0),
    )


def _iso(microseconds: int) -> str:
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat()
