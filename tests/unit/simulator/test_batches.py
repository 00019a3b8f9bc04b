"""Batches on disk: whole files only, once each."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from include.errors import DataError
from include.simulator import batches
from include.simulator.batches import write_batches
from include.simulator.churn import Drift, daily_batch

START = date(2025, 2, 27)


def test_writes_one_file_a_day(tmp_path: Path) -> None:
    paths = write_batches(tmp_path / "new", START, 3, rows=10)
    assert [p.name for p in paths] == [
        "2025-02-27.parquet",
        "2025-02-28.parquet",
        "2025-03-01.parquet",
    ]
    pd.testing.assert_frame_equal(
        pd.read_parquet(paths[1]), daily_batch(date(2025, 2, 28), rows=10)
    )
    assert sorted((tmp_path / "new").iterdir()) == paths


def test_leaves_a_file_alone_that_holds_the_same_rows(tmp_path: Path) -> None:
    (path,) = write_batches(tmp_path, START, 1, rows=10)
    before = path.stat()
    write_batches(tmp_path, START, 2, rows=10)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    write_batches(tmp_path, START, 1, rows=10, seed=1)
    assert path.stat().st_ino != before.st_ino


def test_drift_may_depend_on_the_day(tmp_path: Path) -> None:
    paths = write_batches(
        tmp_path, START, 2, rows=10, drift=lambda day: Drift(charges=2.0 if day > START else 1.0)
    )
    usual = [daily_batch(date.fromisoformat(p.stem), rows=10) for p in paths]
    same, double = (
        (pd.read_parquet(p)["monthly_charges"] / u["monthly_charges"]).mean()
        for p, u in zip(paths, usual, strict=True)
    )
    assert same == 1
    assert double == pytest.approx(2, rel=0.01)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write_batches(tmp_path, START, 1, rows=10)
    before = path.read_bytes()

    def full(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(batches.Path, "replace", full)
    with pytest.raises(DataError, match="must be a folder that can be written, got disk full"):
        write_batches(tmp_path, START, 1, rows=10, seed=1)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("days", "rows"), [(0, 10), (1, 0)])
def test_refuses_nothing_to_write(tmp_path: Path, days: int, rows: int) -> None:
    with pytest.raises(DataError, match="needs at least 1 day and 1 row"):
        write_batches(tmp_path, START, days, rows=rows)
