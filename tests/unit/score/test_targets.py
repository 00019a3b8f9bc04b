"""A partition is replaced in one step, in a folder, in S3 and in a table; readers see the old or the new."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from moto.server import ThreadedMotoServer
from pydantic import TypeAdapter

from include.errors import DataError, ServiceError, SpecError
from include.score import table as table_module
from include.score.targets import Destination, open_target
from include.spec.score import Target
from tests.unit.score.conftest import NOW, World, frame
from tests.unit.score.test_score import P

KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


def rows(count: int, version: str = "1", **more: Any) -> pa.Table:
    values = {
        "customer": [f"C-{n}" for n in range(count)],
        "seen_at": [NOW + timedelta(seconds=n) for n in range(count)],
        "predict": [n % 2 == 0 for n in range(count)],
        "probability_True": [n / count for n in range(count)],
        "version": [version] * count,
    }
    table = pa.table(values | more)
    place = table.column_names.index("seen_at")
    return table.set_column(place, "seen_at", table["seen_at"].cast(pa.timestamp("us", tz="UTC")))


@pytest.fixture
def put(tmp_path: Path) -> Any:
    def run(destination: Destination, partition: str, table: pa.Table) -> str:
        path = tmp_path / "made" / os.urandom(6).hex()
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table, path)
        return destination.write(partition, path)

    return run


def opened(target: dict[str, Any], **options: Any) -> Destination:
    return open_target(TypeAdapter(Target).validate_python(target), now=NOW, **options)


# --- folder and S3 --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(s3_endpoint: str) -> Any:
    made = boto3.session.Session(**KEYS).client(
        "s3", endpoint_url=s3_endpoint, region_name="us-east-1"
    )
    made.create_bucket(Bucket="scores")
    return made


def test_a_reader_of_a_folder_sees_the_old_or_the_new(tmp_path: Path, put: Any) -> None:
    out = opened({"kind": "file", "path": str(tmp_path / "out")})
    put(out, P, rows(1000, "0"))
    seen: set[tuple[int, tuple[str, ...]]] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            found = sorted((tmp_path / "out").glob("*/*.parquet"))
            table = pa.concat_tables([pq.ParquetFile(path).read() for path in found])
            seen.add((table.num_rows, tuple(sorted(set(table["version"].to_pylist())))))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 40):
        put(out, P, rows(1000 + number, str(number)))
    done.set()
    reader.join(30)
    assert seen <= {(1000 + n, (str(n),)) for n in range(40)}
    assert len(seen) > 1


def test_leftovers_of_killed_writers_go(tmp_path: Path, put: Any) -> None:
    out = opened({"kind": "file", "path": str(tmp_path / "out")})
    put(out, P, rows(3))
    folder = tmp_path / "out" / f"partition={P}"
    old, fresh = folder / ".evergreen-old", folder / ".evergreen-fresh"
    for path, age in ((old, timedelta(days=2)), (fresh, timedelta(hours=1))):
        path.write_bytes(b"half")
        moment = (NOW - age).timestamp()
        os.utime(path, (moment, moment))
    put(out, P, rows(3))
    assert (old.exists(), fresh.exists()) == (False, True)


def test_a_folder_that_is_a_file_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match="must be a folder"):
        opened({"kind": "file", "path": str(tmp_path / "out")}).check()


def test_s3_holds_one_object_a_partition(client: Any, s3_endpoint: str, put: Any) -> None:
    target = {"kind": "s3", "path": "s3://scores/churn/daily", "endpoint_url": s3_endpoint}
    out = opened(target, s3_options=KEYS)
    uri = put(out, P, rows(9, "1"))
    put(out, "2026-05-30", rows(4, "1"))
    put(out, P, rows(5, "2"))
    assert uri == f"s3://scores/churn/daily/partition={P}/predictions.parquet"
    found = {item["Key"]: item for item in client.list_objects_v2(Bucket="scores")["Contents"]}
    assert sorted(found) == [
        f"churn/daily/partition={name}/predictions.parquet" for name in ("2026-05-30", P)
    ]
    key = f"churn/daily/partition={P}/predictions.parquet"
    body = client.get_object(Bucket="scores", Key=key)["Body"].read()
    assert pq.read_table(pa.BufferReader(body))["version"].to_pylist() == ["2"] * 5


def test_the_whole_way_to_s3(
    world: World, client: Any, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = {"kind": "s3", "path": "s3://scores/whole", "endpoint_url": s3_endpoint}
    world.write(P, frame(30))
    done = world.score(P, destination=opened(target, s3_options=KEYS))
    key = done.uri.removeprefix("s3://scores/")
    etag = client.head_object(Bucket="scores", Key=key)["ETag"]
    world.score(P, destination=opened(target, s3_options=KEYS))
    assert client.head_object(Bucket="scores", Key=key)["ETag"] == etag


def test_a_bucket_that_is_not_there(s3_endpoint: str, put: Any) -> None:
    target = {"kind": "s3", "path": "s3://nowhere/x", "endpoint_url": s3_endpoint}
    with pytest.raises(DataError, match="bucket must exist"):
        put(opened(target, s3_options=KEYS), P, rows(2))


# --- tables ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'scores.db'}"
        return
    found = request.getfixturevalue("postgres")
    yield found
    with sa.create_engine(found).begin() as connection:
        connection.execute(sa.text("drop table if exists scores"))
        connection.execute(sa.text("drop schema if exists mart cascade"))


@pytest.fixture
def table(url: str, monkeypatch: pytest.MonkeyPatch) -> Destination:
    monkeypatch.setenv("SCORES_URL", url)
    return opened({"kind": "sql", "url_env": "SCORES_URL", "table": "scores"})


def query(url: str, text: str) -> list[tuple[Any, ...]]:
    with sa.create_engine(url).connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(text))]


def test_a_table_is_made_and_a_partition_replaced(
    table: Destination, url: str, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "_BATCH_ROWS", 4)
    table.check()
    where = put(table, P, rows(10, "1"))
    put(table, "2026-05-30", rows(3, "1"))
    put(table, P, rows(6, "2"))
    assert "only-for-tests" not in where
    found = query(
        url, "select partition, row, customer, predict, version from scores order by 1, 2"
    )
    assert [tuple(r) for r in found if r[0] == P] == [
        (P, n, f"C-{n}", n % 2 == 0, "2") for n in range(6)
    ]
    assert [r[4] for r in found if r[0] != P] == ["1"] * 3
    put(table, P, rows(6, "2").slice(0, 0))
    assert query(url, f"select count(*) from scores where partition = '{P}'") == [(0,)]


def test_types_of_the_table(table: Destination, url: str, put: Any) -> None:
    put(table, P, rows(3))
    kinds = {
        c["name"]: type(c["type"]).__name__
        for c in sa.inspect(sa.create_engine(url)).get_columns("scores")
    }
    double = "DOUBLE_PRECISION" if url.startswith("postgres") else "DOUBLE"
    assert kinds["probability_True"] == double
    assert kinds["predict"] == "BOOLEAN"
    assert kinds["seen_at"] in ("TIMESTAMP", "DATETIME")
    [(seen,)] = query(url, "select seen_at from scores where row = 0")
    assert str(seen).startswith(NOW.strftime("%Y-%m-%d %H:%M:%S"))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("kill_at", range(5))
def test_killed_at_any_statement_the_old_partition_stays(
    table: Any, url: str, put: Any, kill_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "_BATCH_ROWS", 4)
    put(table, P, rows(7, "1"))
    changes = 0

    def die(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal changes
        if statement.upper().startswith(("DELETE", "INSERT")):
            if changes == kill_at:
                raise Killed
            changes += 1

    def die_at_commit(_c: Any) -> None:
        if changes == kill_at:
            raise Killed

    sa.event.listen(table._engine, "before_cursor_execute", die)
    sa.event.listen(table._engine, "commit", die_at_commit)
    with pytest.raises(Killed):
        put(table, P, rows(10, "2"))  # a delete, three inserts, the commit
    sa.event.remove(table._engine, "before_cursor_execute", die)
    sa.event.remove(table._engine, "commit", die_at_commit)
    assert query(url, "select version, count(*) from scores group by 1") == [("1", 7)]
    put(table, P, rows(10, "2"))
    assert query(url, "select version, count(*) from scores group by 1") == [("2", 10)]


def test_two_writers_of_one_partition_never_double_it(
    url: str, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker taken for dead goes on while its task is tried again: one gives up, and may try again."""
    monkeypatch.setenv("SCORES_URL", url)
    failures: list[BaseException] = []
    start = threading.Barrier(2)

    def write(version: str) -> None:
        out = opened({"kind": "sql", "url_env": "SCORES_URL", "table": "scores"})
        start.wait(10)
        for _ in range(10):
            try:
                put(out, P, rows(300, version))
                return
            except ServiceError as error:
                failures.append(error)
                time.sleep(0.05)

    put(opened({"kind": "sql", "url_env": "SCORES_URL", "table": "scores"}), "other", rows(1))
    threads = [threading.Thread(target=write, args=(str(n),)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    counted = query(url, f"select version, count(*) from scores where partition = '{P}' group by 1")
    assert [count for _, count in counted] == [300]


def test_postgres_keeps_two_uncommitted_writers_apart(postgres: str, put: Any) -> None:
    engine = sa.create_engine(postgres)
    out: Any = opened({"kind": "sql", "url_env": "X", "table": "scores"}, sql_url=postgres)
    put(out, "other", rows(1))
    try:
        with engine.connect() as other:
            values = "('2026-05-31', 0, 'C-0', now(), true, 0.5, 'x')"
            other.execute(sa.text(f"insert into scores values {values}"))
            waiting = threading.Timer(0.5, other.commit)
            waiting.start()
            with pytest.raises(ServiceError, match="nobody else may write partition"):
                put(out, P, rows(5))
            waiting.join()
        assert query(postgres, f"select version from scores where partition = '{P}'") == [("x",)]
        put(out, P, rows(5))
        assert query(postgres, f"select count(*) from scores where partition = '{P}'") == [(5,)]
    finally:
        with engine.begin() as connection:
            connection.execute(sa.text("drop table scores"))


def test_a_table_in_a_schema(postgres: str, put: Any) -> None:
    with sa.create_engine(postgres).begin() as connection:
        connection.execute(sa.text("create schema mart"))
    try:
        out = opened({"kind": "sql", "url_env": "X", "table": "mart.scores"}, sql_url=postgres)
        put(out, P, rows(5))
        put(out, P, rows(2))
        assert query(postgres, "select count(*) from mart.scores") == [(2,)]
    finally:
        with sa.create_engine(postgres).begin() as connection:
            connection.execute(sa.text("drop schema mart cascade"))


def test_a_table_of_another_form_is_named(table: Destination, url: str, put: Any) -> None:
    put(table, P, rows(2))
    with pytest.raises(DataError, match="got none for 'probability_maybe'"):
        put(table, P, rows(2, probability_maybe=[0.1, 0.2]))
    with pytest.raises(DataError, match="'row' is a column of its own"):
        put(table, P, rows(2, row=[0.1, 0.2]))
    assert query(url, "select count(*) from scores") == [(2,)]


def test_a_database_that_is_away_may_come_back(tmp_path: Path, put: Any) -> None:
    path = tmp_path / "scores.db"
    out = opened(
        {"kind": "sql", "url_env": "X", "table": "scores"}, sql_url=f"sqlite:///{path}?timeout=0.1"
    )
    put(out, P, rows(2, "1"))
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("begin immediate")
    with pytest.raises(ServiceError, match=r"must answer.*locked"):
        put(out, P, rows(3, "2"))
    holder.execute("rollback")
    holder.close()
    put(out, P, rows(3, "2"))
    gone = "postgresql+psycopg://me:hush@127.0.0.1:1/db"
    with pytest.raises(ServiceError) as caught:
        opened({"kind": "sql", "url_env": "X", "table": "t"}, sql_url=gone).check()
    assert "hush" not in str(caught.value)


def test_no_url_is_a_wrong_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_URL", raising=False)
    with pytest.raises(
        SpecError, match=r"score\.to: needs a SQLAlchemy URL, got none from NO_SUCH"
    ):
        opened({"kind": "sql", "url_env": "NO_SUCH_URL", "table": "t"})
