from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from include.errors import DataError, ServiceError, SpecError
from include.ingest import sql
from include.ingest.ingest import IngestResult
from include.ingest.rows import Drop, batch_of

Run = Callable[..., IngestResult]
RowsOf = Callable[[IngestResult], pd.DataFrame]


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = tmp_path / "upstream.db"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "create table visits (id integer, at text, spend, plan text, mail text, y integer)"
        )
        rows = [
            (
                i,
                f"2026-05-{i:02d} 10:00:00.000000",
                i if i < 25 else i + 0.5,
                None if i % 4 else "a",
                f"s{i}@x",
                i % 2,
            )
            for i in range(1, 31)
        ]
        connection.executemany("insert into visits values (?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    url = f"sqlite:///{path}"
    monkeypatch.setenv("UPSTREAM_URL", url)
    return url


def query(text: str, **more: Any) -> dict[str, Any]:
    return {"kind": "sql", "query": text, "url_env": "UPSTREAM_URL", **more}


ALL = query("select * from visits")


def test_rows_of_a_query(
    run: Run, rows_of: RowsOf, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "_FETCH_ROWS", 7)
    result = run(source=ALL, key="id", time="at", drop=["mail"])
    assert result.manifest.types == {
        "id": "int",
        "at": "timestamp",
        "spend": "float",
        "plan": "string",
        "y": "int",
    }
    frame = rows_of(result)
    assert frame["spend"].tolist() == [*range(1, 25), 25.5, 26.5, 27.5, 28.5, 29.5, 30.5]
    assert result.manifest.time_end == "2026-05-30T10:00:00.000000Z"
    assert result.manifest.source.startswith("sqlite:///")
    monkeypatch.setattr(sql, "_FETCH_ROWS", 20_000)
    shuffled = query("select y, spend, at, plan, id from visits order by id desc")
    assert not run(source=shuffled, key="id", time="at").new


def test_the_window_is_bound(run: Run, database: str) -> None:
    source = query("select * from visits where at >= :window_start and at < :window_end")
    manifest = run(source=source, time="at", window="10d").manifest
    assert manifest.time_start == "2026-05-22T10:00:00.000000Z"
    assert manifest.rows == 9
    only_end = query(
        "select y, at, spend from visits where at < :window_end and plan || '::' <> ''"
    )
    assert run(source=only_end).manifest.rows == 7


def test_the_url_may_be_given(run: Run, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPSTREAM_URL")
    source = {"kind": "sql", "query": "select * from visits", "connection": "upstream"}
    assert run(source=source, sql_url=database).manifest.rows == 30


def test_no_url(run: Run) -> None:
    with pytest.raises(SpecError, match="needs a SQLAlchemy URL, got none from UPSTREAM_URL"):
        run(source=ALL)


@pytest.mark.parametrize(
    "url", ["postgresql//me:hush@host", "me:hush@host", "sqlite+nodriver://me:hush@host/x"]
)
def test_errors_never_show_the_password(
    run: Run, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("UPSTREAM_URL", url)
    with pytest.raises((SpecError, ServiceError), match=r"SQLAlchemy URL|driver") as caught:
        run(source=ALL)
    assert "hush" not in str(caught.value)
    assert (
        sql.describe_url(sa.make_url("postgresql+psycopg://me:hush@host:5433/db?sslmode=x"))
        == "postgresql://host:5433/db"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "select * from visitors",
            "the query must run, got: no such table: visitors. Correct ingest.source.query",
        ),
        ("selec 1", "the query must run, got: .*syntax error"),
        ("select 1 as a, 2 as a, 3 as y", "column names must differ, got 'a' more than once"),
        ("select * from visits where y > 5", "must hold at least one row, got none"),
        ("select id from visits", "target 'y' must be a column, got 'id'"),
        ("delete from visits", "the query must run, got: .*not return rows|must be a SELECT"),
    ],
)
def test_wrong_queries(run: Run, database: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(source=query(text))
    assert (
        sa.create_engine(database).connect().exec_driver_sql("select count(*) from visits").scalar()
        == 30
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "select * from visits where y = :label",
            "may use :window_start and :window_end, got :label",
        ),
        (
            "select * from visits where at > :window_start",
            "uses :window_start, got no window. Set ingest.window",
        ),
    ],
)
def test_wrong_parameters(run: Run, database: str, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        run(source=query(text))


def test_a_database_that_is_away(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UPSTREAM_URL", f"sqlite:///{tmp_path}/no/such/folder.db")
    with pytest.raises(ServiceError, match="the database must answer, got: unable to open"):
        run(source=ALL)
    monkeypatch.setenv(
        "UPSTREAM_URL", "postgresql+psycopg://me:hush@127.0.0.1:1/db?connect_timeout=2"
    )
    with pytest.raises(
        ServiceError, match=r"postgresql://127\.0\.0\.1:1/db: the database must answer"
    ) as caught:
        run(source=ALL)
    assert "hush" not in str(caught.value)


def test_values_of_all_kinds(run: Run, rows_of: RowsOf, database: str) -> None:
    mixed = "select y, case when id % 3 then id else 'id ' || id end as v from visits where id < 4"
    assert rows_of(run(source=query(mixed)))["v"].tolist() == ["1", "2", "id 3"]
    with pytest.raises(DataError, match=r"column 'v': must hold numbers.*got binary"):
        run(source=query("select y, x'ff' as v from visits"))
    identity = uuid.uuid4()
    batch = batch_of(
        {"u": [identity, None], "d": [Decimal("1.5"), None], "n": [2**70, 1]}, Drop(frozenset())
    )
    assert batch.to_pydict() == {
        "u": [str(identity), None],
        "d": [Decimal("1.5"), None],
        "n": [str(2**70), "1"],
    }
