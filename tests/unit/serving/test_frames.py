from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest

from include.serving.columns import Columns, Schema
from include.serving.frames import read_csv, read_invocation
from include.serving.rejection import RequestError
from include.store.features import Features, model_frame

SCHEMA = Schema(
    Features(("age", "member"), ("region", "plan")),
    {"age": "int", "member": "bool", "region": "string", "plan": "int"},
)
NAMES = ["age", "member", "region", "plan"]
ROWS: list[list[Any]] = [[30, True, "north", 1], [None, None, None, None], [41.5, False, "", 2]]
RECORDS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]


def read(request: Any, max_rows: int = 100) -> Columns:
    return read_invocation(orjson.dumps(request), SCHEMA, max_rows=max_rows).columns


def lists(columns: Columns) -> dict[str, list[Any]]:
    frame = model_frame(columns, SCHEMA.features).astype(object)
    return {name: frame[name].where(frame[name].notna(), None).tolist() for name in NAMES}


EXPECTED = {
    "age": [30.0, None, 41.5],
    "member": [1.0, None, 0.0],
    "region": ["north", None, ""],
    "plan": ["1", None, "2"],
}


@pytest.mark.parametrize(
    "request_",
    [
        {"dataframe_split": {"columns": NAMES, "data": ROWS}},
        {"dataframe_split": {"columns": NAMES, "data": ROWS, "index": [5, 6, 7]}, "params": {}},
        {"dataframe_split": {"columns": [*NAMES, "target"], "data": [[*r, 1] for r in ROWS]}},
        {"dataframe_records": RECORDS},
        {"instances": RECORDS},
        {"instances": ROWS},
        {"inputs": RECORDS},
        {"inputs": {name: [r[name] for r in RECORDS] for name in NAMES}},
        {"inputs": {name: [[r[name]] for r in RECORDS] for name in NAMES}},
    ],
)
def test_the_four_forms_say_the_same(request_: dict[str, Any]) -> None:
    assert lists(read(request_)) == EXPECTED


def test_a_record_may_leave_out_a_missing_value() -> None:
    records = [RECORDS[0], {"age": 3}]
    assert read({"dataframe_records": records})["region"] == ["north", None]


def test_csv_with_empty_cells_is_the_same_as_json() -> None:
    text = '\ufeffage,member,region,plan,other\r\n30,true,"north",1,x\r\n,,,,\r\n41.5,0,"so, th",2,y\r\n'
    columns = read_csv(text.encode(), SCHEMA, max_rows=10).columns
    assert lists(columns) == EXPECTED | {"region": ["north", None, "so, th"]}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ([], r"^body: must be a JSON object"),
        ({}, r"^body: must have exactly one of .*, got none"),
        ({"data": []}, r"exactly one of 'dataframe_split', .* got the keys 'data'"),
        ({"inputs": {}, "instances": []}, r"exactly one of .* got 'instances', 'inputs'"),
        ({"dataframe_split": []}, r"^dataframe_split.columns: must be a list of names"),
        ({"dataframe_split": {"columns": [1], "data": []}}, r"must be a list of names"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": []}}, r"must differ, got 'a' twice"),
        ({"dataframe_split": {"columns": NAMES, "data": 1}}, r"data: must be a list of rows"),
        ({"dataframe_split": {"columns": NAMES, "data": [[1]]}}, r"^row 0: must have 4 values"),
        ({"dataframe_split": {"columns": NAMES, "data": []}}, r"^rows: must be 1 to 100, got 0"),
        ({"dataframe_split": {"columns": NAMES, "data": ROWS * 40}}, r"1 to 100, got 120"),
        ({"dataframe_records": {}}, r"^dataframe_records: must be a list of rows"),
        ({"dataframe_records": []}, r"at least one row"),
        ({"dataframe_records": [3]}, r"^dataframe_records\[0\]: must be an object"),
        ({"dataframe_records": ROWS}, r"^dataframe_records\[0\]: must be an object"),
        ({"instances": [[1, 2]]}, r"^row 0: must have 4 values"),
        ({"inputs": {"age": 3}}, r"^inputs.age: must be a list of values"),
        (
            {"dataframe_records": [{"agee": 1, "member": 1, "region": "a", "plan": 1}]},
            r"missing 'age'; unknown 'agee' \(did you mean 'age'\?\)",
        ),
        (
            {"inputs": {"age": [1], "member": [1, 0], "region": ["a"], "plan": [1]}},
            r"^column 'member': must have as many rows as the others, got 2",
        ),
        (
            {"dataframe_records": [RECORDS[0] | {"age": "30"}]},
            r"^column 'age': must hold a number or null .* got '30' in row 0",
        ),
        (
            {"dataframe_records": [RECORDS[0] | {"region": 5}]},
            r"^column 'region': must hold text or null .* got 5 in row 0",
        ),
        (
            {"dataframe_records": [RECORDS[0] | {"region": ["a"]}]},
            r"^column 'region': must hold text",
        ),
        ({"dataframe_records": [RECORDS[0] | {"plan": 1.5}]}, r"^column 'plan': must hold whole"),
    ],
)
def test_what_is_wrong_is_said(request_: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read(request_)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "CSV with a header, got nothing"),
        (b"\xff\xfe", "must be CSV in UTF-8"),
        (b'age,"member\n', "must be CSV in UTF-8"),
        (b"age,member,region,plan\n1,2\n", "row 0: must have 4 values"),
        (b"age,member,region,plan\nold,1,a,1\n", "column 'age': must hold numbers, got 'old'"),
        (b"age,member,region,plan\ninf,1,a,1\n", "column 'age': must hold numbers, got 'inf'"),
        (b"age,member,region,plan\n1,1,a,1.5\n", "column 'plan': must hold whole numbers"),
        (b"plan,plan\n", "dataframe_split.columns: must differ, got 'plan' twice"),
    ],
)
def test_what_is_wrong_with_csv_is_said(text: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_csv(text, SCHEMA, max_rows=10)


def test_whole_numbers_beyond_a_float_stay_finite() -> None:
    columns = read_csv(
        b"age,member,region,plan\n" + b"9" * 300 + b",1,a,1\n", SCHEMA, max_rows=10
    ).columns
    assert np.isfinite(columns["age"]).all()


KINDS = Schema(
    Features((), ("shop", "rate", "member")), {"shop": "int", "rate": "float", "member": "bool"}
)


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        ("9007199254740993,0.5,true", [9007199254740993, 0.5, True]),
        ("18446744073709551615,1,0", [18446744073709551615, 1.0, False]),
        ("-9007199254740993, 2 ,FALSE", [-9007199254740993, 2.0, False]),
        ("5.0,1e3,1.0", [5.0, 1000.0, True]),
        ("unknown,none,maybe", ["unknown", "none", "maybe"]),
        ("1_000,inf,2", ["1_000", "inf", "2"]),
        (" ,,", [None, None, None]),
    ],
)
def test_categories_in_csv_are_what_json_would_say(cells: str, values: list[Any]) -> None:
    text = f"shop,rate,member\n{cells}\n".encode()
    read_from_csv = read_csv(text, KINDS, max_rows=9).columns
    record = dict(zip(KINDS.names, values, strict=True))
    body = orjson.dumps({"dataframe_records": [record]})
    read_from_json = read_invocation(body, KINDS, max_rows=9).columns
    found = {name: list(column) for name, column in read_from_csv.items()}
    assert found == {name: list(column) for name, column in read_from_json.items()}
    assert [type(column[0]) for column in found.values()] == [type(value) for value in values]


def test_columns_that_the_model_does_not_know_are_never_built() -> None:
    tracemalloc.start()
    try:
        records = [{f"{i:x}": 1} for i in range(3000)]  # 9 million cells, were they built
        with pytest.raises(RequestError, match=r"must be 1 to 100, got 3001"):
            read({"dataframe_records": [*records, RECORDS[0]]})
        with pytest.raises(RequestError, match=r"missing 'age', .*; unknown '0', '1', '10'"):
            read({"dataframe_records": records}, max_rows=10_000)
        columns = read({"dataframe_records": [*records, RECORDS[0]]}, max_rows=10_000)
        assert list(columns) == NAMES
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


class Counted(str):
    """A name that counts how often it is compared."""

    compared = 0
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_names_that_are_there_twice_are_found_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [Counted(f"c{i % 2000}") for i in range(4000)]
    request = {"dataframe_split": {"columns": names, "data": []}}
    monkeypatch.setattr("include.serving.frames.read_json", lambda _: request)
    Counted.compared = 0
    with pytest.raises(RequestError, match=r"must differ, got 'c0', .* and 1990 more twice"):
        read_invocation(b"", SCHEMA, max_rows=10)
    assert Counted.compared < 200_000
