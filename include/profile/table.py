"""Brings any file that ingest reads into a DuckDB table on disk, so that memory stays bounded.

The rows come through ingest's own readers: dialect, names and types are those of a later run. Columns of a CSV stay
text here: which type they hold is decided in `include.profile.text_types`.
"""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from include.errors import DataError
from include.ingest.readers import Reader
from include.ingest.sources import Access, open_source
from include.spec.schema import Ingest, Spec
from include.spec.sources import FileSource

MEMORY_LIMIT = "1GB"


@dataclass(frozen=True)
class Table:
    """An open file: `raw` in DuckDB holds its rows in file order.

    Args:
        connection: Owner of the table; closed by `open_table`.
        name: Name of the DuckDB table to read; its columns are c0, c1, ... because DuckDB's own names ignore
            case and because no name can then break a query.
        columns: Column names of the file, in its order.
        types: DuckDB's type of each column, all VARCHAR for CSV.
        rows: Number of rows, at least 1.
        text: Values are texts whose types are to be found out, as in CSV.
    """

    connection: duckdb.DuckDBPyConnection
    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: int
    text: bool

    def row(self, expressions: Sequence[str], parameters: Sequence[Any] = ()) -> tuple[Any, ...]:
        """Return the one row of aggregates over the table."""
        sql = f"SELECT {', '.join(expressions)} FROM {self.name}"  # noqa: S608  # built from c0, c1, ...
        found: tuple[Any, ...] = self.connection.execute(sql, list(parameters)).fetchone() or ()
        return found

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a small result."""
        rows: list[tuple[Any, ...]] = self.connection.execute(sql, list(parameters)).fetchall()
        return rows


def literal(text: str) -> str:
    """Return a text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def open_table(path: str) -> Iterator[Table]:
    """Load a file, or all files a glob matches, into a temporary database.

    Args:
        path: Absolute path or glob.

    Raises:
        DataError: Nothing matches, a file cannot be read, or there are no rows.
    """
    if not glob.glob(path, recursive=True):  # noqa: PTH207  # the path may be absolute
        raise DataError(
            f"--from {path}", "must match at least one file, got none", "Check the path."
        )
    with tempfile.TemporaryDirectory(prefix="evergreen-profile-") as folder:
        reader, _ = open_source(_spec(path), Access(datetime.now(UTC), Path(folder)))
        connection = duckdb.connect(str(Path(folder) / "profile.db"))
        try:
            connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
            connection.execute(f"SET temp_directory = {literal(folder)}")
            connection.execute("SET TimeZone = 'UTC'")
            names, types = _load(connection, reader)
            counted = connection.execute("SELECT count(*) FROM raw").fetchone()
            if not counted or not counted[0]:
                raise DataError(
                    path, "must hold at least one row, got none", "Give a file with data."
                )
            yield Table(connection, "raw", names, types, int(counted[0]), reader.text)
        finally:
            connection.close()


def _spec(path: str) -> Spec:
    """Return the least spec that names the file; no text means missing yet."""
    source = FileSource(kind="file", path=path, missing=())
    ingest = Ingest(source=source, target="unknown")
    return Spec(model="profile", task="regression", ingest=ingest)


def _load(
    connection: duckdb.DuckDBPyConnection, reader: Reader
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Copy all rows into the table `raw`; return the columns' names and DuckDB's types."""
    schema = _schema(reader)
    refs = {name: f"c{number}" for number, name in enumerate(schema.names)}
    connection.register("batch", schema.empty_table().rename_columns(list(refs.values())))
    connection.execute("CREATE TABLE raw AS SELECT * FROM batch")
    connection.execute("BEGIN")  # one transaction for all batches: six times as fast
    for batch in reader.batches(None):
        here = [refs[name] for name in batch.schema.names]
        connection.register("batch", _in_microseconds(batch).rename_columns(here))
        connection.execute(f"INSERT INTO raw ({', '.join(here)}) SELECT * FROM batch")  # noqa: S608
    connection.execute("COMMIT")
    described = connection.execute("SELECT * FROM raw LIMIT 0").description or []
    return tuple(schema.names), tuple(str(d[1]) for d in described)


def _schema(reader: Reader) -> pa.Schema:
    """Return one type for every column; where files do not agree, text."""
    if reader.text:
        return pa.schema([(name, pa.string()) for name in reader.names])
    found: dict[str, pa.Field] = {name: pa.field(name, pa.null()) for name in reader.names}
    for batch in reader.sample():
        for field in batch.schema:
            plain = pa.field(field.name, _plain(field.type))
            schemas = [pa.schema([found[field.name]]), pa.schema([plain])]
            try:
                found[field.name] = pa.unify_schemas(schemas, promote_options="permissive").field(0)
            except pa.ArrowException:
                found[field.name] = pa.field(field.name, pa.string())
    return pa.schema(
        [
            pa.field(f.name, pa.string() if pa.types.is_null(f.type) else f.type)
            for f in found.values()
        ]
    )


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.timestamp("us", kind.tz) if pa.types.is_timestamp(kind) else kind


def _in_microseconds(batch: pa.RecordBatch) -> pa.Table:
    """Return the rows with times that DuckDB can convert: it cannot for zoned nanoseconds."""
    table = pa.Table.from_batches([batch])
    fields = [pa.field(f.name, _plain(f.type)) for f in table.schema]
    return table.cast(pa.schema(fields), safe=False)
