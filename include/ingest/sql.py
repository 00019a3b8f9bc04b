"""Rows of an SQL query, streamed through a cursor on the server's side."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import URL

from include.errors import SpecError
from include.ingest.readers import checked_names
from include.ingest.rows import Drop, batch_of
from include.store.databases import database_errors, describe_url, open_database

_FETCH_ROWS = 20_000


def query_batches(
    url: URL,
    query: str,
    drop: Drop,
    *,
    start: datetime | None,
    end: datetime,
    partition: str | None = None,
) -> Iterator[pa.RecordBatch]:
    """Run the query and yield its rows, without the dropped columns.

    Args:
        url: The database.
        query: One SELECT.
        drop: Columns to leave out.
        start: Bound to `:window_start` where the query uses it; None where the spec has no window.
        end: Bound to `:window_end` where the query uses it.
        partition: Bound to `:partition`, which only a query for scoring may use; None for others.

    Raises:
        SpecError: The query needs another parameter, or a window the spec does not have.
        DataError: The query is wrong.
        ServiceError: The database is away, or its driver is missing.
    """
    where = describe_url(url)
    statement = _bind(query, start, end, partition)
    engine = open_database(url)
    rule, fix = "the query must run", "Correct ingest.source.query."
    with database_errors(where, rule, fix), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET TIME ZONE 'UTC'")  # times without a zone are UTC
        result = connection.execution_options(stream_results=True, yield_per=_FETCH_ROWS).execute(
            statement
        )
        names = checked_names(list(result.keys()), where)
        empty = True
        for rows in result.partitions():
            empty = False
            yield batch_of(dict(zip(names, zip(*rows, strict=True), strict=True)), drop)
        if empty:
            yield batch_of({name: [] for name in names}, drop)


def _bind(query: str, start: datetime | None, end: datetime, partition: str | None) -> Any:
    statement = sa.text(query)
    wanted = set(statement.compile().params)
    values: dict[str, Any] = {"window_start": start, "window_end": end}
    if partition is not None:
        values = {"partition": partition}
    unknown = sorted(wanted - set(values))
    if unknown:
        raise SpecError(
            "ingest.source.query",
            f"may use {' and '.join(f':{name}' for name in values)}, got :{unknown[0]}",
            "Correct the query; write a colon that is no parameter as \\:.",
        )
    if "window_start" in wanted and start is None:
        raise SpecError(
            "ingest.source.query", "uses :window_start, got no window", "Set ingest.window."
        )
    return statement.bindparams(*(sa.bindparam(n, values[n], _type(n)) for n in sorted(wanted)))


def _type(name: str) -> Any:
    return sa.String() if name == "partition" else sa.DateTime(timezone=True)
