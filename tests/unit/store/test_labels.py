from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from include.store import lease as lease_module
from include.store.files import Store
from include.store.labels import LABELS, compact, forget, read_labels, write_labels
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


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (by_key("k", "no"), by_key("k", "yes")),
        (by_key("k", "no", None), by_key("k", "yes", None)),
        (by_request("q", "no"), by_request("q", "yes")),
    ],
)
def test_an_old_batch_delivered_late_undoes_no_correction(
    store: Store, old: dict[str, Any], new: dict[str, Any], merged: bool
) -> None:
    write_labels(store, "m", batch(old, by_key("l", "no")))
    write_labels(store, "m", batch(new, received=NOW + timedelta(hours=1)))
    if merged:
        assert compact(store, "m", before=date(2027, 1, 1)) >= 2
        write_labels(store, "m", batch(by_key("x", "no"), by_request("x", "no")))
        assert compact(store, "m", before=date(2027, 1, 1)) >= 2  # what was merged stays known
    there = files(store)
    assert write_labels(store, "m", batch(old, by_key("l", "no"), received=NOW + 2 * DAY)) == 0
    assert files(store) == there
    assert "yes" in known(store).values()


def test_a_label_is_set_back_by_a_batch_with_another_name(folder_store: Store) -> None:
    first, second = by_key("k", "no"), by_key("k", "yes")
    for hour, (label, name) in enumerate([(first, ""), (second, ""), (first, "b"), (first, "b")]):
        received = NOW + timedelta(hours=hour)
        write_labels(folder_store, "m", batch(label, received=received), batch=name)
    assert known(folder_store) == {("k", THEN): "no"}
    assert len(files(folder_store)) == 3


def test_a_batch_sent_again_reads_no_labels(
    folder_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_labels(folder_store, "m", batch(by_key("k", "no")))

    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is read")

    monkeypatch.setattr("include.store.labels.read_labels", read)
    monkeypatch.setattr("include.store.duck.connect", read)
    assert write_labels(folder_store, "m", batch(by_key("k", "no"), received=NOW + DAY)) == 0


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
