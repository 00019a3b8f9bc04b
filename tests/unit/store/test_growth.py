"""New rows since an earlier snapshot."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from include.store.files import Store
from include.store.growth import count_new_rows
from include.store.snapshots import Manifest


def days(count: int) -> pa.Table:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = [start + timedelta(days=n) for n in range(count)]
    return pa.table({"at": pa.array(times, pa.timestamp("us", "UTC")), "x": list(range(count))})


@pytest.mark.parametrize(("end", "new"), [("2026-01-04T00:00:00Z", 6), ("2026-02-01T00:00:00Z", 0)])
def test_rows_after_the_newest_count(
    folder_store: Store, commit: Callable[[Store, pa.Table], Manifest], end: str, new: int
) -> None:
    manifest = commit(folder_store, days(10))
    assert count_new_rows(folder_store, manifest, replace(manifest, time_end=end), "at") == new


def test_without_time_the_numbers_of_rows_are_compared(
    folder_store: Store, commit: Callable[[Store, pa.Table], Manifest]
) -> None:
    manifest = commit(folder_store, days(10))
    assert count_new_rows(folder_store, manifest, replace(manifest, rows=7), None) == 3
    assert count_new_rows(folder_store, manifest, replace(manifest, rows=12), None) == 0
