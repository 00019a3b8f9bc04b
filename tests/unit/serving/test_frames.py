from __future__ import annotations

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
        (b"age,member,region,plan\n1,1,a,x\n", "column 'plan': must hold numbers, got 'x'"),
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
