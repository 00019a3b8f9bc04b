"""Rows of an SQL query, streamed through a cursor on the server's side."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from include.errors import DataError, ServiceError, SpecError
from include.ingest.readers import checked_names
from include.ingest.rows import Drop, batch_of
from include.spec.sources import SqlSource

_FETCH_ROWS = 20_000
_BUSY = ("locked", "busy", "connection", "server closed", "timeout", "unable to open")


def resolve_url(source: SqlSource, given: str | None) -> URL:
    """Return the database's URL: the given one, or the environment variable's.

    Raises:
        SpecError: There is neither, or it is no SQLAlchemy URL. The message never shows the URL.
    """
    text = given or os.environ.get(source.url_env or "", "")
    if not text:
        raise SpecError(
            "ingest.source",
            f"needs a SQLAlchemy URL, got none from {source.url_env or source.connection}",
            "Set the environment variable (or create the Airflow connection).",
        )
    try:
        url = sa.make_url(text)
    except ArgumentError:
        raise SpecError(
            "ingest.source",
            "must be a SQLAlchemy URL such as postgresql+psycopg://user:password@host/db, got another text",
            "Correct the environment variable (or the Airflow connection).",
        ) from None
    # Connections and other tools still write the scheme SQLAlchemy gave up.
    return url.set(drivername="postgresql") if url.drivername == "postgres" else url


def describe_url(url: URL) -> str:
    """Return the database for people: no user, no password, no options."""
    host = url.host or ""
    port = f":{url.port}" if url.port else ""
    return f"{url.get_backend_name()}://{host}{port}/{url.database or ''}"


@contextmanager
def _database(where: str) -> Iterator[None]:
    """Tell a database that is away (try again) from a query that is wrong (do not)."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        reason = " ".join(str(cause).split())[:300]
        away = isinstance(error, DBAPIError) and (
            error.connection_invalidated or any(word in reason.lower() for word in _BUSY)
        )
        if away:
            raise ServiceError(
                where, f"the database must answer, got: {reason}", "Try again later."
            ) from error
        raise DataError(
            where, f"the query must run, got: {reason}", "Correct ingest.source.query."
        ) from error


def query_batches(
    url: URL, query: str, drop: Drop, *, start: datetime | None, end: datetime
) -> Iterator[pa.RecordBatch]:
    """Run the query and yield its rows, without the dropped columns.

    Args:
        url: The database.
        query: One SELECT.
        drop: Columns to leave out.
        start: Bound to `:window_start` where the query uses it; None where the spec has no window.
        end: Bound to `:window_end` where the query uses it.

    Raises:
        SpecError: The query needs another parameter, or a window the spec does not have.
        DataError: The query is wrong.
        ServiceError: The database is away, or its driver is missing.
    """
    where = describe_url(url)
    statement = _bind(query, start, end)
    try:
        engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    except (ImportError, SQLAlchemyError) as error:
        raise ServiceError(
            where, f"needs its driver, got: {error}", "Install the driver."
        ) from error
    with _database(where), engine.connect() as connection:
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


def _bind(query: str, start: datetime | None, end: datetime) -> Any:
    statement = sa.text(query)
    wanted = set(statement.compile().params)
    values = {"window_start": start, "window_end": end}
    unknown = sorted(wanted - set(values))
    if unknown:
        raise SpecError(
            "ingest.source.query",
            f"may use :window_start and :window_end, got :{unknown[0]}",
            "Correct the query; write a colon that is no parameter as \\:.",
        )
    if "window_start" in wanted and start is None:
        raise SpecError(
            "ingest.source.query", "uses :window_start, got no window", "Set ingest.window."
        )
    return statement.bindparams(
        *(sa.bindparam(n, values[n], sa.DateTime(timezone=True)) for n in sorted(wanted))
    )
