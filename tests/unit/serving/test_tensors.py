from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from include.serving.columns import Schema
from include.serving.rejection import RequestError
from include.serving.tensors import InferRequest, check_infer, read_json
from include.store.features import Features

SCHEMA = Schema(
    Features(("age", "member"), ("region", "plan", "vip")),
    {"age": "int", "member": "bool", "region": "string", "plan": "int", "vip": "bool"},
)


def body(**changes: Any) -> dict[str, Any]:
    tensors = {
        "age": ("FP64", [1.5, None]),
        "member": ("BOOL", [True, None]),
        "region": ("BYTES", ["a", None]),
        "plan": ("INT64", [3, None]),
        "vip": ("BOOL", [False, None]),
    }
    inputs = [
        {"name": name, "shape": [2], "datatype": datatype, "data": data}
        for name, (datatype, data) in tensors.items()
    ]
    return {"inputs": inputs} | changes


def changed(name: str, **changes: Any) -> dict[str, Any]:
    request = body()
    for tensor in request["inputs"]:
        if tensor["name"] == name:
            tensor.update(changes)
    return request


def read(request: Any, max_rows: int = 100) -> InferRequest:
    raw = request if isinstance(request, bytes) else orjson.dumps(request)
    return check_infer(read_json(raw), SCHEMA, ("predict", "probability"), max_rows=max_rows)


def test_columns_arrive_as_they_were_sent() -> None:
    request = read(body(id="a1", parameters={"x": 1}))
    assert (request.id, request.rows, request.outputs) == ("a1", 2, ())
    assert request.columns == {
        "age": [1.5, None],
        "member": [True, None],
        "region": ["a", None],
        "plan": [3, None],
        "vip": [False, None],
    }


@pytest.mark.parametrize(
    "tensor",
    [
        {"shape": [2, 1], "data": [[1], [2]]},
        {"shape": [2, 1], "data": [1, 2]},
        {"shape": [2], "data": [1, 2], "datatype": "INT32"},
        {"shape": [2], "data": [1.0, 2.0], "datatype": "INT64"},
        {"shape": [2], "data": [1, 2], "datatype": "UINT8"},
        {"shape": [2], "data": [1, 2], "datatype": "FP32"},
        {"shape": [2, 1], "data": [[1], [2]], "parameters": {"content_type": "np"}},
    ],
)
def test_lossless_variants_of_a_numeric_column_are_the_same(tensor: dict[str, Any]) -> None:
    assert read(changed("age", **tensor)).columns["age"] == [1.0, 2.0]


def test_an_output_filter_keeps_its_order() -> None:
    request = read(body(outputs=[{"name": "probability"}, {"name": "predict"}]))
    assert request.outputs == ("probability", "predict")


def without(name: str) -> dict[str, Any]:
    request = body()
    request["inputs"] = [t for t in request["inputs"] if t["name"] != name]
    return request


def renamed() -> dict[str, Any]:
    request = body()
    request["inputs"][2]["name"] = "regoin"
    return request


def doubled() -> dict[str, Any]:
    request = body()
    request["inputs"].append(request["inputs"][0])
    return request


@pytest.mark.parametrize(
    ("request_of", "message"),
    [
        (lambda: b"{nope", r"^body: must be JSON, got .*null for missing"),
        (lambda: b'{"inputs": [NaN]}', r"^body: must be JSON"),
        (lambda: [1], r"^body: must be a JSON object, got \[1\]"),
        (lambda: {}, r"^inputs: must be a list of tensors, got None"),
        (lambda: {"inputs": []}, r"^inputs: must be a list of tensors"),
        (lambda: body(id=7), r"^id: must be a string, got 7"),
        (lambda: body(parameters=[1]), r"^parameters: must be an object"),
        (lambda: {"inputs": [3]}, r"^inputs\[0\]: must be an object, got 3"),
        (lambda: {"inputs": [{"name": 3}]}, r"^inputs\[0\]\.name: must be a string, got 3"),
        (lambda: without("age"), r"5 features of the model, got missing 'age'"),
        (renamed, r"missing 'region'; unknown 'regoin' \(did you mean 'region'\?\)"),
        (doubled, r"^input 'age': must be there once, got it twice"),
        (
            lambda: changed("age", shape=[2, 3]),
            r"^input 'age': must have shape \[rows\] or \[rows, 1\]",
        ),
        (lambda: changed("age", shape=[-1]), r"^input 'age': must have shape"),
        (lambda: changed("age", shape=[True]), r"^input 'age': must have shape"),
        (lambda: changed("age", shape=None), r"^input 'age': must have shape .* got None"),
        (lambda: changed("age", shape=[3]), r"as many rows as the others, got 2 where 'age' has 3"),
        (lambda: changed("age", data=[1]), r"as many values as its shape \[2\] says, got 1"),
        (lambda: changed("age", data=None), r"^input 'age': must have a list as data, got None"),
        (
            lambda: changed("age", shape=[2, 1], data=[[1], [2, 3]]),
            r"one value per row in nested data",
        ),
        (lambda: changed("age", data=[[1], [2]]), r"must hold FP64 values, got \[1\] in row 0"),
        (lambda: changed("age", data=[1, "2"]), r"must hold FP64 values, got '2' in row 1"),
        (lambda: changed("age", data=[1, True]), r"must hold FP64 values, got True in row 1"),
        (
            lambda: changed("age", datatype="BYTES", data=["1", "2"]),
            r"^input 'age': must have datatype FP64, got BYTES",
        ),
        (
            lambda: changed("age", datatype="FP99"),
            r"^input 'age': must have a datatype, got 'FP99'",
        ),
        (lambda: changed("age", datatype="INT8", data=[1, 300]), r"INT8 values, got 300 in row 1"),
        (lambda: changed("age", datatype="UINT8", data=[-1, 3]), r"UINT8 values, got -1 in row 0"),
        (
            lambda: changed("age", datatype="INT64", data=[1, 2.5]),
            r"INT64 values, got 2.5 in row 1",
        ),
        (lambda: changed("age", datatype="FP32", data=[1, 1e300]), r"FP32 values, got 1e\+300"),
        (lambda: changed("age", parameters="x"), r"^input 'age': parameters: must be an object"),
        (lambda: changed("age", parameters={"binary_data_size": 16}), r"binary data"),
        (
            lambda: changed("region", datatype="INT64", data=[1, 2]),
            r"^input 'region': must have datatype BYTES, got INT64",
        ),
        (
            lambda: changed("plan", datatype="FP64", data=[1.5, 2]),
            r"^input 'plan': must hold whole numbers \(a category\), got 1.5 in row 0",
        ),
        (lambda: body(outputs={"name": "predict"}), r"^outputs: must be a list"),
        (lambda: body(outputs=["predict"]), r"^outputs\[0\]: must be an object with a name"),
        (
            lambda: body(outputs=[{"name": "predct"}]),
            r"one of 'predict', 'probability', got 'predct' \(did you mean 'predict'\?\)",
        ),
        (lambda: body(outputs=[{"name": "predict"}] * 2), r"asked for once, got it twice"),
    ],
)
def test_what_is_wrong_is_said(request_of: Callable[[], Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        read(request_of())
    assert caught.value.status == 400


def test_rows_are_bounded_below_and_above() -> None:
    empty = body()
    for tensor in empty["inputs"]:
        tensor |= {"shape": [0], "data": []}
    with pytest.raises(RequestError, match="at least one row"):
        read(empty)
    with pytest.raises(RequestError, match="at most 1 rows, got 2"):
        read(body(), max_rows=1)


def test_a_long_wrong_value_is_cut() -> None:
    with pytest.raises(RequestError) as caught:
        read(changed("age", data=["x" * 100_000, 1]))
    assert len(str(caught.value)) < 400
