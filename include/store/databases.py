"""SQL databases that a spec names: their URL, what they are called, and what their errors mean."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from include.errors import DataError, ServiceError, SpecError

_BUSY = ("locked", "busy", "connection", "server closed", "timeout", "unable to open")


def resolve_url(
    section: str, given: str | None, *, url_env: str | None, connection: str | None
) -> URL:
    """Return a database's URL: the given one, or the environment variable's.

    Args:
        section: The spec's section that names it, for the message.
        given: URL out of an Airflow connection; None without.
        url_env: Name of the environment variable.
        connection: Id of the Airflow connection.

    Raises:
        SpecError: There is neither, or it is no SQLAlchemy URL. The message never shows the URL.
    """
    text = given or os.environ.get(url_env or "", "")
    if not text:
        raise SpecError(
            section,
            f"needs a SQLAlchemy URL, got none from {url_env or connection}",
            "Set the environment variable (or create the Airflow connection).",
        )
    try:
        url = sa.make_url(text)
    except ArgumentError:
        raise SpecError(
            section,
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


def open_database(url: URL) -> Engine:
    """Return an engine that keeps no connection open.

    Raises:
        ServiceError: The driver is missing.
    """
    try:
        return sa.create_engine(url, poolclass=sa.pool.NullPool)
    except (ImportError, SQLAlchemyError) as error:
        raise ServiceError(
            describe_url(url), f"needs its driver, got: {error}", "Install the driver."
        ) from error


@contextmanager
def database_errors(where: str, rule: str, fix: str) -> Iterator[None]:
    """Tell a database that is away (try again) from a statement that is wrong (do not).

    Args:
        where: The database, as `describe_url` names it.
        rule: What the statement must do, for the message.
        fix: What to do about a wrong one.

    Raises:
        ServiceError: The database is away or busy.
        DataError: It refused the statement.
    """
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
        raise DataError(where, f"{rule}, got: {reason}", fix) from error
