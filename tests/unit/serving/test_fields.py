"""Named fields: what is taken, what is refused and how, and the answer's form."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from include.serving.columns import Schema
from include.serving.engine import Prediction
from include.serving.fields import answer_fields, read_fields
from include.serving.rejection import RequestError
from tests.unit.serving.registry import FEATURES, TYPES

SCHEMA = Schema(FEATURES, TYPES, "customer", "seen_at")
ROW = {"age": 30, "income": None, "member": True, "region": "north", "plan": "1"}


def read(body: Any, schema: Schema = SCHEMA) -> Any:
    return read_fields(orjson.dumps(body), schema, max_rows=3)


def test_one_row() -> None:
    found = read(ROW)
    assert (found.rows, found.many) == (1, False)
    assert list(found.columns["region"]) == ["north"]
    assert list(found.columns["age"]) == [30]
    assert found.identity.keys is None


def test_rows_with_key_and_time() -> None:
    row = ROW | {"customer": 7, "seen_at": "2026-01-31T12:00:00Z"}
    found = read({"rows": [row, row | {"customer": None}]})
    assert (found.rows, found.many) == (2, True)
    assert found.identity.keys == ["7", None]
    assert found.identity.times == [1769860800000000] * 2


def test_a_key_in_some_rows_is_missing_in_the_others() -> None:
    assert read({"rows": [ROW, ROW | {"customer": 7}]}).identity.keys == [None, "7"]


def test_a_feature_may_be_called_rows() -> None:
    features = type(FEATURES)(("rows",), ())
    found = read({"rows": 4}, Schema(features, {"rows": "int"}))
    assert (list(found.columns["rows"]), found.many) == ([4], False)
    assert read({"rows": [{"rows": 4}]}, Schema(features, {"rows": "int"})).many


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([ROW], "body: must be a JSON object"),
        ({}, "missing 'age', 'income', 'member', 'region', 'plan'"),
        (
            {k: v for k, v in ROW.items() if k != "plan"},
            "fields: must be the 5 features of the model, got missing 'plan'. Send every feature, null",
        ),
        ({**ROW, "rgion": "x"}, "unknown 'rgion' (did you mean 'region'?)"),
        (
            {("regoin" if k == "region" else k): v for k, v in ROW.items()},
            "missing 'region'; unknown 'regoin' (did you mean 'region'?)",
        ),
        ({**ROW, "age": "30"}, "field 'age': must hold a number or null"),
        ({**ROW, "age": [30]}, "field 'age': must hold a number or null"),
        ({**ROW, "plan": 1.5}, "field 'plan': must hold whole numbers"),
        ({**ROW, "customer": {}}, "field 'customer': must be text or a number"),
        ({"rows": []}, "rows: must be 1 to 3, got 0"),
        ({"rows": [ROW] * 4}, "rows: must be 1 to 3, got 4"),
        ({"rows": [ROW, 5]}, "rows[1]: must be an object of fields, got 5"),
        ({"rows": [ROW], "age": 1}, "must have nothing beside rows, got 'age'"),
        ({"rows": [ROW | {"x": 1}] * 2}, "rows[0]: must be the 5 features"),
    ],
)
def test_what_is_refused(body: Any, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(body)
    assert said in str(caught.value)
    assert caught.value.status == 400


def test_the_answer_to_one_row() -> None:
    prediction = Prediction(["yes"], np.array([[0.25, 0.75]]))
    answer = answer_fields("churn", "3", prediction, ("no", "yes"), request_id="r", many=False)
    assert answer == {
        "model": "churn",
        "version": "3",
        "prediction": "yes",
        "probability": {"no": 0.25, "yes": 0.75},
        "request_id": "r",
    }


def test_the_answer_to_rows() -> None:
    prediction = Prediction([True, False], np.array([[0.25, 0.75], [1.0, 0.0]]))
    answer = answer_fields("churn", "3", prediction, (False, True), request_id="r", many=True)
    assert answer["predictions"] == [
        {"prediction": True, "probability": {"false": 0.25, "true": 0.75}},
        {"prediction": False, "probability": {"false": 1.0, "true": 0.0}},
    ]
    assert "prediction" not in answer


def test_a_regression_has_no_probability() -> None:
    answer = answer_fields("price", "1", Prediction([1.5], None), (), request_id="r", many=False)
    assert answer == {"model": "price", "version": "1", "prediction": 1.5, "request_id": "r"}
