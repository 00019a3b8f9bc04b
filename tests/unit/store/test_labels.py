from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from include.store import lease as lease_module
from include.store.files import Store
from include.store.labels import LABELS, compact, expire, forget, read_labels, write_labels
from include.store.parts import day_of
from tests.unit.store.log_rows import DyingStore, Killed

NOW = datetime(2026, 2, 3, 12, tzinfo=UTC)
THEN = datetime(2026, 1, 30, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def batch(*labels: dict[str, Any], received: datetime = NOW) -> pa.Table:
    full = [dict.fromkeys(LABELS.names) | {"received_at": received} | each for each in labels]
    return pa.Table.from_pylist(full, schema=LABELS)


def by_request(name: str, label: str, row: int | None = 0) -> dict[str, Any]:
    return {"request_id": name, "row": row, "label": label}


def by_key(key: str, label: str, time: datetime | None = THEN) -> dict[str, Any]:
    return {"key": key, "time": time, "label": label}


def known(store: Store, **options: Any) -> dict[Any, str]:
    """Label by identity, as readers see them."""
    found = read_labels(store, "m", options.get("start", THEN - 30 * DAY), options.get("end"))
    assert found.schema.equals(LABELS)
    pairs = [
        ((r["request_id"], r["row"]) if r["request_id"] else (r["key"], r["time"]), r["label"])
        for r in found.to_pylist()
    ]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def files(store: Store) -> list[str]:
    return list(store.list("labels/"))


def test_labels_come_back(store: Store) -> None:
    some = batch(by_request("a", "yes"), by_request("a", "no", 1), by_key("k", "no"))
    assert write_labels(store, "m", some) == 3
    assert known(store) == {("a", 0): "yes", ("a", 1): "no", ("k", THEN): "no"}
    assert sorted(str(day_of(key)) for key in files(store)) == ["2026-01-30", "2026-02-03"]


def test_no_row_means_the_first(folder_store: Store) -> None:
    write_labels(folder_store, "m", batch(by_request("a", "no")))
    write_labels(folder_store, "m", batch(by_request("a", "yes", None), received=NOW + DAY))
    assert known(folder_store) == {("a", 0): "yes"}


def test_nothing_to_read_or_write(folder_store: Store) -> None:
    assert known(folder_store) == {}
    assert write_labels(folder_store, "m", batch()) == 0
    assert files(folder_store) == []


def test_a_batch_sent_again_writes_nothing(store: Store) -> None:
    rows = [by_request("a", "yes"), by_key("k", "no")]
    assert write_labels(store, "m", batch(*rows)) == 2
    there = files(store)
    again = batch(*reversed(rows), received=NOW + timedelta(hours=1))
    assert write_labels(store, "m", again) == 0
    assert files(store) == there


def test_the_label_received_last_counts(folder_store: Store) -> None:
    write_labels(folder_store, "m", batch(by_key("k", "no"), by_request("a", "no")))
    write_labels(folder_store, "m", batch(by_key("k", "yes"), received=NOW + timedelta(hours=1)))
    assert known(folder_store) == {("k", THEN): "yes", ("a", 0): "no"}


def test_a_label_may_be_set_back(folder_store: Store) -> None:
    first, second = by_key("k", "no"), by_key("k", "yes")
    for hour, label in enumerate([first, second, first, first, second, first]):
        write_labels(folder_store, "m", batch(label, received=NOW + timedelta(hours=hour)))
        assert known(folder_store) == {("k", THEN): label["label"]}
    assert len(files(folder_store)) == 5  # the repetition in the middle wrote nothing


def test_a_repeated_batch_corrects_only_what_differs(folder_store: Store) -> None:
    both = [by_key("k", "no"), by_key("l", "no")]
    write_labels(folder_store, "m", batch(*both))
    write_labels(folder_store, "m", batch(by_key("k", "yes"), received=NOW + timedelta(hours=1)))
    later = NOW + timedelta(hours=2)
    assert write_labels(folder_store, "m", batch(*both, received=later)) == 1
    assert known(folder_store) == {("k", THEN): "no", ("l", THEN): "no"}


def test_a_window_is_half_open_and_goes_by_time_or_arrival(folder_store: Store) -> None:
    write_labels(
        folder_store,
        "m",
        batch(by_key("a", "x"), by_key("b", "x", THEN + DAY), by_key("c", "x", None)),
    )
    assert set(known(folder_store, start=THEN, end=THEN + DAY)) == {("a", THEN)}
    assert set(known(folder_store, start=NOW, end=NOW + DAY)) == {("c", None)}
    assert known(folder_store, start=NOW + DAY) == {}
    just_after = THEN + timedelta(microseconds=1)
    assert ("a", THEN) not in known(folder_store, start=just_after)


def test_compaction_keeps_what_counts(store: Store) -> None:
    for hour, label in enumerate("abcd"):
        received = NOW + timedelta(hours=hour)
        write_labels(store, "m", batch(by_key("k", label), by_key(label, "x"), received=received))
    before = known(store)
    assert compact(store, "m", before=THEN.date()) == 0
    assert compact(store, "m", before=THEN.date() + DAY) == 4
    assert known(store) == before
    assert len(files(store)) == 1
    assert before["k", THEN] == "d"


@pytest.mark.parametrize("kill_at", range(10))
def test_a_killed_compaction_changes_no_label(
    folder_store: Store, kill_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for hour, label in enumerate("abcd"):
        received = NOW + timedelta(hours=hour)
        rows = batch(by_key("k", label), by_request(label, "x"), received=received)
        write_labels(folder_store, "m", rows)
    before = known(folder_store)
    monkeypatch.setattr(lease_module, "_runs", lambda pid: False)
    with pytest.raises(Killed):
        compact(DyingStore(folder_store, kill_at), "m", before=date(2027, 1, 1))  # type: ignore[arg-type]
    assert known(folder_store) == before
    compact(folder_store, "m", before=date(2027, 1, 1))
    assert known(folder_store) == before
    assert len(files(folder_store)) == 2


def test_forget_by_key_and_by_request(store: Store) -> None:
    write_labels(
        store,
        "m",
        batch(
            by_key("k", "x"),
            by_key("k", "x", None),
            by_key("other", "x"),
            by_request("a", "x", 0),
            by_request("a", "x", 1),
            by_request("b", "x"),
        ),
    )
    assert forget(store, "m", "k", ["a/1"]) == {"rows": 3, "parts": 2}
    assert set(known(store)) == {("other", THEN), ("a", 0), ("b", 0)}
    assert forget(store, "m", "k", ["a/1"]) == {"rows": 0, "parts": 0}


def test_expire_deletes_whole_days(folder_store: Store) -> None:
    write_labels(folder_store, "m", batch(by_key("a", "x"), by_key("b", "x", NOW)))
    assert len(expire(folder_store, "m", before=NOW.date())) == 1
    assert set(known(folder_store)) == {("b", NOW)}


def test_large_batches_are_quick_enough_to_hash(folder_store: Store) -> None:
    many = 50_000
    rows = pa.table(
        {
            "request_id": pa.nulls(many, pa.string()),
            "row": pa.nulls(many, pa.int32()),
            "key": pa.array([f"k{n}" for n in range(many)]),
            "time": pa.array([THEN] * many, LABELS.field("time").type),
            "label": pa.array(["yes"] * many),
            "received_at": pa.array([NOW] * many, LABELS.field("time").type),
        }
    )
    assert write_labels(folder_store, "m", rows) == many
    assert write_labels(folder_store, "m", rows.slice(0, many)) == 0
    path = folder_store.fetch(files(folder_store)[0])
    assert duckdb.execute(f"SELECT count(*) FROM '{path}'").fetchone() == (many,)
