"""The compiled check against the careful one: the same request, or the same words."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from include.serving.columns import Schema
from include.serving.compiled import Compiled
from include.serving.rejection import RequestError
from include.serving.tensors import InferRequest, check_infer, read_json
from tests.unit.serving.registry import CHURN, FEATURES, TYPES
from tests.unit.serving.test_fuzz import ANYTHING, TENSORS, nearly_right

SCHEMA = Schema(FEATURES, TYPES, str(CHURN["key"]), str(CHURN["time"]))
OUTPUTS = ("predict", "probability")
COMPILED = Compiled(SCHEMA, OUTPUTS)


def outcome(read: Any) -> Any:
    try:
        request: InferRequest = read()
    except RequestError as error:
        return str(error)
    said = (request.id, request.columns, request.rows, request.outputs, request.identity)
    return (*said, request.routing_key)


def same(request: Any) -> None:
    body = orjson.dumps(request)
    careful = outcome(lambda: check_infer(read_json(body), SCHEMA, OUTPUTS, max_rows=3))
    quick = outcome(lambda: COMPILED.read(body, max_rows=3))
    assert quick == careful
    # 1, 1.0 and True are equal, but not the same to a category
    assert repr(quick) == repr(careful)


def tensor(name: str, datatype: str, *data: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": list(data)} | more


def request(*changed: dict[str, Any], **more: Any) -> dict[str, Any]:
    tensors = {
        "age": tensor("age", "FP64", 30),
        "income": tensor("income", "FP64", 1000.5),
        "member": tensor("member", "BOOL", True),
        "region": tensor("region", "BYTES", "north"),
        "plan": tensor("plan", "BYTES", None),
    }
    named = tensors | {str(each["name"]): each for each in changed}
    return {"inputs": list(named.values())} | more


@settings(max_examples=400, deadline=None)
@given(request=nearly_right() | st.fixed_dictionaries({"inputs": st.lists(TENSORS)}) | ANYTHING)
@example(request=request())
@example(request=request(parameters={"routing_key": "c1"}, id="a"))
@example(request=request(parameters={"routing_key": 7}))
@example(request=request(parameters={"binary_data_size": 7}))
@example(request=request(tensor("age", "FP64", 30, shape=[True])))
@example(request=request(tensor("age", "FP64", 30, shape=[1.0])))
@example(request=request(tensor("region", "BYTES", "x", data={"x": 1})))
@example(request=request(tensor("region", "BYTES", "x", data="x")))
@example(request=request(tensor("customer", "INT64", 7), tensor("seen_at", "BYTES", "soon")))
@example(request=request(tensor("customer", "BYTES", "c"), tensor("seen_at", "FP64", 1.5e9)))
@example(request={"inputs": [tensor("age", "FP64", 1), tensor("age", "FP64", 1)]})
@example(request=["id", "inputs"])
def test_both_say_the_same(request: Any) -> None:
    same(request)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_well_formed_request_takes_the_short_way(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careful(*_: Any, **__: Any) -> None:
        raise AssertionError("the careful check was needed")

    monkeypatch.setattr("include.serving.compiled.check_infer", careful)
    body = request(id="a", parameters={"routing_key": "k"})
    for each in [*body["inputs"], beside := tensor("customer", "BYTES", "c1")]:
        each.update(shape=[rows], data=each["data"] * rows)
    body["inputs"].append(beside)
    read = COMPILED.read(orjson.dumps(body), max_rows=3)
    assert (read.rows, read.routing_key, read.identity.keys) == (rows, "k", ["c1"] * rows)
    assert read.values == ((30, 1000.5, True, "north", None) if rows == 1 else None)


def test_too_many_rows_are_refused_in_the_careful_words() -> None:
    many = request()
    for each in many["inputs"]:
        each.update(shape=[4], data=each["data"] * 4)
    same(many)
    with pytest.raises(RequestError, match="at most 3 rows, got 4"):
        COMPILED.read(orjson.dumps(many), max_rows=3)
