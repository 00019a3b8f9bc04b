"""The ledger's tables, and how a database is opened, locked and read, on SQLite and Postgres alike."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from include.errors import ServiceError

METADATA = MetaData()

# Postgres refuses what is too long, SQLite takes it: Text wherever Airflow's ids go in (a Dag's and a run's have
# up to 250 characters each, and a key holds both and more). A registered model's name has up to 256.

EVENTS = Table(
    "events",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("model", String(256), nullable=False),
    Column("seq", Integer, nullable=False),  # 1, 2, 3, ... per model
    Column("key", Text, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("actor", Text, nullable=False),
    Column("at", String(40), nullable=False),  # ISO 8601, UTC
    Column("payload", Text, nullable=False),  # canonical JSON
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    UniqueConstraint("model", "seq"),
    UniqueConstraint("model", "key"),
    Index("events_by_kind", "model", "kind", "seq"),
)
REQUESTS = Table(
    "requests",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("model", String(256), nullable=False),
    Column("source", String(20), nullable=False),
    Column("reason", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("details", Text, nullable=False),
    Column("at", String(40), nullable=False),
    Column("run_key", Text),  # the decision that answered it; null: pending
    UniqueConstraint("model", "key"),
    Index("requests_pending", "model", "run_key"),
)
DECISIONS = Table(
    "decisions",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("model", String(256), nullable=False),
    Column("run_key", Text, nullable=False),
    Column("trigger", String(20), nullable=False),
    Column("by_hand", Boolean, nullable=False),
    Column("verdict", String(10), nullable=False),
    Column("reason", Text, nullable=False),
    Column("request_ids", Text, nullable=False),  # JSON list
    Column("at", String(40), nullable=False),
    UniqueConstraint("model", "run_key"),
    Index("decisions_recent", "model", "at"),
)

REPLICAS = Table(
    "replicas",
    METADATA,
    Column("id", String(200), primary_key=True),  # host, process and its start
    Column("started_at", String(40), nullable=False),
    Column("seen_at", String(40), nullable=False),  # ISO 8601, UTC
    Column("state", Text, nullable=False),  # canonical JSON: what it has loaded and how it routes
)
API_KEYS = Table(
    "api_keys",
    METADATA,
    Column("id", String(32), primary_key=True),  # what stands before the dot of a key; no secret
    Column("name", String(100), nullable=False),
    Column("hash", String(64), nullable=False),  # sha256 of the whole key
    Column("models", Text, nullable=False),  # JSON list of names; ["*"] for all
    Column("created_at", String(40), nullable=False),
    Column("expires_at", String(40)),  # null: never
    Column("replaced_by", String(32)),  # the key that a rotation made in its place; null: none
)

_LOCK = 0x65766772  # "evgr": Postgres advisory lock of the schema's creation
_BUSY_SECONDS = 30
_WRITES = "evergreen_writes"


class Database:
    """One ledger database, opened on first use.

    Args:
        url: SQLAlchemy URL, `sqlite:///path` or `postgresql://...`.

    Raises:
        ServiceError: The URL is not one of those; later, that the database cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = _parse(url)
        self.where = f"Ledger at {self.url.render_as_string(hide_password=True)}"
        self._engine: Engine | None = None
        self._pid = 0

    @property
    def sqlite(self) -> bool:
        """Whether it is SQLite."""
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection whose reads all see the same moment."""
        with self._errors(), self._open().connect() as connection:
            if not self.sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def write(self, model: str) -> Iterator[Connection]:
        """Give a connection in a transaction that nobody else writing about `model` runs beside."""
        with self._errors(), self._open().connect() as connection:
            connection = connection.execution_options(**{_WRITES: True})
            if not self.sqlite:
                connection = connection.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                if not self.sqlite:
                    # READ COMMITTED: what is read after the wait for the lock is what is there by then
                    lock = text("SELECT pg_advisory_xact_lock(:space, hashtext(:model))")
                    connection.execute(lock, {"space": _LOCK & 0x7FFFFFFF, "model": model})
                yield connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            found = " ".join(str(cause).split()) or type(cause).__name__
            raise ServiceError(
                self.where,
                f"must take part, got {found[:300]}",
                "Check that the database runs, is writable, and has room.",
            ) from error

    def _open(self) -> Engine:
        if self._engine is None or self._pid != os.getpid():  # a forked child opens its own
            self._engine, self._pid = self._create(), os.getpid()
        return self._engine

    def _create(self) -> Engine:
        if self.sqlite:
            engine = self._sqlite_engine()
        else:
            engine = create_engine(
                self.url,
                pool_size=2,
                pool_pre_ping=True,
                connect_args={"connect_timeout": 5},
            )
        with engine.connect() as connection:
            connection = connection.execution_options(**{_WRITES: True})
            with connection.begin():  # two processes on an empty database: the second one waits
                if not self.sqlite:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK})
                METADATA.create_all(connection)
        return engine

    def _sqlite_engine(self) -> Engine:
        path = self.url.database
        if not path or path == ":memory:":
            raise ServiceError(
                self.where, "must be a file, got a database in memory", "Name a file in the URL."
            )
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServiceError(
                self.where, f"must lie in a folder, got {error}", "Make the folder writable."
            ) from error
        engine = create_engine(
            self.url, poolclass=NullPool, connect_args={"timeout": _BUSY_SECONDS}
        )
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
        return engine


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    backend = parsed.get_backend_name() if parsed is not None else None
    if parsed is not None and backend == "sqlite":
        return parsed
    if parsed is not None and backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    raise ServiceError(
        "Ledger",
        f"must be a sqlite:/// or postgresql:// URL, got one of {backend or 'no known kind'}",
        "Set EVERGREEN_LEDGER_URL.",
    )


def _on_connect(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions of its own
    _use_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch a new database to its write-ahead log; several processes may try at once.

    SQLite does not wait by itself here: who meets another one's switch is told "database is locked" at once.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                return
            connection.execute("PRAGMA journal_mode = wal")
        except sqlite3.OperationalError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)


def _on_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
