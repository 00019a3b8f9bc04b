"""What the clean-up takes away, what it leaves, and what is left when it is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.errors import DataError, ServiceError, SnapshotError
from include.store.files import Store, Stored, open_store
from include.store.lease import Lease, rewriting
from include.store.prune import Ages, Needs, _log_reason, plan_prune, prune, stored_models
from include.store.prune_plan import Entry, Plan, describe, readable
from include.store.snapshots import commit_snapshot, read_manifest, snapshot_paths
from tests.unit.store.conftest import snapshot_of

DAY = timedelta(days=1)
KEEP = 30 * DAY
OLD, NEEDED = "a" * 32, "b" * 32


def later(days: float, **logs: timedelta) -> Ages:
    """So many days after what the test has stored."""
    return Ages(datetime.now(UTC) + days * DAY, KEEP, logs)


def idle(_model: str) -> Needs:
    return Needs(frozenset({NEEDED}))


def snapshot(store: Store, folder: Path, snapshot_id: str, value: int = 1) -> None:
    manifest, path = snapshot_of(pa.table({"x": [value]}), folder, snapshot_id)
    assert commit_snapshot(store, manifest, {manifest.files[0].name: path})


def keys(plan: Plan) -> list[str]:
    return [entry.key for entry in plan.entries]


def everything(store: Store) -> list[str]:
    return list(store.list(""))


def test_scanning_is_listing_with_size_and_age(store: Store) -> None:
    for number, key in enumerate(("a/1", "a/2", "b/3")):
        store.write_bytes(key, b"x" * number)
    began = datetime.now(UTC)
    for prefix in ("", "a/", "a/2", "nothing/"):
        found = list(store.scan(prefix))
        assert [stored.key for stored in found] == list(store.list(prefix))
        assert [stored.bytes for stored in found] == [len(store.read_bytes(f.key)) for f in found]
        assert all(abs(stored.written_at - began) < timedelta(minutes=1) for stored in found)


def test_a_snapshot_goes_when_no_version_needs_it_and_it_is_old(
    store: Store, tmp_path: Path
) -> None:
    snapshot(store, tmp_path / "one", OLD)
    snapshot(store, tmp_path / "two", NEEDED, value=2)
    assert keys(plan_prune(store, later(29), idle)) == []
    plan = plan_prune(store, later(31), idle)
    (entry,) = plan.entries
    assert (entry.kind, entry.model, entry.files) == ("snapshots", "m", 2)
    assert entry.key == f"snapshots/m/{OLD}/"
    assert entry.bytes == sum(len(store.read_bytes(key)) for key in store.list(entry.key))
    assert entry.reason == "no version was made from it, and it is 31 days old"
    assert len(everything(store)) == 4  # a plan touches nothing

    assert prune(store, entry, later(31), idle)
    assert list(store.list(f"snapshots/m/{OLD}/")) == []
    snapshot_paths(store, read_manifest(store, "m", NEEDED))
    assert prune(store, entry, later(31), idle)  # again: gone is as good as removed


def test_what_became_needed_since_the_plan_stays(store: Store, tmp_path: Path) -> None:
    snapshot(store, tmp_path / "one", OLD)
    (entry,) = plan_prune(store, later(31), idle).entries
    before = everything(store)
    assert not prune(store, entry, later(31), lambda _: Needs(frozenset({OLD})))
    assert not prune(store, entry, later(31), lambda _: Needs(hold="a run is under way"))
    assert not prune(store, entry, later(2), idle)  # it was written again meanwhile
    assert everything(store) == before


def test_a_removal_that_does_not_know_removes_nothing(store: Store, tmp_path: Path) -> None:
    snapshot(store, tmp_path / "one", OLD)
    (entry,) = plan_prune(store, later(31), idle).entries
    before = everything(store)

    def away(_model: str) -> Needs:
        raise ServiceError("MLflow", "must answer, got nothing", "Start it.")

    with pytest.raises(ServiceError):
        prune(store, entry, later(31), away)
    with pytest.raises(ServiceError):
        plan_prune(store, later(31), away)
    assert everything(store) == before


@pytest.mark.parametrize("deletions", [0, 1, 2])
def test_killed_between_two_deletions_no_snapshot_is_listed_that_is_not_whole(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deletions: int
) -> None:
    store = folder_store
    table = pa.table({"x": [1, 2, 3]})
    manifest, path = snapshot_of(table, tmp_path / "one", OLD)
    second = replace(manifest.files[0], name="second.parquet")
    two = replace(manifest, files=(*manifest.files, second))
    other = tmp_path / "second.parquet"
    other.write_bytes(path.read_bytes())
    commit_snapshot(store, two, {manifest.files[0].name: path, "second.parquet": other})
    (entry,) = plan_prune(store, later(31), idle).entries

    left = deletions
    delete = type(store).delete

    def dying(self: Store, key: str) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        delete(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "delete", dying)
        with pytest.raises(KeyboardInterrupt):
            prune(store, entry, later(31), idle)
    if deletions == 0:
        snapshot_paths(store, read_manifest(store, "m", OLD))
    else:  # not listed, rather than listed and damaged
        with pytest.raises(SnapshotError, match="must exist, got none"):
            read_manifest(store, "m", OLD)
    assert prune(store, entry, later(31), idle)
    assert everything(store) == []


def test_files_without_a_manifest_go_after_a_day(store: Store) -> None:
    store.write_bytes(f"snapshots/m/{NEEDED}/rows.parquet", b"rows")
    assert keys(plan_prune(store, later(0.9), idle)) == []
    (entry,) = plan_prune(store, later(1.1), idle).entries
    assert entry.reason == "a run that was killed left it without a manifest"
    assert prune(store, entry, later(1.1), idle)
    assert everything(store) == []


def test_work_files_reports_and_old_plans_go_by_age(store: Store) -> None:
    files = {
        "runs/m/0123456789abcdef/model.skops": "runs/m/0123456789abcdef/model.skops",
        f"quarantine/m/{NEEDED}/manifest.json": f"quarantine/m/{NEEDED}/",
        f"quarantine/m/{NEEDED}/report.html": f"quarantine/m/{NEEDED}/",
        "reap/scheduled__2026-03-01.json": "reap/scheduled__2026-03-01.json",
    }
    for key in files:
        store.write_bytes(key, b"12345")
    assert keys(plan_prune(store, later(29), idle)) == []
    plan = plan_prune(store, later(31), idle)
    assert sorted(keys(plan)) == sorted(set(files.values()))
    assert {entry.model for entry in plan.entries} == {"m", ""}
    assert {entry.reason for entry in plan.entries} == {
        "nothing refers to it, and it is 31 days old"
    }
    for entry in plan.entries:
        assert prune(store, entry, later(31), idle)
    assert everything(store) == []


def test_what_a_killed_monitor_left_goes_after_a_day(store: Store) -> None:
    key = "monitor/m/work/0123456789abcdef-rows.parquet"
    store.write_bytes(key, b"rows")
    assert keys(plan_prune(store, later(0.9), idle)) == []
    (entry,) = plan_prune(store, later(1.1), idle).entries
    assert (entry.key, entry.reason) == (key, "a pass that was killed left it")
    assert prune(store, entry, later(1.1), idle)
    assert everything(store) == []


def test_what_is_not_ours_is_not_looked_at(store: Store) -> None:
    for key in (
        "README",
        "snapshots/notes.txt",
        "snapshots/m/notes.txt",
        "other/m/x/y",
        "runs/m/x",
    ):
        store.write_bytes(key, b"mine")

    def never(model: str) -> Needs:
        raise AssertionError(model)

    assert keys(plan_prune(store, later(999), never)) == []
    assert stored_models(store) == []


def test_a_held_model_keeps_all_but_its_logs_and_others_do_not_care(
    store: Store, tmp_path: Path
) -> None:
    snapshot(store, tmp_path / "one", OLD)
    store.write_bytes("runs/m/f/x.skops", b"x")
    store.write_bytes("runs/other/f/x.skops", b"x")
    store.write_bytes("predictions/m/date=2020-01-01/a.parquet", b"x")
    plan = plan_prune(
        store,
        later(31, m=30 * DAY),
        lambda model: Needs(hold="a run is under way" if model == "m" else None),
    )
    assert keys(plan) == ["runs/other/f/x.skops", "predictions/m/date=2020-01-01/"]
    assert plan.held == {"m": "a run is under way"}
    assert stored_models(store) == ["m", "other"]


def test_logs_go_by_the_models_own_age_whole_days_at_a_time(store: Store) -> None:
    ages = later(91, m=90 * DAY)
    first_kept = (ages.now - 90 * DAY).date()
    for kind in ("predictions", "labels"):
        for day in (first_kept - DAY, first_kept):
            store.write_bytes(f"{kind}/m/date={day}/a.parquet", b"x")
            store.write_bytes(f"{kind}/without_a_spec/date={day}/a.parquet", b"x")
        store.write_bytes(f"{kind}/m/date=someday/a.parquet", b"x")
        store.write_bytes(f"{kind}/m/date=2012-13-99/a.parquet", b"x")
    plan = plan_prune(store, ages, idle)
    gone = [f"{kind}/m/date={first_kept - DAY}/" for kind in ("predictions", "labels")]
    assert keys(plan) == gone
    assert {entry.reason for entry in plan.entries} == {"older than 90 days (monitor.keep)"}
    for entry in plan.entries:
        assert prune(store, entry, ages, idle)
        assert not prune(
            store,
            replace(entry, key=entry.key.replace(str(first_kept - DAY), str(first_kept))),
            ages,
            idle,
        )
    assert not any(key.startswith(tuple(gone)) for key in everything(store))
    assert len([key for key in everything(store) if not key.startswith("locks/")]) == 10


def test_a_replay_of_an_old_year_is_kept_as_long_as_what_was_logged_today(store: Store) -> None:
    store.write_bytes("predictions/m/date=2012-06-01/a.parquet", b"x")
    assert keys(plan_prune(store, later(89, m=90 * DAY), idle)) == []
    assert keys(plan_prune(store, later(91, m=90 * DAY), idle)) != []


def test_a_log_that_is_being_rewritten_is_waited_for(folder_store: Store) -> None:
    store = folder_store
    store.write_bytes("predictions/m/date=2012-06-01/a.parquet", b"x")
    ages = later(91, m=90 * DAY)
    (entry,) = plan_prune(store, ages, idle).entries
    with pytest.MonkeyPatch.context() as patch, rewriting(store, "predictions/m"):
        patch.setattr("include.store.prune.rewriting", lambda s, r: rewriting(s, r, wait=0.0))
        with pytest.raises(ServiceError, match="must be free"):
            prune(store, entry, ages, idle)
    assert store.exists("predictions/m/date=2012-06-01/a.parquet")


def test_what_was_merged_while_the_lock_was_waited_for_stays(
    folder_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = folder_store
    key = "predictions/m/date=2012-06-01/a.parquet"
    store.write_bytes(key, b"x")
    ages = Ages(datetime.now(UTC), KEEP, {"m": 90 * DAY})
    old = (ages.now - 99 * DAY).timestamp()
    os.utime(store.root / key, (old, old))  # type: ignore[attr-defined]
    (entry,) = plan_prune(store, ages, idle).entries

    @contextmanager
    def busy(s: Store, root: str) -> Iterator[Lease]:
        with rewriting(s, root) as lease:
            store.write_bytes("predictions/m/date=2012-06-01/b.parquet", b"merged")
            yield lease

    monkeypatch.setattr("include.store.prune.rewriting", busy)
    assert not prune(store, entry, ages, idle)
    assert len([k for k in everything(store) if k.startswith("predictions/")]) == 2


def test_a_run_that_begins_while_the_files_are_listed_keeps_its_snapshot(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, begun = folder_store, []
    snapshot(store, tmp_path / "one", OLD)
    (entry,) = plan_prune(store, later(31), idle).entries
    scan = type(store).scan

    def slow(self: Store, prefix: str) -> Iterator[Stored]:
        yield from scan(self, prefix)
        begun.append(1)

    monkeypatch.setattr(type(store), "scan", slow)
    assert not prune(store, entry, later(31), lambda _: Needs(hold="begun" if begun else None))
    snapshot_paths(store, read_manifest(store, "m", OLD))


def test_deleting_a_day_never_brings_replaced_rows_back(
    folder_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, deleted = folder_store, []
    folder = "predictions/m/date=2012-06-01"
    for name in ("_1-new.json", "1-new.parquet", "1-old.parquet"):
        store.write_bytes(f"{folder}/{name}", b"[]")
    ages = later(91, m=90 * DAY)
    (entry,) = plan_prune(store, ages, idle).entries
    delete = type(store).delete

    def noting(self: Store, key: str) -> None:
        deleted.append(key.rpartition("/")[2])
        delete(self, key)

    monkeypatch.setattr(type(store), "delete", noting)
    assert prune(store, entry, ages, idle)
    assert deleted[:3] == ["1-new.parquet", "1-old.parquet", "_1-new.json"]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    needed=st.sets(st.sampled_from("abcd")),
    ages=st.dictionaries(st.sampled_from("abcd"), st.integers(0, 80), min_size=1),
    keep=st.integers(1, 60),
)
def test_never_what_is_needed_or_young(
    tmp_path_factory: pytest.TempPathFactory, needed: set[str], ages: dict[str, int], keep: int
) -> None:
    root = tmp_path_factory.mktemp("store")
    store, now = open_store(str(root)), datetime.now(UTC)
    for name, days in ages.items():
        for file in ("manifest.json", "rows.parquet"):
            key = f"snapshots/m/{name}/{file}"
            store.write_bytes(key, b"x")
            written = (now - days * DAY).timestamp() - 60
            os.utime(root / key, (written, written))
    rules, needs = Ages(now, keep * DAY, {}), Needs(frozenset(needed))
    for entry in plan_prune(store, rules, lambda _: needs).entries:
        assert prune(store, entry, rules, lambda _: needs)
    left = {key.split("/")[2] for key in everything(store)}
    assert left == {name for name, days in ages.items() if name in needed or days < keep}


def test_a_plan_survives_the_store() -> None:
    entry = Entry("snapshots", "m", "snapshots/m/a/", 2, 1234, "old")
    plan = Plan((entry,), {"other": "a run is under way"})
    assert Plan.from_json(plan.to_json()) == plan
    for text in ("", "[]", '{"format": 9}', '{"format": 1, "entries": [{}], "held": {}}'):
        with pytest.raises(DataError, match="must be JSON of format 1"):
            Plan.from_json(text)


def test_words() -> None:
    def entry(kind: str, size: int) -> Entry:
        return Entry(kind, "m", "k", 1, size, "")  # type: ignore[arg-type]

    assert describe([]) == "nothing, 0 B"
    assert describe([entry("snapshots", 5_300_000)]) == "1 snapshot, 5.3 MB"
    some = [entry("predictions", 1), entry("runs", 2), entry("predictions", 3), entry("labels", 1)]
    assert describe(some) == "1 work file, 2 days of predictions and 1 day of labels, 7 B"
    assert [readable(size) for size in (0, 999, 1000, 2_500_000_000)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "2.5 GB",
    ]


def test_the_day_is_a_day_in_utc() -> None:
    east = datetime(2026, 4, 2, 1, tzinfo=UTC).astimezone(
        datetime.fromisoformat("2026-01-01T00:00:00+09:00").tzinfo
    )
    ages = Ages(east, KEEP, {"m": 30 * DAY})
    assert ages.now.astimezone(UTC).date() == date(2026, 4, 2)
    assert _log_reason("predictions/m/date=2026-03-02/", 31 * DAY, ages) is not None
    assert _log_reason("predictions/m/date=2026-03-03/", 31 * DAY, ages) is None
