from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.errors import DataError
from include.ingest.column_types import Rules, Votes
from include.ingest.conversion import Misfit, clean_texts, to_type

ANY = Rules({}, {}, None, None, ("",))


def decide(*batches: Any, text: bool = True, rules: Rules = ANY, name: str = "c") -> str:
    votes = Votes(text)
    for batch in batches:
        values = batch if isinstance(batch, pa.Array) else pa.array(batch, pa.string())
        votes.add(clean_texts(values, rules.missing) if text else values, rules, name)
    return votes.decide(rules, name)


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "-2", " 3 ", "", "  "], "int"),
        (["1", "2.5"], "float"),
        (["1e3", "inf", "NaN"], "float"),
        (["99999999999999999999"], "float"),
        (["true", "False"], "bool"),
        (["true", "1"], "string"),
        (["0", "1"], "int"),
        (["1.0", "2"], "float"),
        (["2026-01-01", "2026-01-01T10:00:00.5Z", "2026-01-01 10:00+02:00"], "timestamp"),
        (["2026-01-01", "soon"], "string"),
        (["20260101"], "int"),
        (["1,5"], "string"),
        (["12 AM"], "string"),
    ],
)
def test_text_columns(texts: list[str], kind: str) -> None:
    assert decide(texts) == kind
    assert decide(*[[t] for t in texts]) == kind
    assert decide(*[[t] for t in reversed(texts)]) == kind


@given(
    st.lists(st.sampled_from(["1", "2.5", "true", "2026-01-01", "x", "", "0"]), max_size=8),
    st.randoms(),
)
@settings(max_examples=80, deadline=None)
def test_neither_order_nor_chunks_matter(texts: list[str], random: Any) -> None:
    shuffled = texts[:]
    random.shuffle(shuffled)
    assert decide(*[[t] for t in shuffled]) == decide(texts)


@pytest.mark.parametrize(
    ("texts", "expected", "kind"),
    [
        (["1", "2"], "float", "float"),
        (["1.0", "3.0", ""], "int", "int"),
        (["1.5"], "int", "float"),
        (["1", "0"], "bool", "bool"),
        (["1.0", "0.0"], "bool", "bool"),
        (["2", "0"], "bool", "int"),
        (["1", "2"], "string", "string"),
        (["2026-01-01"], "string", "string"),
        (["x"], "int", "string"),
        (["", ""], "timestamp", "timestamp"),
        (["9007199254740993.0"], "int", "float"),
    ],
)
def test_the_champions_type_is_tried_first(texts: list[str], expected: Any, kind: str) -> None:
    assert decide(texts, rules=Rules({}, {"c": expected}, None, None, ("",))) == kind


INT, FLOAT = pa.array([1, None]), pa.array([1.5])


@pytest.mark.parametrize(
    ("batches", "kind"),
    [
        ([INT], "int"),
        ([INT, FLOAT], "float"),
        ([pa.array([1], pa.int8()), pa.array([2], pa.uint16())], "int"),
        ([pa.array([2**64 - 1], pa.uint64())], "float"),
        ([pa.array([True]), INT], "string"),
        ([pa.array(["1", "2"])], "string"),
        ([pa.array(["2026-01-01"])], "timestamp"),
        ([pa.array([None, None], pa.string())], "string"),
        ([pa.array([None]), FLOAT], "float"),
        ([pa.array(["a"]).dictionary_encode()], "string"),
        ([pa.array([date(2026, 1, 1)])], "timestamp"),
        ([pa.array([datetime(2026, 1, 1)]), pa.array([date(2026, 1, 1)])], "timestamp"),
        ([pa.array([Decimal("1.50")])], "float"),
        ([pa.array([Decimal(7)])], "int"),
        ([INT, pa.array(["x"])], "string"),
    ],
)
def test_typed_columns(batches: list[pa.Array], kind: str) -> None:
    assert decide(*batches, text=False) == kind
    assert decide(*reversed(batches), text=False) == kind


@pytest.mark.parametrize(
    ("batch", "expected", "kind"),
    [
        (pa.array([1.0, 3.0, None]), "int", "int"),
        (pa.array([1.5]), "int", "float"),
        (pa.array([1, 2]), "float", "float"),
        (pa.array([1, 0]), "bool", "bool"),
        (pa.array([1, 0]), "string", "int"),
        (pa.array(["1"]), "int", "string"),
        (pa.array([None, None]), "bool", "bool"),
    ],
)
def test_typed_columns_and_the_champion(batch: pa.Array, expected: Any, kind: str) -> None:
    rules = Rules({}, {"c": expected}, None, None, ("",))
    assert decide(batch, text=False, rules=rules) == kind


@pytest.mark.parametrize("values", [[[1]], [{"a": 1}], [b"\xff"]])
def test_nested_and_binary_columns(values: Any) -> None:
    with pytest.raises(
        DataError, match="column 'c': must hold numbers, texts, booleans or times, got"
    ):
        decide(pa.array(values), text=False)


def convert(values: Any, kind: Any, rules: Rules = ANY, name: str = "c") -> list[Any]:
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return to_type(array, kind, name, rules.format_of(name)).to_pylist()


T = datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("values", "kind", "result"),
    [
        ([" 1", None], "int", [1, None]),
        (["1.0"], "int", [1]),
        (["nan", "-0.5"], "float", [None, -0.5]),
        ([float("nan"), 1.0], "float", [None, 1.0]),
        ([float("nan"), 1.0], "int", [None, 1]),
        (["true", "FALSE", None], "bool", [True, False, None]),
        ([1, 0, None], "bool", [True, False, None]),
        ([True, None], "string", ["true", None]),
        ([1, None], "string", ["1", None]),
        ([Decimal("1.50")], "float", [1.5]),
        (pa.nulls(2), "timestamp", [None, None]),
        (["2026-01-02T03:04:05.6"], "timestamp", [T]),
        (["2026-01-02 05:04:05.600+02:00", "2026-01-02T03:04:05.600Z"], "timestamp", [T, T]),
        (["2026-01-02T03:04:05.6", "2026-01-02T03:04:05.6Z", None], "timestamp", [T, T, None]),
        (["2026-01-02 03:04:05.600000999"], "timestamp", [T]),
        (pa.array([T], pa.timestamp("ns", "Europe/Berlin")), "timestamp", [T]),
        (pa.array([T.replace(tzinfo=None)], pa.timestamp("ms")), "timestamp", [T]),
        ([date(2026, 1, 2)], "timestamp", [datetime(2026, 1, 2, tzinfo=UTC)]),
    ],
)
def test_conversion(values: Any, kind: Any, result: list[Any]) -> None:
    assert convert(values, kind) == result


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["x"], "int"),
        (["1.5"], "int"),
        ([1.5], "int"),
        (["x"], "float"),
        (["yes"], "bool"),
        ([2], "bool"),
        ([1], "timestamp"),
        (["x"], "timestamp"),
        (pa.array([2**64 - 1], pa.uint64()), "int"),
    ],
)
def test_misfits(values: Any, kind: Any) -> None:
    with pytest.raises(Misfit):
        convert(values, kind)


@pytest.mark.parametrize(
    ("values", "pattern", "moment"),
    [
        (["1/31/11"], "%m/%d/%y", datetime(2011, 1, 31, tzinfo=UTC)),
        (
            ["31.01.2011 12:30:00.25"],
            "%d.%m.%Y %H:%M:%S.%f",
            datetime(2011, 1, 31, 12, 30, 0, 250000, tzinfo=UTC),
        ),
        ([20110131], "%Y%m%d", datetime(2011, 1, 31, tzinfo=UTC)),
        (["2011-01-31 12:00 +0200"], "%Y-%m-%d %H:%M %z", datetime(2011, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_times_in_another_form(values: Any, pattern: str, moment: datetime) -> None:
    rules = Rules({"t": ("timestamp", "string")}, {}, "t", pattern, ("",))
    array = pa.array([*values, None])
    assert decide(array, text=pa.types.is_string(array.type), rules=rules, name="t") == "timestamp"
    assert convert(array, "timestamp", rules, "t") == [moment, None]


def test_missing_texts_are_compared_without_blanks() -> None:
    texts = pa.array(["", " ", "NA", "\tNA ", "NAN", " a "])
    assert clean_texts(texts, ("", "NA")).to_pylist() == [None, None, None, None, "NAN", " a "]
    assert clean_texts(texts, ()) is texts


TEXTS = st.sampled_from(
    ["1", "1.0", "0", "-0.0", "2.5", "true", "2026-01-01", "x", "", " 7 ", "1e400", "9" * 25]
)
TYPED = st.one_of(
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)).map(lambda v: pa.array(v, pa.int64())),
    st.lists(st.none() | st.integers(0, 2**64 - 1)).map(lambda v: pa.array(v, pa.uint64())),
    st.lists(
        st.none() | st.sampled_from([0.0, -0.0, 1.0, 3.0, 2.5, float("nan"), float("inf")])
    ).map(lambda v: pa.array(v, pa.float64())),
    st.lists(st.none() | st.sampled_from([Decimal("0.00"), Decimal("1.00"), Decimal("2.50")])).map(
        lambda v: pa.array(v, pa.decimal128(9, 2))
    ),
    st.lists(st.none() | st.booleans()).map(lambda v: pa.array(v, pa.bool_())),
    st.lists(st.none() | TEXTS).map(lambda v: pa.array(v, pa.large_string())),
)
EXPECTED = st.dictionaries(
    st.just("c"), st.sampled_from(["int", "float", "bool", "string", "timestamp"])
)


@given(
    st.lists(st.lists(TEXTS, max_size=4).map(lambda v: pa.array(v, pa.string())), max_size=4),
    EXPECTED,
)
@settings(max_examples=200, deadline=None)
def test_every_text_fits_the_type_decided(batches: list[pa.Array], expected: Any) -> None:
    rules = Rules({}, expected, None, None, ("",))
    kind = decide(*batches, rules=rules)
    for batch in batches:
        convert(clean_texts(batch, rules.missing), kind, rules)


@given(st.lists(TYPED, max_size=3), EXPECTED)
@settings(max_examples=300, deadline=None)
def test_every_typed_value_fits_the_type_decided(batches: list[pa.Array], expected: Any) -> None:
    rules = Rules({}, expected, None, None, ("",))
    kind = decide(*batches, text=False, rules=rules)
    for batch in batches:
        convert(batch, kind, rules)
