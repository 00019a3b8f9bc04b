"""The OpenAPI document: valid, about what is served now, and only what the caller may see; the page and its assets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from include.serving.app import create_app
from include.serving.follower import Follower
from include.serving.openapi import build_document
from include.serving.telemetry import Metrics
from tests.unit.serving.registry import CHURN, COLOUR, PRICE, MemoryRegistry, wait_for
from tests.unit.serving.test_access import World, key

ROW = {"age": 30, "income": None, "member": True, "region": "north", "plan": "1"}


def schema_of(document: dict[str, Any], path: str, *where: str) -> Draft202012Validator:
    node = document["paths"][path]
    for step in where:
        node = node[step]
    whole = {**node["content"]["application/json"]["schema"], "components": document["components"]}
    return Draft202012Validator(whole)


def test_it_is_a_valid_document(served: TestClient) -> None:
    answer = served.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"] == "3.1.0"
    assert "security" not in document
    assert "securitySchemes" not in document["components"]
    assert {"/predict/churn", "/predict/price", "/v2/models/colour/infer"} <= document[
        "paths"
    ].keys()
    versions = document["paths"]["/v2/models/churn/versions/{version}/infer"]["parameters"]
    assert versions[0]["schema"]["enum"] == ["3", "4"]


def test_every_path_is_there(served: TestClient) -> None:
    for path, item in served.get("/openapi.json").json()["paths"].items():
        for method in item.keys() - {"parameters"}:
            status = served.request(method, path.replace("{version}", "3")).status_code
            assert status not in (404, 405) or "/versions/" in path, (method, path)


@pytest.mark.parametrize("model", ["churn", "price", "colour"])
def test_answers_are_as_described(served: TestClient, model: str) -> None:
    document = served.get(f"/openapi.json?model={model}").json()
    example = served.get(f"/v2/models/{model}/example").json()
    infer = f"/v2/models/{model}/infer"
    schema_of(document, infer, "post", "requestBody").validate(example)
    schema_of(document, infer, "post", "responses", "200").validate(
        served.post(infer, json=example).json()
    )
    predict = f"/predict/{model}"
    for body in (ROW, {"rows": [ROW, ROW]}):
        schema_of(document, predict, "post", "requestBody").validate(body)
        answer = served.post(predict, json=body)
        assert answer.status_code == 200, answer.text
        schema_of(document, predict, "post", "responses", "200").validate(answer.json())
    for path in (f"/v2/models/{model}", f"/v2/models/{model}/ready"):
        schema_of(document, path, "get", "responses", "200").validate(served.get(path).json())
    wrong = served.post(predict, json={**ROW, "age": "x"})
    schema_of(document, predict, "post", "responses", "400").validate(wrong.json())


def test_examples_work(served: TestClient) -> None:
    document = served.get("/openapi.json?model=churn").json()
    for path in ("/predict/churn", "/models/churn/invocations", "/v2/models/churn/labels"):
        body = document["paths"][path]["post"]["requestBody"]["content"]
        example = body["application/json"]["schema"]["examples"][0]
        assert served.post(path, json=example).status_code == 200, path
    text = body = document["paths"]["/models/churn/invocations"]["post"]["requestBody"]["content"]
    answer = served.post(
        "/models/churn/invocations",
        content=text["text/csv"]["example"],
        headers={"Content-Type": "text/csv"},
    )
    assert answer.status_code == 200, answer.text


def test_one_model(served: TestClient) -> None:
    document = served.get("/openapi.json?model=price").json()
    assert "/predict/price" in document["paths"]
    assert "/predict/churn" not in document["paths"]
    assert served.get("/openapi.json?model=prize").status_code == 404


def test_the_page_brings_all_it_needs(served: TestClient) -> None:
    page = served.get("/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http-equiv", "")
    for name in (
        "swagger-ui-bundle.js",
        "swagger-ui.css",
        "docs.js",
        "docs.css",
        "favicon-32x32.png",
    ):
        assert f"docs/{name}" in page.text
        asset = served.get(f"/docs/{name}")
        assert asset.status_code == 200
        assert len(asset.content) > 100
        assert asset.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "index.html",
        "swagger-ui.js.map",
        "..%2fdocs.py",
        "../docs.py",
        "%2e%2e/docs.py",
        "docs.html",
    ],
)
def test_no_other_file_is_there(served: TestClient, path: str) -> None:
    assert served.get(f"/docs/{path}").status_code == 404


def test_odd_names_and_many_models(served: TestClient, engine: Any) -> None:
    class One:
        def __init__(self, name: str) -> None:
            self.name, self.engines = name, (engine,)

    names = ["a b", "a-b", "ä/ö", "x{y}", "%", "..", "a" * 256]
    document = build_document([(One(name), engine) for name in names], keys=True, left_out=3)
    OpenAPIV31SpecValidator(document).validate()
    assert "/predict/a%20b" in document["paths"]
    assert "/predict/x%7By%7D" in document["paths"]
    assert "3 more models" in document["info"]["description"]


@pytest.fixture
def guarded(tmp_path: Path, pipelines: dict[str, Any]) -> Iterator[tuple[World, TestClient, Any]]:
    registry = MemoryRegistry(tmp_path / "registry")
    for name, meta in (("churn", CHURN), ("price", PRICE), ("colour", COLOUR)):
        registry.add(name, "1", meta, pipelines[name])
        registry.set(name, "champion", "1")
    metrics, world = Metrics(), World(tmp_path)
    follower = Follower(registry, tmp_path / "models", metrics, poll_seconds=0.1)
    access = world.access(required=True)
    with TestClient(create_app(follower, metrics, access=access)) as client:
        wait_for(lambda: follower.ready)
        yield world, client, access


def test_with_keys_it_shows_only_what_the_key_is_for(guarded: Any) -> None:
    world, client, access = guarded
    _, part = world.add("churn")
    _, whole = world.add()
    access.refresh()
    assert client.get("/docs").status_code == 200, "the page itself says nothing"
    assert client.get("/docs/docs.js").status_code == 200
    assert client.get("/openapi.json").status_code == 401
    document = client.get("/openapi.json", headers=key(part)).json()
    OpenAPIV31SpecValidator(document).validate()
    assert document["security"] == [{"bearer": []}, {"header": []}]
    assert document["paths"]["/v2/health/live"]["get"]["security"] == []
    assert "401" in document["paths"]["/predict/churn"]["post"]["responses"]
    assert "price" not in client.get("/openapi.json", headers=key(part)).text
    assert client.get("/openapi.json?model=price", headers=key(part)).status_code == 403
    assert "/predict/price" in client.get("/openapi.json", headers=key(whole)).json()["paths"]
