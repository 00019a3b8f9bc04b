from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.errors import DataError
from include.spec.schema import Spec
from include.store.files import Store
from include.store.snapshots import ARROW_TYPES, Manifest
from include.store.split import Split, holdout_mask, plan_split

MakeSpec = Callable[..., Spec]
Commit = Callable[[Store, pa.Table], Manifest]
DAY = 86_400_000_000


def times(days: list[int | None]) -> pa.Array:
    return pa.array([None if d is None else d * DAY for d in days], pa.int64()).view(
        ARROW_TYPES["timestamp"]
    )


def plan(
    days: list[int | None],
    spec: Spec,
    store: Store,
    commit: Commit,
    not_before: str | None = None,
) -> tuple[Split, list[bool]]:
    table = pa.table({"at": times(days), "y": list(range(len(days)))})
    split = plan_split(spec, store, commit(store, table), not_before=not_before)
    return split, holdout_mask(table.to_pandas(), split).tolist()


@pytest.mark.parametrize(
    ("days", "cutoff", "held_out"),
    [
        (list(range(10)), "1970-01-08T00:00:00.000000Z", [8, 9]),
        ([9, 0, 8, 1, 7, 2, 6, 3, 5, 4], "1970-01-08T00:00:00.000000Z", [0, 2]),
        ([0] * 9 + [1], "1970-01-01T00:00:00.000000Z", [9]),
        ([0] + [1] * 9, "1970-01-01T00:00:00.000000Z", list(range(1, 10))),
        ([0, 1], "1970-01-01T00:00:00.000000Z", [1]),
        ([0, 1, 2, 3, None], "1970-01-03T00:00:00.000000Z", [3]),
    ],
)
def test_newest_rows_are_held_out(
    folder_store: Store,
    make_spec: MakeSpec,
    commit: Commit,
    days: list[int | None],
    cutoff: str,
    held_out: list[int],
) -> None:
    split, mask = plan(days, make_spec(time="at"), folder_store, commit)
    assert split.cutoff == cutoff
    assert np.flatnonzero(mask).tolist() == held_out


def test_champions_training_rows_are_never_held_out(
    folder_store: Store, make_spec: MakeSpec, commit: Commit
) -> None:
    split, mask = plan(
        list(range(10)), make_spec(time="at"), folder_store, commit, "1970-01-09T00:00:00+00:00"
    )
    assert split.cutoff == "1970-01-09T00:00:00.000000Z"
    assert np.flatnonzero(mask).tolist() == [9]


def test_an_older_champion_does_not_move_the_cutoff(
    folder_store: Store, make_spec: MakeSpec, commit: Commit
) -> None:
    split, _ = plan(list(range(10)), make_spec(time="at"), folder_store, commit, "1970-01-02")
    assert split.cutoff == "1970-01-08T00:00:00.000000Z"


@pytest.mark.parametrize("days", [[5, 5, 5], [None, None]])
def test_one_time_only(
    folder_store: Store, make_spec: MakeSpec, commit: Commit, days: list[int | None]
) -> None:
    with pytest.raises(DataError, match="must have at least two different values"):
        plan(days, make_spec(time="at"), folder_store, commit)


def test_time_column_is_named(folder_store: Store, make_spec: MakeSpec, commit: Commit) -> None:
    with pytest.raises(
        DataError, match=r"time 'att' must be a column, got 'at', 'y'\. Did you mean 'at'"
    ):
        plan([0, 1], make_spec(time="att"), folder_store, commit)


def test_naive_times_are_utc() -> None:
    split = Split("time", "at", "2026-01-01T00:00:00.000000Z", 0.2)
    frame = pd.DataFrame(
        {
            "at": pd.to_datetime(
                ["2026-01-01T00:00:00", "2026-01-01T00:00:00.000001"], format="ISO8601"
            )
        }
    )
    assert holdout_mask(frame, split).tolist() == [False, True]
    zoned = pd.DataFrame({"at": pd.to_datetime(["2026-01-01T00:30:00+01:00"])})
    assert holdout_mask(zoned, split).tolist() == [False]
    with pytest.raises(DataError, match="'at' must hold timestamps, got"):
        holdout_mask(pd.DataFrame({"at": ["2026-01-01"]}), split)


# --- by hash --------------------------------------------------------------------------------------------


def test_by_key_whatever_its_type(folder_store: Store, make_spec: MakeSpec, commit: Commit) -> None:
    numbers = list(range(5000))
    manifest = commit(folder_store, pa.table({"id": numbers, "y": numbers}))
    split = plan_split(make_spec(key="id"), folder_store, manifest)
    assert (split.kind, split.column, split.cutoff, split.needs) == ("hash", "id", None, ("id",))
    mask = holdout_mask(pd.DataFrame({"id": numbers}), split)
    assert 0.18 < mask.mean() < 0.22
    for same in (
        np.array(numbers, float),
        [str(n) for n in numbers],
        pd.array(numbers, dtype="Int64"),
    ):
        assert (holdout_mask(pd.DataFrame({"id": same}), split) == mask).all()


def test_membership_is_the_same_for_ever() -> None:
    """Pinned: if this changes, rows a champion was trained on get into the next holdout."""
    mask = holdout_mask(pd.DataFrame({"id": range(30)}), Split("hash", "id", None, 0.3))
    assert np.flatnonzero(mask).tolist() == [0, 1, 2, 4, 6, 7, 8, 19, 22, 23, 24, 25, 28]


@given(st.lists(st.text(max_size=6), min_size=1, max_size=40), st.randoms(), st.floats(0.05, 0.85))
@settings(max_examples=60, deadline=None)
def test_membership_depends_on_the_key_alone(keys: list[str], random: object, share: float) -> None:
    split = Split("hash", "id", None, share)
    alone = {k: bool(holdout_mask(pd.DataFrame({"id": [k]}), split)[0]) for k in keys}
    assert holdout_mask(pd.DataFrame({"id": keys}), split).tolist() == [alone[k] for k in keys]
    wider = Split("hash", "id", None, min(1.0, share + 0.1))
    assert all(holdout_mask(pd.DataFrame({"id": keys}), wider)[[alone[k] for k in keys]])


def test_whole_rows_where_there_is_no_key(
    folder_store: Store, make_spec: MakeSpec, commit: Commit
) -> None:
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "y": rng.integers(0, 2, 4000),
            "a": rng.normal(size=4000),
            "n": rng.integers(0, 9, 4000),
            "c": [f"c{i % 7}" for i in range(4000)],
        }
    )
    split = plan_split(make_spec(), folder_store, commit(folder_store, table))
    assert split.needs == ("a", "c", "n", "y")
    assert Split.from_dict(split.to_dict()) == split
    frame = table.to_pandas()
    mask = holdout_mask(frame, split)
    assert 0.17 < mask.mean() < 0.23
    order = rng.permutation(4000)
    assert (
        holdout_mask(frame.iloc[order].assign(n=frame["n"].astype(float)), split) == mask[order]
    ).all()
    with pytest.raises(DataError, match="the column 'c' must be a column"):
        holdout_mask(frame.drop(columns="c"), split)


@pytest.mark.parametrize("missing", [None, np.nan])
def test_truth_values_keep_their_side_when_one_is_missing(missing: object) -> None:
    split = Split("hash", None, None, 0.5, ("a", "n"))
    frame = pd.DataFrame({"a": [True, False] * 50, "n": range(100)})
    with_gap = frame.astype({"a": object})
    with_gap.loc[7, "a"] = missing
    same = np.arange(100) != 7
    assert (holdout_mask(with_gap, split)[same] == holdout_mask(frame, split)[same]).all()


def test_splits_as_json() -> None:
    split = Split("time", "at", "2026-01-01T00:00:00.000000Z", 0.2)
    assert Split.from_dict(split.to_dict()) == split
    assert Split.from_dict(
        {"kind": "hash", "column": "id", "cutoff": None, "share": 0.2}
    ).needs == ("id",)
    with pytest.raises(DataError, match="cutoff must be ISO text, got 'soon'"):
        holdout_mask(
            pd.DataFrame({"at": pd.to_datetime(["2026-01-01"])}), Split("time", "at", "soon", 0.2)
        )
