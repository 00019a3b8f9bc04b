"""The Open Inference Protocol as its text has it, through a client that knows nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.unit.serving.oip_client import OipClient, Refused

VALUES: dict[str, list[Any]] = {
    "age": [30, 41],
    "income": [1.5, 2.5],
    "member": [True, False],
    "region": ["north", "süd 🌱"],
    "plan": ["1", "2"],
}
TYPES = {"age": "INT32", "income": "FP32", "member": "BOOL", "region": "BYTES", "plan": "BYTES"}


@pytest.fixture
def client(served: TestClient) -> OipClient:
    return OipClient(served)


def tensors(**changes: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "shape": [2], "datatype": TYPES[name], "data": data} | changes.get(name, {})
        for name, data in VALUES.items()
    ]


def test_server(client: OipClient) -> None:
    assert client.server()["extensions"] == []
    assert client.live()
    assert client.server_ready()


def test_models_and_versions(client: OipClient) -> None:
    found = client.metadata("churn")
    assert set(found["versions"]) == {"3", "4"}
    assert [each["name"] for each in found["outputs"]] == ["predict", "probability"]
    for version in found["versions"]:
        assert client.metadata("churn", version)["name"] == "churn"
        assert client.model_ready("churn", version)
        assert client.infer("churn", tensors(), version)[0]["model_version"] == version
    assert client.model_ready("churn")
    assert not client.model_ready("churn", "99")
    for call in (client.metadata, client.model_ready):
        with pytest.raises(Refused, match="404"):
            call("nobody")
    with pytest.raises(Refused, match="404"):
        client.metadata("churn", "99")


def test_a_request_made_from_the_metadata_alone(client: OipClient) -> None:
    fill = {"FP64": 1.0, "INT64": 1, "BOOL": True, "BYTES": "x"}
    for model in ("churn", "price", "colour"):
        described = client.metadata(model)
        inputs = [
            {**each, "shape": [1], "data": [fill[each["datatype"]]]} for each in described["inputs"]
        ]
        _, outputs = client.infer(model, inputs)
        for each in described["outputs"]:
            got = outputs[each["name"]]
            assert got.datatype == each["datatype"]
            assert got.shape == tuple(1 if size == -1 else size for size in each["shape"])


def test_nested_and_flat_data_are_the_same(client: OipClient) -> None:
    _, flat = client.infer("churn", tensors())
    nested = {name: {"shape": [2, 1], "data": [[v] for v in data]} for name, data in VALUES.items()}
    column = {name: {"shape": [2, 1]} for name in VALUES}
    assert client.infer("churn", tensors(**nested))[1] == flat
    assert client.infer("churn", tensors(**column))[1] == flat


def test_ids_outputs_and_parameters(client: OipClient) -> None:
    asked = [{"name": "probability", "parameters": {"x": 1}}]
    noted = tensors(age={"parameters": {"note": "of the input"}})
    body, outputs = client.infer(
        "churn", noted, id="42", outputs=asked, parameters={"routing_key": "c-7", "other": [1]}
    )
    assert (body["id"], list(outputs)) == ("42", ["probability"])
    assert client.infer("churn", tensors(), id="")[0]["id"] == ""
    assert "id" not in client.infer("churn", tensors())[0]
    both = [{"name": "probability"}, {"name": "predict"}]
    assert list(client.infer("churn", tensors(), outputs=both)[1]) == ["probability", "predict"]


def test_missing_values_are_null(client: OipClient) -> None:
    gone = {name: {"data": [None, VALUES[name][1]]} for name in VALUES}
    _, outputs = client.infer("churn", tensors(**gone))
    whole = client.infer("churn", tensors())[1]
    assert outputs["probability"].data[2:] == whole["probability"].data[2:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"age": {"data": [1]}}, "as many values as its shape"),
        ({"age": {"data": [1, 2, 3]}}, "as many values as its shape"),
        ({"age": {"shape": [3], "data": [1, 2, 3]}}, "as many rows as the others"),
        ({"age": {"shape": [1, 2]}}, r"must have shape \[rows\]"),
        ({"age": {"shape": []}}, r"must have shape \[rows\]"),
        ({"age": {"shape": [-2]}}, r"must have shape \[rows\]"),
        ({"age": {"shape": [2.0]}}, r"must have shape \[rows\]"),
        ({"age": {"shape": [2], "data": [[1], [2]]}}, "must hold INT32 values"),
        ({"age": {"shape": [2, 1], "data": [[1, 2]]}}, "one value per row"),
        ({"age": {"datatype": "STRING"}}, "must have a datatype"),
        ({"age": {"datatype": "INT8", "data": [1, 400]}}, "must hold INT8 values, got 400"),
        ({"age": {"datatype": "UINT8", "data": [1, -1]}}, "must hold UINT8 values, got -1"),
        ({"age": {"data": [1, 2.5]}}, "must hold INT32 values, got 2.5"),
        ({"age": {"data": [1, "2"]}}, "must hold INT32 values, got '2'"),
        ({"member": {"data": [1, 0]}}, "must hold BOOL values"),
        ({"region": {"data": ["a", 1]}}, "must hold BYTES values"),
        ({"region": {"datatype": "FP64", "data": [1, 2]}}, "must have datatype BYTES"),
        ({"age": {"name": "income"}}, "must be there once, got it twice"),
        ({"age": {"name": "agee"}}, "did you mean 'age'"),
        ({"age": {"parameters": {"binary_data_size": 8}}}, "must not announce binary data"),
        ({"age": {"parameters": []}}, "must be an object"),
    ],
)
def test_what_is_refused(client: OipClient, change: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said) as caught:
        client.infer("churn", tensors(**change))
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "more",
    [
        {"outputs": [{"name": "nothing"}]},
        {"outputs": [{"name": "predict"}] * 2},
        {"outputs": {}},
        {"parameters": []},
    ],
)
def test_what_else_is_refused(client: OipClient, more: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        client.infer("churn", tensors(), **more)
    assert caught.value.status == 400
