"""What a version was made with."""

import subprocess

import pytest

from include.registry import lineage
from include.settings import ROOT


def test_commit_is_that_of_the_repository() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert lineage.git_commit().removesuffix("-dirty") == head


def test_an_image_says_its_commit_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_GIT_COMMIT", "abc123")
    assert lineage.git_commit() == "abc123"


def test_no_repository_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.delenv("EVERGREEN_GIT_COMMIT", raising=False)
    monkeypatch.setattr(lineage, "ROOT", tmp_path)
    assert lineage.git_commit() == ""


def test_lock_hash_moves_with_the_lock(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(lineage, "ROOT", tmp_path)
    (tmp_path / "requirements.txt").write_text("a==1")
    one = lineage.lock_hash()
    (tmp_path / "requirements.txt").write_text("a==2")
    assert len(one) == 16
    assert lineage.lock_hash() != one
