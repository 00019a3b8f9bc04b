"""The caches on this machine: what is unused goes as a whole, what is in use stays."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.errors import ServiceError
from include.store.caches import prune_caches

NOW = datetime.now(UTC)
MONTH = timedelta(days=30)
VERSION, REFERENCE, DOWNLOAD = "models/m/1-0123", "references/m/1", "0" * 32


def put(root: Path, name: str, *, read: float, written: float = 90) -> Path:
    """Write a file of five bytes that was read and written so many days ago."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"12345")
    moments = [(NOW - timedelta(days=days)).timestamp() for days in (read, written)]
    for each in (path, path.parent):
        os.utime(each, (moments[0], moments[1]))
    return path


@pytest.mark.parametrize("folder", [VERSION, REFERENCE, DOWNLOAD, ".part-of-a-killed-removal"])
def test_a_folder_goes_when_nobody_read_any_of_it(tmp_path: Path, folder: str) -> None:
    put(tmp_path, f"{folder}/a", read=31)
    put(tmp_path, f"{folder}/b", read=29)
    assert prune_caches(tmp_path, NOW - MONTH) == 0
    assert len(list((tmp_path / folder).iterdir())) == 2
    put(tmp_path, f"{folder}/b", read=31)
    assert prune_caches(tmp_path, NOW - MONTH) == 10
    assert not (tmp_path / folder).exists()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert prune_caches(tmp_path, NOW - MONTH) == 0


def test_what_was_written_lately_stays_unread(tmp_path: Path) -> None:
    put(tmp_path, f"{VERSION}/a", read=90, written=1)
    assert prune_caches(tmp_path, NOW - MONTH) == 0


def test_what_is_not_a_cache_of_ours_is_not_looked_at(tmp_path: Path) -> None:
    for name in ("models/m/.lock", "notes/a", "something/else/here/a", "a"):
        put(tmp_path, name, read=99)
    outside = put(tmp_path / "outside", "kept/a", read=99)
    (tmp_path / "models/m/link").symlink_to(outside.parent)
    assert prune_caches(tmp_path, NOW - MONTH) == 0
    assert outside.exists()


def test_no_cache_is_no_error(tmp_path: Path) -> None:
    assert prune_caches(tmp_path / "nowhere", NOW) == 0


def test_a_disk_that_refuses_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, f"{VERSION}/a", read=99)

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ServiceError, match="Permission denied"):
        prune_caches(tmp_path, NOW - MONTH)
    assert (tmp_path / VERSION / "a").exists()
