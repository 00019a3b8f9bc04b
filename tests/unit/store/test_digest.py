from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.store.digest import RowDigest, hash_numbers, hash_text, hash_values

TYPES = {"n": "int", "x": "float", "s": "string", "b": "bool"}
ROW = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.floats(allow_nan=False),
    st.none() | st.text(max_size=40),
    st.none() | st.booleans(),
)


def snapshot_id(rows: list[tuple], cuts: tuple[int, ...] = (), order: str = "nxsb") -> str:
    digest = RowDigest()
    for start, stop in zip((0, *cuts), (*cuts, len(rows)), strict=True):
        part = rows[start:stop]
        columns = {
            "n": pa.array([r[0] for r in part], pa.int64()),
            "x": pa.array([r[1] for r in part], pa.float64()),
            "s": pa.array([r[2] for r in part], pa.string()),
            "b": pa.array([r[3] for r in part], pa.bool_()),
        }
        digest.update({name: hash_values(columns[name]) for name in order})
    return digest.snapshot_id({name: TYPES[name] for name in order})


@given(st.lists(ROW, max_size=60), st.data())
@settings(max_examples=60, deadline=None)
def test_order_and_chunks_do_not_matter(rows: list[tuple], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(rows))
    cuts = tuple(sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4))))
    assert snapshot_id(shuffled, cuts, "bsxn") == snapshot_id(rows)


@given(st.lists(ROW, min_size=1, max_size=30), st.data())
@settings(max_examples=100, deadline=None)
def test_any_change_matters(rows: list[tuple], data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(rows) - 1))
    other = data.draw(ROW.filter(lambda row: row != rows[number]))
    changed = [*rows[:number], other, *rows[number + 1 :]]
    assert snapshot_id(changed) != snapshot_id(rows)


@given(st.lists(ROW, min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_losing_or_doubling_a_row_matters(rows: list[tuple]) -> None:
    assert len({snapshot_id(rows), snapshot_id(rows[1:]), snapshot_id([rows[0], *rows])}) == 3


def test_the_id_is_the_same_for_ever() -> None:
    """Pinned: if this changes, every snapshot in every store gets a new name."""
    rows = [(1, 0.5, "é", True), (None, None, None, None), (-7, float("inf"), "a" * 30, False)]
    assert snapshot_id(rows) == "2fa883500589fceec4858b5193e4c1e6"
    assert [int(h) for h in hash_text(pa.array(["", "id-1", None]))] == [
        0,
        11129723239544414729,
        11820040416388919760,
    ]


def test_values_swapped_between_columns_or_rows_matter() -> None:
    rows = [(1, 2.0, "a", True), (2, 1.0, "b", False)]
    crossed = [(1, 1.0, "a", True), (2, 2.0, "b", False)]
    assert snapshot_id(rows) != snapshot_id(crossed)


def test_type_and_name_matter() -> None:
    digest = RowDigest()
    digest.update({"a": hash_numbers(np.array([1, 2]))})
    assert digest.snapshot_id({"a": "int"}) != digest.snapshot_id({"a": "float"})


def test_equal_numbers_hash_alike() -> None:
    zero, minus = hash_numbers(np.array([0.0, -0.0]))
    assert zero == minus
    payloads = np.array([0x7FF8000000000000, 0xFFF8000000000001], np.uint64).view(np.float64)
    assert len(set(hash_numbers(payloads))) == 1


def test_missing_is_no_value() -> None:
    assert len(set(hash_text(pa.array(["", None, "\0", "\0\0"])))) == 4
    assert len(set(hash_values(pa.array([0, None, 1])))) == 3


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_slices_hash_like_wholes(kind: pa.DataType) -> None:
    texts = pa.array([f"text {i}" * (i % 7) for i in range(40_000)], kind)
    whole = hash_text(texts)
    assert (hash_text(texts.slice(20_001, 99)) == whole[20_001:20_100]).all()


def test_one_very_long_text_costs_little_memory() -> None:
    texts = pa.array([str(i) for i in range(16_000)] + ["x" * 1_000_000])
    alone = hash_text(pa.array(["x" * 1_000_000]))[0]
    hashes = hash_text(texts)
    assert hashes[-1] == alone
    assert hashes[7] == hash_text(pa.array(["7"]))[0]


def test_hashes_are_spread_evenly() -> None:
    shares = hash_text(pa.array([f"customer-{i}" for i in range(20_000)])) / 2.0**64
    counts, _ = np.histogram(shares, bins=20, range=(0, 1))
    assert abs(counts - 1000).max() < 160  # five standard deviations
