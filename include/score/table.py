"""A table as the target: a partition is the rows that carry its name.

Owns the table's form, and that a partition is replaced in one transaction. Its primary key, partition and row, keeps
two writers of the same partition apart: one of them fails and tries again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from include.errors import DataError, ServiceError
from include.spec.score import SqlTarget
from include.store.databases import database_errors, describe_url, open_database, resolve_url

_BATCH_ROWS = 10_000
_PARTITION, _ROW = "partition", "row"
_RULE = "the table must take the rows"
_FIX = "Correct score.to, or the table."


class Table:
    """A table in a database; see `include.score.targets.Destination`."""

    def __init__(self, engine: Engine, name: str, schema: str | None) -> None:
        self._engine, self._name, self._schema = engine, name, schema
        self._where = f"{describe_url(engine.url)} table {name}"

    @classmethod
    def of(cls, target: SqlTarget, url: str | None) -> Table:
        """Open the table a spec names; nothing is contacted yet."""
        found = resolve_url("score.to", url, url_env=target.url_env, connection=target.connection)
        schema, _, name = target.table.rpartition(".")
        return cls(open_database(found), name, schema or None)

    def check(self) -> None:
        """See that the database answers."""
        with database_errors(self._where, _RULE, _FIX), self._engine.connect():
            pass

    def write(self, partition: str, path: Path) -> str:
        """Delete the partition's rows and insert the new ones, in one transaction."""
        file = pq.ParquetFile(path)
        table = self._described(file.schema_arrow)
        with database_errors(self._where, _RULE, _FIX):
            self._make(table)
        try:
            with database_errors(self._where, _RULE, _FIX), self._engine.begin() as connection:
                connection.execute(sa.delete(table).where(table.c[_PARTITION] == partition))
                self._insert(connection, table, partition, file)
        except DataError as error:
            if isinstance(error.__cause__, IntegrityError):
                raise ServiceError(
                    self._where,
                    f"nobody else may write partition {partition} at the same time, got: {error.rule}",
                    "Try again.",
                ) from error
            raise
        return self._where

    @staticmethod
    def _insert(
        connection: sa.Connection, table: sa.Table, partition: str, file: pq.ParquetFile
    ) -> None:
        first = 0
        for batch in file.iter_batches(_BATCH_ROWS):
            rows: list[dict[str, Any]] = batch.to_pylist()
            for place, row in enumerate(rows, first):
                row[_PARTITION], row[_ROW] = partition, place
            connection.execute(sa.insert(table), rows)
            first += len(rows)

    def _described(self, schema: pa.Schema) -> sa.Table:
        twice = {_PARTITION, _ROW}.intersection(name.lower() for name in schema.names)
        if twice:
            raise DataError(
                self._where,
                f"{twice.pop()!r} is a column of its own, got a key or time column of that name",
                "Rename the column at the source.",
            )
        columns = [sa.Column(field.name, _type(field.type)) for field in schema]
        return sa.Table(
            self._name,
            sa.MetaData(),
            sa.Column(_PARTITION, sa.String(100), primary_key=True),
            sa.Column(_ROW, sa.BigInteger, primary_key=True, autoincrement=False),
            *columns,
            schema=self._schema,
        )

    def _make(self, table: sa.Table) -> None:
        """Create the table where it is missing; check its columns where it is there."""
        try:
            table.create(self._engine, checkfirst=True)
        except SQLAlchemyError:
            if not sa.inspect(self._engine).has_table(self._name, self._schema):
                raise
            # somebody else was faster
        there = {c["name"] for c in sa.inspect(self._engine).get_columns(self._name, self._schema)}
        absent = [column.name for column in table.columns if column.name not in there]
        if absent:
            raise DataError(
                self._where,
                f"must have a column for each value, got none for {', '.join(map(repr, absent))}",
                "Add the columns, or name another table.",
            )


def _type(kind: pa.DataType) -> Any:
    if pa.types.is_boolean(kind):
        return sa.Boolean()
    if pa.types.is_integer(kind):
        return sa.BigInteger()
    if pa.types.is_floating(kind):
        return sa.Double()
    return sa.DateTime(timezone=True) if pa.types.is_timestamp(kind) else sa.Text()
