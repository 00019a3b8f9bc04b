from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.errors import DataError, SnapshotError
from include.store import snapshots
from include.store.files import Store
from include.store.snapshots import (
    ARROW_TYPES,
    Column,
    File,
    Manifest,
    commit_snapshot,
    file_sha256,
    read_frame,
    read_manifest,
    snapshot_paths,
    snapshot_prefix,
)

TABLE = pa.table(
    {
        "id": pa.array([2**60 + 1, None, 3], pa.int64()),
        "n": pa.array([1, None, 3], pa.int64()),
        "x": pa.array([0.5, None, float("inf")]),
        "b": pa.array([True, None, False]),
        "s": pa.array(["a", None, ""]),
        "t": pa.array([datetime(2026, 1, 2, tzinfo=UTC), None, None], ARROW_TYPES["timestamp"]),
    }
)
Commit = Callable[[Store, pa.Table], Manifest]


def test_a_snapshot_comes_back(store: Store, commit: Commit) -> None:
    manifest = commit(store, TABLE)
    again = read_manifest(store, "m", manifest.snapshot_id)
    assert again == manifest
    frame = read_frame(store, again)
    assert list(frame.columns) == ["id", "n", "x", "b", "s", "t"]
    assert frame["id"].dtype == "Int64", "float64 would round it"
    assert frame["id"].iloc[0] == 2**60 + 1
    assert frame["n"].dtype == "float64"
    assert frame["b"].tolist() == [True, None, False]
    assert frame["s"].tolist() == ["a", None, ""]
    assert frame["t"].dtype == pd.DatetimeTZDtype("us", "UTC")


def test_columns_in_the_order_asked_for(folder_store: Store, commit: Commit) -> None:
    manifest = commit(folder_store, TABLE)
    assert list(read_frame(folder_store, manifest, ["s", "id"]).columns) == ["s", "id"]
    with pytest.raises(DataError, match="must have the column 'no', got id, n, x"):
        read_frame(folder_store, manifest, ["no"])


def test_second_commit_changes_nothing(store: Store, commit: Commit, tmp_path: Path) -> None:
    manifest = commit(store, TABLE)
    keys = list(store.list(""))
    other, path = _same_rows_in_other_bytes(manifest, tmp_path / "other.parquet")
    assert not commit_snapshot(store, other, {other.files[0].name: path})
    assert list(store.list("")) == keys
    assert read_manifest(store, "m", manifest.snapshot_id) == manifest


def _same_rows_in_other_bytes(manifest: Manifest, path: Path) -> tuple[Manifest, Path]:
    pq.write_table(TABLE, path, compression="gzip")
    digest = file_sha256(path)
    file = File(f"{digest}.parquet", digest, path.stat().st_size, 3)
    return dataclasses.replace(manifest, files=(file,)), path


def test_losing_the_race_leaves_no_files(
    folder_store: Store, commit: Commit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = commit(folder_store, TABLE)
    keys = list(folder_store.list(""))
    other, path = _same_rows_in_other_bytes(manifest, tmp_path / "other.parquet")
    real, looked = folder_store.exists, []

    def too_early(key: str) -> bool:
        """The loser looks for the manifest just before the winner stores it."""
        looked.append(key)
        return len(looked) > 1 and real(key)

    monkeypatch.setattr(folder_store, "exists", too_early)
    assert not commit_snapshot(folder_store, other, {other.files[0].name: path})
    monkeypatch.undo()
    assert list(folder_store.list("")) == keys


def test_two_commits_at_once_give_one_readable_snapshot(
    folder_store: Store, tmp_path: Path, commit: Commit
) -> None:
    manifest = commit(folder_store, TABLE)
    for key in list(folder_store.list("")):
        folder_store.delete(key)
    jobs = []
    for number in range(6):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(TABLE.replace_schema_metadata({"n": str(number)}), path)
        digest = file_sha256(path)
        file = File(f"{digest}.parquet", digest, path.stat().st_size, 3)
        jobs.append((dataclasses.replace(manifest, files=(file,)), {file.name: path}))
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda j=job: results.append(commit_snapshot(folder_store, *j)))
        for job in jobs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(True) == 1
    assert len(list(folder_store.list(""))) == 2
    assert read_frame(
        folder_store, read_manifest(folder_store, "m", manifest.snapshot_id)
    ).shape == (3, 6)


def test_a_lost_file_is_stored_again(store: Store, commit: Commit, tmp_path: Path) -> None:
    manifest = commit(store, TABLE)
    store.delete(f"{snapshot_prefix('m', manifest.snapshot_id)}/{manifest.files[0].name}")
    with pytest.raises(SnapshotError, match=r"must exist, got nothing there\. Run ingest again"):
        snapshot_paths(store, manifest)
    other, path = _same_rows_in_other_bytes(manifest, tmp_path / "other.parquet")
    assert commit_snapshot(store, other, {other.files[0].name: path})
    assert len(read_frame(store, read_manifest(store, "m", manifest.snapshot_id))) == 3


def test_killed_before_the_manifest_there_is_no_snapshot(
    folder_store: Store, commit: Commit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: object, **kwargs: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder_store, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        commit(folder_store, TABLE)
    monkeypatch.undo()
    with pytest.raises(SnapshotError, match="the snapshot must exist, got none"):
        read_manifest(folder_store, "m", "0" * 32)
    assert len(read_frame(folder_store, commit(folder_store, TABLE))) == 3


def test_damage_is_noticed(folder_store: Store, commit: Commit) -> None:
    manifest = commit(folder_store, TABLE)
    path = snapshot_paths(folder_store, manifest)[0]
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match=r"\.parquet: must have sha256 .*, got other bytes"):
        read_frame(folder_store, manifest)


def test_damage_in_the_cache_is_repaired(
    bucket: str, s3_endpoint: str, tmp_path: Path, commit: Commit
) -> None:
    store = snapshots_store(bucket, s3_endpoint, tmp_path)
    manifest = commit(store, TABLE)
    path = snapshot_paths(store, manifest)[0]
    path.write_bytes(b"x" * manifest.files[0].bytes)
    assert len(read_frame(store, manifest)) == 3


def snapshots_store(bucket: str, endpoint: str, tmp_path: Path) -> Store:
    from include.store.files import open_store

    return open_store(f"s3://{bucket}/p", cache=tmp_path / "cache", endpoint_url=endpoint)


def test_digests_are_computed_once(
    folder_store: Store, commit: Commit, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = commit(folder_store, TABLE)
    calls = []
    real = snapshots.file_sha256
    monkeypatch.setattr(snapshots, "file_sha256", lambda p: calls.append(p) or real(p))
    for _ in range(3):
        snapshot_paths(folder_store, manifest)
    assert len(calls) == 1


def test_manifest_as_json() -> None:
    columns = (
        Column("x", "float", 0.25, float("-inf"), float("inf"), 3),
        Column("t", "timestamp", 0.0, "2026-01-01T00:00:00.000000Z", None, None),
    )
    manifest = Manifest("m", "a" * 32, 4, columns, (File("f", "d", 1, 4),), None, None, "s", "now")
    text = manifest.to_json()
    assert "Infinity" not in text, "not JSON"
    assert Manifest.from_json(text) == manifest
    assert manifest.column("x") == columns[0]
    assert manifest.column("y") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "columns": []}'])
def test_no_manifest(text: str) -> None:
    with pytest.raises(SnapshotError, match="must be JSON of format 1"):
        Manifest.from_json(text)


def test_a_manifest_of_another_snapshot(folder_store: Store, commit: Commit) -> None:
    manifest = commit(folder_store, TABLE)
    text = manifest.to_json().encode()
    folder_store.write_bytes(f"{snapshot_prefix('m', 'f' * 32)}/manifest.json", text)
    with pytest.raises(SnapshotError, match="must be the manifest of m/ffff"):
        read_manifest(folder_store, "m", "f" * 32)
