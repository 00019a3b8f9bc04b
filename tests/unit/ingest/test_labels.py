import sqlite3
from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.errors import DataError, SpecError
from include.ingest.labels import ingest_labels
from include.spec.schema import Spec
from include.store.folder import FolderStore
from include.store.labels import LABELS, read_labels, write_labels

START = datetime(2026, 3, 2, tzinfo=UTC)
END = START + timedelta(days=7)
NOW = datetime(2026, 4, 10, 6, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "store")


def make_spec(source, *, task="binary", **ingest):
    columns = {"target": "churned", "key": "customer_id", "time": "observed_at"} | ingest
    return Spec.model_validate(
        {
            "model": "churn",
            "task": task,
            "ingest": {"source": {"kind": "file", "path": "/nowhere/*.csv"}, **columns},
            "monitor": {"labels": {"source": source, "delay": "30d"}},
        }
    )


def csv_spec(tmp_path, text, **options):
    (tmp_path / "labels.csv").write_text(text)
    return make_spec({"kind": "file", "path": f"{tmp_path}/labels.csv"}, **options)


def take(spec, store, start=START, end=END, now=NOW, **options):
    return ingest_labels(spec, store, start, end, now=now, **options)


def stored(store):
    rows = read_labels(store, "churn", START - timedelta(days=99)).to_pylist()
    return sorted((r["key"], r["time"] and r["time"].isoformat(), r["label"]) for r in rows)


ROWS = """customer_id,observed_at,churned,email
007,2026-03-02T00:00:00Z,1,a@b.c
8,2026-03-08T23:59:59Z,0,a@b.c
9,2026-03-09T00:00:00Z,1,a@b.c
10,2026-03-01T23:59:59Z,1,a@b.c
11,2026-03-03T00:00:00Z,,a@b.c
,2026-03-03T00:00:00Z,1,a@b.c
"""


def test_takes_the_labels_of_the_stretch_of_time_and_no_other_column(tmp_path, store):
    spec = csv_spec(tmp_path, ROWS, drop=["email"])
    assert take(spec, store) == 2
    assert stored(store) == [
        ("007", "2026-03-02T00:00:00+00:00", "1"),
        ("8", "2026-03-08T23:59:59+00:00", "0"),
    ]
    table = read_labels(store, "churn", START, END)
    assert table.schema.equals(LABELS)
    assert set(table["received_at"].to_pylist()) == {NOW}


def test_taken_again_it_writes_nothing_and_what_was_corrected_counts(tmp_path, store):
    assert take(csv_spec(tmp_path, ROWS), store) == 2
    before = sorted(store.list("labels/"))
    assert take(csv_spec(tmp_path, ROWS), store, now=NOW + timedelta(days=1)) == 0
    assert sorted(store.list("labels/")) == before
    corrected = csv_spec(tmp_path, ROWS.replace("007,2026-03-02T00:00:00Z,1", "007,2026-03-02,0"))
    assert take(corrected, store, now=NOW + timedelta(days=2)) == 1
    assert [label for key, _, label in stored(store) if key == "007"] == ["0"]


def test_a_posted_label_of_the_same_key_and_time_is_the_same_label(tmp_path, store):
    row = {"request_id": None, "row": None, "key": "007", "time": START, "label": "1"}
    posted = pa.Table.from_pylist([row | {"received_at": NOW - timedelta(days=1)}], LABELS)
    assert write_labels(store, "churn", posted) == 1
    assert take(csv_spec(tmp_path, ROWS), store) == 1


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([True, False], {"true", "false"}),
        ([1, 0], {"1", "0"}),
        ([1.0, 0.0], {"1", "0"}),
        (["yes", "no"], {"yes", "no"}),
    ],
)
def test_labels_are_written_as_categories_are(tmp_path, store, values, texts):
    frame = pd.DataFrame({"customer_id": [1, 2], "observed_at": [START] * 2, "churned": values})
    frame.to_parquet(tmp_path / "labels.parquet")
    spec = make_spec({"kind": "file", "path": f"{tmp_path}/*.parquet"})
    assert take(spec, store) == 2
    assert {label for _, _, label in stored(store)} == texts
    assert {key for key, _, _ in stored(store)} == {"1", "2"}


def test_numbers_of_a_regression(tmp_path, store):
    text = "customer_id,observed_at,churned\na,2026-03-03,3\nb,2026-03-03,0.25\n"
    assert take(csv_spec(tmp_path, text, task="regression"), store) == 2
    assert [label for _, _, label in stored(store)] == ["3.0", "0.25"]
    bad = csv_spec(tmp_path, text.replace("0.25", "much"), task="regression")
    with pytest.raises(DataError, match=r"'churned' must hold numbers, got '3'"):
        take(bad, store)


def test_of_doubles_the_last_counts(tmp_path, store):
    text = "customer_id,observed_at,churned\na,2026-03-03,0\na,2026-03-03,1\n"
    assert take(csv_spec(tmp_path, text), store) == 1
    assert [label for _, _, label in stored(store)] == ["1"]


def test_without_a_time_column_all_rows_are_labels_once(tmp_path, store):
    text = "customer_id,churned\na,0\nb,1\n"
    spec = csv_spec(tmp_path, text, time=None)
    assert take(spec, store) == 2
    assert take(spec, store, now=NOW + timedelta(days=40)) == 0
    assert stored(store) == [("a", None, "0"), ("b", None, "1")]


def test_a_query_gets_the_stretch_of_time(tmp_path, store):
    path = tmp_path / "labels.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE l (customer_id, observed_at, churned)")
        days = [(f"c{d}", f"2026-03-{d:02d} 12:00:00", d % 2) for d in range(1, 20)]
        connection.executemany("INSERT INTO l VALUES (?, ?, ?)", days)
    query = "SELECT * FROM l WHERE observed_at >= :window_start AND observed_at < :window_end"
    spec = make_spec({"kind": "sql", "query": query, "url_env": "NOT_SET"})
    assert take(spec, store, sql_url=f"sqlite:///{path}") == 7
    assert [key for key, _, _ in stored(store)] == [f"c{d}" for d in range(2, 9)]


def test_no_file_yet_is_no_label_yet(tmp_path, store):
    spec = make_spec({"kind": "file", "path": f"{tmp_path}/none/*.parquet"})
    assert take(spec, store) == 0


def test_a_spec_without_a_source_has_none(tmp_path, store):
    assert take(make_spec(None), store) == 0


def test_what_cannot_be_a_label(tmp_path, store):
    with pytest.raises(SpecError, match=r"needs ingest.key"):
        take(csv_spec(tmp_path, ROWS, key=None), store)
    with pytest.raises(DataError, match="Did you mean 'churned'"):
        take(csv_spec(tmp_path, ROWS, target="churn"), store)
    with pytest.raises(DataError, match=r"'observed_at' must be a timestamp .* got 'soon'"):
        take(csv_spec(tmp_path, ROWS.replace("2026-03-09T00:00:00Z", "soon")), store)
    (tmp_path / "labels.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="damaged"):
        take(make_spec({"kind": "file", "path": f"{tmp_path}/labels.parquet"}), store)


def test_an_empty_source(tmp_path, store):
    assert take(csv_spec(tmp_path, "customer_id,observed_at,churned\n"), store) == 0


def test_many_files_of_mixed_kinds_of_label(tmp_path, store):
    for number, label in enumerate((1, 0)):
        table = {"customer_id": [f"k{number}"], "observed_at": [START], "churned": [label]}
        pq.write_table(pa.table(table), tmp_path / f"{number}.parquet")
    floats = {"customer_id": ["k2"], "observed_at": [START], "churned": [1.0]}
    pq.write_table(pa.table(floats), tmp_path / "2.parquet")
    spec = make_spec({"kind": "file", "path": f"{tmp_path}/*.parquet"})
    assert take(spec, store) == 3
    assert [label for _, _, label in stored(store)] == ["1", "0", "1"]
