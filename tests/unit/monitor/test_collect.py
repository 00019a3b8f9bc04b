from datetime import timedelta

import pyarrow.parquet as pq
import pytest

from include.errors import DataError
from include.monitor.collect import collect
from include.store.files import open_store
from include.store.predictions import write_part
from tests.unit.monitor.live import WINDOW, rows


def test_a_window_is_the_versions_rows_in_its_time(world, tmp_path):
    store = open_store(str(tmp_path / "store"))
    times = [
        WINDOW.start + timedelta(hours=3 * i - 3) for i in range(10)
    ]  # the day before to the day after
    write_part(store, "toy", pq.read_table(world.window(rows(10), times=times)))
    found = collect(world.spec, store, WINDOW, "3", out=tmp_path / "out")
    table = pq.read_table(found.path)
    assert (found.rows, found.version, found.window) == (8, "3", WINDOW)
    assert sorted(table["_time"].to_pylist()) == times[1:9]
    assert "region" in table.column_names
    assert collect(world.spec, store, WINDOW, "3", out=tmp_path / "out") == found
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["window.parquet"]
    assert collect(world.spec, store, WINDOW, "4", out=tmp_path / "other").rows == 0


def test_what_cannot_be_read_leaves_the_last_copy_alone(world, tmp_path):
    store = open_store(str(tmp_path / "store"))
    [key] = write_part(store, "toy", pq.read_table(world.window(rows(10))))
    out = tmp_path / "out"
    before = collect(world.spec, store, WINDOW, "3", out=out).path.read_bytes()
    store.write_bytes(key, b"damaged")
    with pytest.raises((DataError, OSError, ValueError)):
        collect(world.spec, store, WINDOW, "3", out=out)
    assert [p.name for p in out.iterdir()] == ["window.parquet"]
    assert (out / "window.parquet").read_bytes() == before


def test_a_window_holds_what_was_answered_and_nothing_that_was_only_computed(world, tmp_path):
    """Rows of the score Dag are the version's predictions; those it made as a mere challenger are not."""
    store = open_store(str(tmp_path / "store"))
    table = pq.read_table(world.window(rows(9)))
    arms = ["champion", "batch", "shadow"] * 3
    place = table.column_names.index("_arm")
    write_part(store, "toy", table.set_column(place, table.schema.field(place), [arms]))
    found = collect(world.spec, store, WINDOW, "3", out=tmp_path / "out")
    kept = pq.read_table(found.path)["_arm"].to_pylist()
    assert (found.rows, sorted(kept)) == (6, ["batch"] * 3 + ["champion"] * 3)
