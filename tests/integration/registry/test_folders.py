"""Folders kept with a run: found whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.errors import ConflictError
from include.registry.artifacts import fetch_all
from include.registry.gateway import Registry

pytestmark = pytest.mark.server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kept" / "deep").mkdir(parents=True)
    (tmp_path / "kept" / "a.json").write_text("{}")
    (tmp_path / "kept" / "deep" / "b.bin").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "into").mkdir()
    return tmp_path / "kept"


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_folder_comes_back_as_it_was(
    registry: Registry, run_id: str, folder: Path, tmp_path: Path
) -> None:
    registry.finish_run(run_id)
    for _ in range(2):  # a retry changes nothing
        registry.keep_folder(run_id, folder, "reference")
    assert registry.fetch_folder(run_id, "reference", tmp_path / "into")
    assert contents(tmp_path / "into") == contents(folder)


def test_a_folder_that_was_not_completed_is_none(
    registry: Registry, run_id: str, folder: Path, tmp_path: Path
) -> None:
    assert not registry.fetch_folder(run_id, "reference", tmp_path / "into")
    registry.log_artifacts(run_id, folder, "reference")  # killed before the digest was noted
    assert not registry.fetch_folder(run_id, "reference", tmp_path / "into")
    assert contents(tmp_path / "into") == {}


def test_a_folder_that_was_changed_is_none(
    registry: Registry, run_id: str, folder: Path, tmp_path: Path
) -> None:
    registry.keep_folder(run_id, folder, "reference")
    (folder / "a.json").write_text("[]")
    registry.log_artifacts(run_id, folder, "reference")
    assert not registry.fetch_folder(run_id, "reference", tmp_path / "into")


def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    class Item:
        path, is_dir = "../outside", False

    class Store:
        def list_artifacts(self, below: str | None) -> list[Item]:
            return [Item()]

    with pytest.raises(ConflictError, match="must lie inside their folder"):
        fetch_all(Store(), tmp_path)
