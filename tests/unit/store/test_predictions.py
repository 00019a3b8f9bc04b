from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.errors import ServiceError
from include.store import lease as lease_module
from include.store import parts
from include.store.files import Store, open_store
from include.store.lease import rewriting
from include.store.predictions import (
    PREDICTIONS,
    compact,
    copy_window,
    find_key,
    forget,
    merge_small,
    part_keys,
    prediction_schema,
    write_part,
)
from tests.unit.store.log_rows import ALWAYS, START, DyingStore, Killed, copied, ids, rows

DAY = START.date()
NEXT = DAY + timedelta(days=1)


def all_parts(store: Store) -> list[str]:
    return [key for key in store.list("predictions/") if key.endswith(".parquet")]


# --- writing and reading --------------------------------------------------------------------------------


def test_rows_come_back(store: Store, tmp_path: Path) -> None:
    table = rows(5)
    keys = write_part(store, "m", table)
    assert part_keys(store, "m", DAY, DAY) == keys
    assert keys[0].startswith(f"predictions/m/date={DAY.isoformat()}/1-")
    out = tmp_path / "out.parquet"
    assert copy_window(store, "m", *ALWAYS, out) == 5
    assert pq.read_schema(out).equals(table.schema)
    assert pq.read_table(out).sort_by("_time").equals(table)


def test_a_write_repeated_changes_nothing(store: Store, tmp_path: Path) -> None:
    table = rows(5)
    assert write_part(store, "m", table) == write_part(store, "m", table)
    assert len(all_parts(store)) == 1


def test_parts_are_by_day_of_the_event_and_by_version(folder_store: Store, tmp_path: Path) -> None:
    both = pa.concat_tables(
        [rows(30, step=timedelta(hours=1)), rows(2, name="other", version="2/x")]
    )
    keys = write_part(folder_store, "m", both)
    assert [(parts.day_of(key), key.rpartition("/")[2].partition("-")[0]) for key in keys] == [
        (DAY, "1"),
        (DAY, "2_x"),
        (NEXT, "1"),
    ]
    assert ids(copied(folder_store, tmp_path / "o", version="2/x")) == ["other-0", "other-1"]
    assert copied(folder_store, tmp_path / "o", version="2_x") == []
    assert copied(folder_store, tmp_path / "o", version="it's") == []


def test_a_window_is_half_open(folder_store: Store, tmp_path: Path) -> None:
    write_part(folder_store, "m", rows(10))
    end = START + timedelta(minutes=7)
    out = tmp_path / "out"
    assert copy_window(folder_store, "m", START + timedelta(minutes=2), end, out) == 5
    found = pq.read_table(out)["_time"].to_pylist()
    assert (min(found), max(found)) == (START + timedelta(minutes=2), START + timedelta(minutes=6))


def test_a_window_may_be_given_in_another_time_zone(folder_store: Store, tmp_path: Path) -> None:
    evening = datetime(2026, 1, 30, 23, 30, tzinfo=UTC)
    write_part(folder_store, "m", rows(60, start=evening))
    east = datetime.fromisoformat("2026-01-31T01:00:00+02:00")  # 23:00 UTC of the day before
    assert copy_window(folder_store, "m", east, east + timedelta(hours=1), tmp_path / "o") == 30


def test_nothing_logged_gives_a_file_all_the_same(folder_store: Store, tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "out.parquet"
    assert copy_window(folder_store, "m", *ALWAYS, out) == 0
    assert pq.read_schema(out).equals(PREDICTIONS)
    write_part(folder_store, "m", rows(2))
    assert copy_window(folder_store, "m", START + timedelta(hours=1), ALWAYS[1], out) == 0
    assert pq.read_schema(out).names[-2:] == ["age", "plan"]
    assert list(out.parent.iterdir()) == [out]


def test_what_answered_nobody_is_copied_only_when_asked_for(
    folder_store: Store, tmp_path: Path
) -> None:
    """The same requests, once answered and once computed for the challenger; and rows of an unknown arm."""
    arms = ["champion", "batch", "challenger", "version"]
    write_part(folder_store, "m", rows(4, _arm=arms))
    write_part(folder_store, "m", rows(4, _arm=["shadow"] * 4, version="2"))
    write_part(folder_store, "m", rows(1, name="old", _arm=[None]))
    answered = copied(folder_store, tmp_path / "o")
    assert ids(answered) == ["old-0", "r-0", "r-1", "r-2", "r-3"]
    assert {row["_arm"] for row in answered} == {*arms, None}
    assert copied(folder_store, tmp_path / "o", version="2") == []
    both = copied(folder_store, tmp_path / "o", shadow=True)
    assert len(both) == 9
    assert compact(folder_store, "m", before=NEXT) == 2  # upkeep keeps them all
    assert len(copied(folder_store, tmp_path / "o", shadow=True)) == 9


def test_many_days_and_versions_are_told_apart(folder_store: Store, tmp_path: Path) -> None:
    versions = [str(n % 2) for n in range(90)]
    table = rows(90, step=timedelta(hours=8), _version=versions)
    keys = write_part(folder_store, "m", table.take(list(reversed(range(90)))))
    assert (
        len(keys) == len(set(keys)) == 61
    )  # from noon: 31 days, two versions, but the last day's one
    assert ids(copied(folder_store, tmp_path / "o")) == ids(table.to_pylist())
    for key in keys:
        part = pq.read_table(folder_store.fetch(key))
        assert {t.date() for t in part["_time"].to_pylist()} == {parts.day_of(key)}
        assert len(set(part["_version"].to_pylist())) == 1


def test_no_rows_make_no_part(folder_store: Store) -> None:
    assert write_part(folder_store, "m", rows(0)) == []
    assert list(folder_store.list("")) == []


def test_versions_with_other_features_share_a_file(folder_store: Store, tmp_path: Path) -> None:
    write_part(folder_store, "m", rows(1, age=[7.25]))
    second = prediction_schema(["size"], ["age"])
    write_part(folder_store, "m", rows(1, name="s", version="2", schema=second, age=["old"]))
    found = {row["_request_id"]: row for row in copied(folder_store, tmp_path / "o")}
    assert (found["r-0"]["age"], found["s-0"]["age"]) == ("7.25", "old")
    assert found["r-0"]["size"] is None
    alone = copied(folder_store, tmp_path / "o", version="1")
    assert [row["age"] for row in alone] == [7.25]
    assert "size" not in alone[0]


def test_names_that_differ_in_case_only_or_break_sql(folder_store: Store, tmp_path: Path) -> None:
    names = ["Age", "age", "a 'quoted\" {name}", "date", "c0"]
    schema = prediction_schema(names, [])
    values = {name: [float(place)] for place, name in enumerate(names)}
    write_part(folder_store, "m", rows(1, schema=schema, **values))
    write_part(folder_store, "m", rows(1, name="s", schema=schema, **values))
    compact(folder_store, "m", before=NEXT)
    for row in copied(folder_store, tmp_path / "o"):
        assert {name: row[name] for name in names} == {n: v[0] for n, v in values.items()}


def test_a_feature_named_like_a_column_of_the_log_is_left_out() -> None:
    assert prediction_schema(["_time", "age"], ["_key"]).names == [*PREDICTIONS.names, "age"]


def test_infinities_and_missing_values_stay_what_they_are(
    folder_store: Store, tmp_path: Path
) -> None:
    write_part(folder_store, "m", rows(3, age=[float("inf"), None, -1.5], plan=["", None, "ü"]))
    found = sorted(copied(folder_store, tmp_path / "o"), key=lambda row: str(row["_request_id"]))
    assert [row["age"] for row in found] == [float("inf"), None, -1.5]
    assert [row["plan"] for row in found] == ["", None, "ü"]


def test_duckdb_and_pandas_read_it_as_one_dataset(folder_store: Store, tmp_path: Path) -> None:
    write_part(folder_store, "m", rows(30, step=timedelta(hours=1)))
    root = tmp_path / "store" / "predictions" / "m"
    query = f"SELECT count(*), max(age), min(date) FROM read_parquet('{root}/*/*.parquet', union_by_name = true)"
    assert duckdb.execute(query).fetchone() == (30, 29.0, DAY)
    frame = pd.read_parquet(root)
    assert len(frame) == 30
    assert {str(day) for day in frame["date"].unique()} == {str(DAY), str(NEXT)}


# --- the same prediction twice --------------------------------------------------------------------------


def test_a_request_sent_twice_counts_once(folder_store: Store, tmp_path: Path) -> None:
    write_part(folder_store, "m", rows(4))
    later = START + timedelta(minutes=30)
    again = rows(2, _latency_ms=[9.0, 9.0], _logged_at=[later] * 2)  # of the same event
    write_part(folder_store, "m", again)
    found = copied(folder_store, tmp_path / "o")
    assert ids(found) == ["r-0", "r-1", "r-2", "r-3"]
    assert {row["_latency_ms"] for row in found} == {1.5}


def test_an_id_used_for_everything_loses_nothing(folder_store: Store, tmp_path: Path) -> None:
    write_part(folder_store, "m", rows(5, _request_id=["1"] * 5))
    assert len(copied(folder_store, tmp_path / "o")) == 5


def test_an_id_used_for_everything_at_any_time_loses_nothing(
    folder_store: Store, tmp_path: Path
) -> None:
    alike = {"_request_id": ["1"], "_key": [None], "age": [1.0]}
    for hour in range(3):
        write_part(folder_store, "m", rows(1, start=START + timedelta(hours=hour), **alike))
    assert len(copied(folder_store, tmp_path / "o")) == 3
    assert compact(folder_store, "m", before=NEXT) == 3
    assert len(copied(folder_store, tmp_path / "o")) == 3


def test_rows_of_one_request_are_no_doubles(folder_store: Store, tmp_path: Path) -> None:
    alike = {"age": [1.0] * 3, "_key": [None] * 3}
    write_part(folder_store, "m", rows(3, _request_id=["1"] * 3, _row=[0, 1, 2], **alike))
    assert len(copied(folder_store, tmp_path / "o")) == 3


# --- rewriting ------------------------------------------------------------------------------------------


def filled(store: Store) -> list[str]:
    """Ten parts of two days and two versions."""
    for number in range(4):
        write_part(store, "m", rows(6, name=f"a{number}"))
    for number in range(3):
        write_part(store, "m", rows(2, name=f"b{number}", version="2"))
        write_part(store, "m", rows(2, name=f"c{number}", start=START + timedelta(days=1)))
    return sorted(
        [f"a{n}-{i}" for n in range(4) for i in range(6)]
        + [f"{v}{n}-{i}" for v in "bc" for n in range(3) for i in range(2)]
    )


def test_compaction_merges_what_is_old(store: Store, tmp_path: Path) -> None:
    everything = filled(store)
    assert compact(store, "m", before=NEXT) == 7
    assert [parts.day_of(key) for key in all_parts(store)] == [DAY, DAY, NEXT, NEXT, NEXT]
    assert ids(copied(store, tmp_path / "o")) == everything
    assert compact(store, "m", before=NEXT) == 0
    assert [key for key in store.list("predictions/") if not key.endswith(".parquet")] == []


def test_compaction_drops_doubles(folder_store: Store, tmp_path: Path) -> None:
    write_part(folder_store, "m", rows(3))
    later = START + timedelta(hours=1)
    write_part(folder_store, "m", rows(3, _logged_at=[later] * 3))
    assert compact(folder_store, "m", before=NEXT) == 2
    assert pq.read_table(folder_store.fetch(all_parts(folder_store)[0])).num_rows == 3


def test_full_parts_are_left_alone(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = filled(folder_store)
    size = max(folder_store.fetch(key).stat().st_size for key in all_parts(folder_store))
    monkeypatch.setattr("include.store.predictions._FULL_BYTES", int(size * 1.5))
    assert (
        compact(folder_store, "m", before=NEXT) == 6
    )  # 2 + 2 of version 1, 2 of the 3 of version 2
    assert ids(copied(folder_store, tmp_path / "o")) == everything


def test_small_parts_are_merged_by_their_writer_only_when_many(folder_store: Store) -> None:
    filled(folder_store)
    assert merge_small(folder_store, "m", DAY, at_least=5) == 0
    assert merge_small(folder_store, "m", DAY, at_least=4) == 4
    assert merge_small(folder_store, "m", DAY, at_least=4) == 0


@pytest.mark.parametrize("kill_at", range(15))
def test_a_killed_compaction_neither_loses_nor_doubles(
    folder_store: Store, tmp_path: Path, kill_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = filled(folder_store)
    monkeypatch.setattr(lease_module, "_runs", lambda pid: False)  # the killed one is this process
    try:
        compact(DyingStore(folder_store, kill_at), "m", before=NEXT)  # type: ignore[arg-type]
        raise AssertionError("it was to be killed")
    except Killed:
        pass
    live = part_keys(folder_store, "m", DAY, NEXT)
    counted = [pq.read_table(folder_store.fetch(key))["_request_id"].to_pylist() for key in live]
    assert sorted(each for some in counted for each in some) == everything
    assert ids(copied(folder_store, tmp_path / "o")) == everything
    compact(folder_store, "m", before=NEXT)
    assert len(all_parts(folder_store)) == 5
    assert ids(copied(folder_store, tmp_path / "o")) == everything
    assert [key for key in folder_store.list("predictions/") if not key.endswith(".parquet")] == []


@pytest.mark.parametrize("kill_at", range(0, 24, 2))
def test_a_killed_forget_can_be_repeated(
    folder_store: Store, tmp_path: Path, kill_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(folder_store)
    before = copied(folder_store, tmp_path / "o")
    others = ids([row for row in before if row["_key"] != "k1"])
    monkeypatch.setattr(lease_module, "_runs", lambda pid: False)
    try:
        forget(DyingStore(folder_store, kill_at), "m", "k1")  # type: ignore[arg-type]
        raise AssertionError("it was to be killed")
    except Killed:
        pass
    meanwhile = [row for row in copied(folder_store, tmp_path / "o") if row["_key"] != "k1"]
    assert ids(meanwhile) == others
    forget(folder_store, "m", "k1")
    assert ids(copied(folder_store, tmp_path / "o")) == others
    held = [
        pq.read_table(folder_store.fetch(k))["_key"].to_pylist() for k in all_parts(folder_store)
    ]
    assert "k1" not in {key for some in held for key in some}


def test_forget_says_what_went(store: Store, tmp_path: Path) -> None:
    write_part(store, "m", rows(6))
    write_part(store, "m", rows(2, name="only", _key=["k1", "k1"], version="2"))
    write_part(store, "m", rows(2, name="none", _key=[None, None]))
    assert sorted(find_key(store, "m", "k1")["_request_id"].to_pylist()) == [
        "only-0",
        "only-1",
        "r-1",
        "r-4",
    ]
    assert forget(store, "m", "k1") == {"rows": 4, "parts": 2}
    assert forget(store, "m", "k1") == {"rows": 0, "parts": 0}
    assert ids(copied(store, tmp_path / "o")) == ["none-0", "none-1", "r-0", "r-2", "r-3", "r-5"]
    assert find_key(store, "m", "k1").num_rows == 0


def test_a_reader_is_not_disturbed_by_rewriting(folder_store: Store, tmp_path: Path) -> None:
    everything = filled(folder_store)
    done = threading.Event()
    seen: list[list[str]] = []

    def read() -> None:
        while not done.is_set():
            seen.append(ids(copied(folder_store, tmp_path / "reader")))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(3):
        write_part(folder_store, "m", rows(1, name=f"x{number}", version="9"))
        compact(folder_store, "m", before=date(2027, 1, 1))
    done.set()
    reader.join(30)
    assert seen
    for found in seen:
        assert [each for each in found if not each.startswith("x")] == everything


# --- leave to rewrite -----------------------------------------------------------------------------------


def test_one_rewriter_at_a_time(store: Store) -> None:
    filled(store)
    with rewriting(store, "predictions/m"):
        with pytest.raises(ServiceError, match=r"must be free, got held by process \d+ on"):
            merge_small(store, "m", DAY, at_least=2)
        assert merge_small(store, "other", DAY, at_least=2) == 0
    assert merge_small(store, "m", DAY, at_least=2) > 0
    assert len(list(store.list("locks/predictions/m/"))) == 1


# --- everything together --------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "compact", "merge", "forget"]), st.integers(0, 12)),
    min_size=1,
    max_size=8,
)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_whatever_happens_every_row_is_there_once(
    steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("steps")
    store = open_store(str(folder / "store"))
    expected: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease_module, "_runs", lambda pid: False)
        for number, (step, lives) in enumerate(steps):
            dying: Any = DyingStore(store, lives)
            try:
                if step == "write":
                    table = rows(3, name=f"n{number}", step=timedelta(hours=9))
                    write_part(store, "m", table)
                    expected |= {row["_request_id"]: row["_key"] for row in table.to_pylist()}
                elif step == "compact":
                    compact(dying, "m", before=date(2027, 1, 1))
                elif step == "merge":
                    merge_small(dying, "m", DAY, at_least=2)
                else:
                    forget(dying, "m", "k2")
                    expected = {name: key for name, key in expected.items() if key != "k2"}
            except Killed:
                pass
            found = {row["_request_id"] for row in copied(store, folder / "o")}
            lost = set(expected) - found
            assert not {name for name in lost if expected[name] != "k2"}
            assert len(found) == len(ids(copied(store, folder / "o")))
