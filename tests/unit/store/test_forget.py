from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.errors import SnapshotError
from include.store import lease as lease_module
from include.store.files import Store
from include.store.forget import Forgotten, forget
from include.store.labels import LABELS, read_labels, write_labels
from include.store.predictions import write_part
from include.store.snapshots import Manifest, read_manifest
from tests.unit.store.log_rows import ALWAYS, DyingStore, Killed, copied, rows

SNAPSHOT = "0" * 32
NOW = datetime(2026, 2, 1, tzinfo=UTC)


def fill(store: Store, manifest: Manifest | None, tmp_path: Path) -> None:
    """Six predictions of k0, k1, k2; labels by request and by key; a copy of the monitor; a refused snapshot."""
    write_part(store, "m", rows(6))
    some = [
        {"request_id": "r-1", "row": 0, "label": "yes"},
        {"request_id": "r-2", "row": 0, "label": "yes"},
        {"key": "k1", "label": "no"},
    ]
    full = [dict.fromkeys(LABELS.names) | {"received_at": NOW} | each for each in some]
    write_labels(store, "m", pa.Table.from_pylist(full, schema=LABELS))
    pq.write_table(rows(6), tmp_path / "window.parquet")
    store.put_file("monitor/m/work/1-a", tmp_path / "window.parquet")
    store.write_bytes("monitor/m/report.json", b"{}")
    if manifest:
        folder = f"quarantine/m/{manifest.snapshot_id}"
        store.write_bytes(f"{folder}/report.html", b"several rows of k1")
        store.write_bytes(f"{folder}/manifest.json", manifest.to_json().encode())


def customers(values: list[Any], kind: pa.DataType) -> pa.Table:
    return pa.table({"customer": pa.array(values, kind), "x": [1.0] * len(values)})


def remaining(store: Store, tmp_path: Path) -> tuple[set[Any], set[Any]]:
    keys = {row["_key"] for row in copied(store, tmp_path / "o")}
    labels = read_labels(store, "m", ALWAYS[0]).to_pylist()
    return keys, {row["request_id"] or row["key"] for row in labels}


def test_one_entity_goes_and_the_others_stay(
    store: Store, tmp_path: Path, commit: Callable[[Store, pa.Table], Manifest]
) -> None:
    manifest = commit(store, customers(["k1", "k2", "k1"], pa.string()))
    fill(store, manifest, tmp_path)
    gone = forget(store, "m", "k1", column="customer", in_use=set)
    assert gone == Forgotten(2, 2, 2, (SNAPSHOT,), 1, ())
    assert remaining(store, tmp_path) == ({"k0", "k2"}, {"r-2"})
    assert list(store.list("quarantine/")) == list(store.list("snapshots/")) == []
    assert list(store.list("monitor/")) == ["monitor/m/report.json"]
    again = forget(store, "m", "k1", column="customer", in_use=set)
    assert again == Forgotten(0, 0, 0, (), 0, ())


def test_what_a_version_was_trained_on_stays_and_is_named(
    folder_store: Store, tmp_path: Path, commit: Callable[[Store, pa.Table], Manifest]
) -> None:
    manifest = commit(folder_store, customers(["k1"], pa.string()))
    fill(folder_store, manifest, tmp_path)
    gone = forget(folder_store, "m", "k1", column="customer", in_use=lambda: {SNAPSHOT})
    assert (gone.quarantine, gone.snapshots, gone.kept) == (0, (), (SNAPSHOT,))
    assert read_manifest(folder_store, "m", SNAPSHOT) == manifest
    assert len(list(folder_store.list(f"quarantine/m/{SNAPSHOT}/"))) == 2


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([7, None], pa.int64()),
        ([2**60 + 1, None], pa.int64()),
        ([7.0, 1.5], pa.float64()),
        (["7", "8"], pa.string()),
    ],
)
def test_keys_are_compared_as_text(
    folder_store: Store,
    commit: Callable[[Store, pa.Table], Manifest],
    tmp_path: Path,
    values: list[Any],
    kind: pa.DataType,
) -> None:
    fill(folder_store, commit(folder_store, customers(values, kind)), tmp_path)
    key = str(int(values[0]))
    assert forget(folder_store, "m", key, column="customer", in_use=set).quarantine == 1


@pytest.mark.parametrize("column", [None, "another"])
def test_without_a_key_column_no_snapshot_is_touched(
    folder_store: Store,
    commit: Callable[[Store, pa.Table], Manifest],
    tmp_path: Path,
    column: str | None,
) -> None:
    fill(folder_store, commit(folder_store, customers(["k1"], pa.string())), tmp_path)

    def never() -> set[str]:
        raise AssertionError("nothing to ask about")

    assert forget(folder_store, "m", "k1", column=column, in_use=never).quarantine == 0
    assert read_manifest(folder_store, "m", SNAPSHOT)


def test_a_snapshot_whose_files_are_gone_holds_nobody(
    folder_store: Store, commit: Callable[[Store, pa.Table], Manifest], tmp_path: Path
) -> None:
    manifest = commit(folder_store, customers(["k1"], pa.string()))
    fill(folder_store, manifest, tmp_path)
    folder_store.write_bytes("quarantine/m/older/manifest.json", b"{}")
    folder_store.delete(f"snapshots/m/{SNAPSHOT}/{manifest.files[0].name}")
    assert forget(folder_store, "m", "k1", column="customer", in_use=set).quarantine == 0


@pytest.mark.parametrize("kill_at", range(17))
def test_a_killed_forget_is_finished_by_the_next(
    folder_store: Store,
    tmp_path: Path,
    commit: Callable[[Store, pa.Table], Manifest],
    kill_at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(folder_store, commit(folder_store, customers(["k1", "k2"], pa.string())), tmp_path)
    monkeypatch.setattr(lease_module, "_runs", lambda pid: False)
    with pytest.raises(Killed):
        forget(DyingStore(folder_store, kill_at), "m", "k1", column="customer", in_use=set)  # type: ignore[arg-type]
    forget(folder_store, "m", "k1", column="customer", in_use=set)
    assert remaining(folder_store, tmp_path) == ({"k0", "k2"}, {"r-2"})
    assert list(folder_store.list("quarantine/")) == list(folder_store.list("snapshots/")) == []
    assert list(folder_store.list("monitor/")) == ["monitor/m/report.json"]
    with pytest.raises(SnapshotError):
        read_manifest(folder_store, "m", SNAPSHOT)
