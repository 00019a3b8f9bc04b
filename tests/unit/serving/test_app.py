from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from include.engines import pipeline
from include.serving.app import create_app
from include.serving.follower import Follower
from include.serving.predictions import Limits
from include.serving.telemetry import Metrics
from include.store.features import model_frame
from tests.unit.serving.registry import CHURN, EXAMPLE, MemoryRegistry, wait_for

JSON = {"Content-Type": "application/json"}


def example(served: TestClient, model: str = "churn") -> dict[str, Any]:
    body: dict[str, Any] = served.get(f"/v2/models/{model}/example").json()
    return body


def error(answer: Any) -> str:
    """The one error form: an object with one text."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    return str(body["error"])


def test_server_metadata_and_health(served: TestClient) -> None:
    assert set(served.get("/v2").json()) == {"name", "version", "extensions"}
    for path in ("/v2/health/live", "/v2/health/ready", "/ping", "/health"):
        answer = served.get(path)
        assert (answer.status_code, answer.json()) == (200, {"live": True, "ready": True})


def test_model_metadata(served: TestClient) -> None:
    body = served.get("/v2/models/churn").json()
    assert (body["name"], body["versions"], body["platform"]) == (
        "churn",
        ["3", "4"],
        "sklearn_skops",
    )
    assert {"name": "age", "datatype": "FP64", "shape": [-1]} in body["inputs"]
    assert [output["name"] for output in body["outputs"]] == ["predict", "probability"]
    assert body["parameters"]["champion"] == body["parameters"]["version"] == "3"
    challenger = served.get("/v2/models/churn/versions/4").json()
    assert challenger["parameters"]["version"] == "4"
    assert {m["name"] for m in served.get("/v2/models").json()["models"]} == {
        "churn",
        "price",
        "colour",
    }


def test_model_ready(served: TestClient) -> None:
    body = served.get("/v2/models/churn/ready").json()
    assert (body["name"], body["ready"]) == ("churn", True)
    assert served.get("/v2/models/churn/versions/4/ready").json()["version"] == "4"
    absent = served.get("/v2/models/churn/versions/9/ready")
    assert absent.status_code == 404
    assert absent.json()["ready"] is False


@pytest.mark.parametrize(("model", "version"), [("churn", "3"), ("price", "1"), ("colour", "1")])
def test_the_example_is_a_ready_made_request(served: TestClient, model: str, version: str) -> None:
    answer = served.post(f"/v2/models/{model}/infer", json=example(served, model) | {"id": "q-7"})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model_name"], body["model_version"], body["id"]) == (model, version, "q-7")
    predict = body["outputs"][0]
    assert (predict["name"], predict["shape"], len(predict["data"])) == ("predict", [3], 3)
    if model == "price":
        assert len(body["outputs"]) == 1
        return
    probability = body["outputs"][1]
    rows, classes = probability["shape"]
    assert (rows, classes * rows) == (3, len(probability["data"]))
    assert sum(probability["data"]) == pytest.approx(3)


def test_an_id_is_only_echoed(served: TestClient) -> None:
    assert "id" not in served.post("/v2/models/churn/infer", json=example(served)).json()


def test_a_challenger_answers_at_its_own_path_only(served: TestClient) -> None:
    body = example(served)
    own = served.post("/v2/models/churn/versions/4/infer", json=body).json()
    champion = served.post("/v2/models/churn/infer", json=body).json()
    assert (own["model_version"], champion["model_version"]) == ("4", "3")
    assert own["outputs"] != champion["outputs"]


def test_the_output_filter(served: TestClient) -> None:
    body = example(served) | {"outputs": [{"name": "probability"}]}
    outputs = served.post("/v2/models/churn/infer", json=body).json()["outputs"]
    assert [output["name"] for output in outputs] == ["probability"]


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v2/models/chrn", 404, "got 'chrn' (did you mean 'churn'?). Served are"),
        ("GET", "/v2/models/chrn/ready", 404, "did you mean"),
        ("POST", "/v2/models/chrn/infer", 404, "did you mean"),
        ("GET", "/v2/models/churn/versions/9", 404, "served are '3', '4'"),
        ("POST", "/v2/models/churn/versions/9/infer", 404, "served are '3', '4'"),
        ("POST", "/models/nobody/invocations", 404, "must be one that is served"),
        ("POST", "/invocations", 400, "must be named where 3 models are served"),
        ("POST", "/invocations?model=nobody", 404, "must be one that is served"),
        ("GET", "/v2/nothing", 404, "path: must be one of the API, got /v2/nothing"),
        ("GET", "/v2/models/churn/infer", 405, "method: must fit the path, got GET"),
        ("DELETE", "/v2", 405, "method: must fit the path, got DELETE"),
    ],
)
def test_errors_have_one_form(
    served: TestClient, method: str, path: str, status: int, message: str
) -> None:
    answer = served.request(method, path, headers=JSON, content=b"{}" if method == "POST" else None)
    assert answer.status_code == status
    assert message in error(answer)


def test_a_wrong_request_gets_400_in_the_error_form(served: TestClient) -> None:
    answer = served.post("/v2/models/churn/infer", content=b"nope", headers=JSON)
    assert answer.status_code == 400
    assert "must be JSON" in error(answer)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Content-Type": "text/plain"}, "must be application/json, got text/plain"),
        ({"Content-Type": "application/octet-stream"}, "must be application/json"),
        (JSON | {"Content-Encoding": "gzip"}, "Content-Encoding: must be identity, got gzip"),
    ],
)
def test_unsupported_media(served: TestClient, headers: dict[str, str], message: str) -> None:
    answer = served.post("/v2/models/churn/infer", content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert message in error(answer)


def test_too_many_bytes_and_rows(served: TestClient) -> None:
    large = served.post("/v2/models/churn/infer", content=b" " * 200_001, headers=JSON)
    assert large.status_code == 413
    assert "at most 200000 bytes" in error(large)
    streamed = served.post(
        "/v2/models/churn/infer", content=(b" " * 50_000 for _ in range(5)), headers=JSON
    )
    assert streamed.status_code == 413
    many = {name: values[:1] * 501 for name, values in EXAMPLE.items()}
    rows = served.post("/models/churn/invocations", json={"inputs": many})
    assert rows.status_code == 400
    assert "must be 1 to 500, got 501" in error(rows)


def test_invocations(served: TestClient) -> None:
    body = {"dataframe_split": {"columns": list(EXAMPLE), "data": [[30, 1000.5, 1, "north", "1"]]}}
    expected = served.post("/models/churn/invocations", json=body)
    assert expected.status_code == 200
    assert expected.json() == {"predictions": ["no"]}
    by_query = served.post("/invocations?model=churn", json=body)
    by_header = served.post("/invocations", json=body, headers={"X-Model-Name": "churn"})
    assert by_query.json() == by_header.json() == expected.json()
    text = "age,income,member,region,plan\n30,1000.5,1,north,1\n"
    csv = served.post(
        "/invocations?model=churn",
        content=text,
        headers={"Content-Type": "text/csv; charset=utf-8"},
    )
    assert csv.json() == expected.json()


def test_metrics_count_requests_and_loads(served: TestClient) -> None:
    served.post("/v2/models/price/infer", json=example(served, "price"))
    served.post("/v2/models/<script>/infer", json={})
    page = served.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert (
        'evergreen_serving_requests_total{arm="champion",model="price",route="infer",status="200",version="1"}'
        in page.text
    )
    assert 'evergreen_serving_loads_total{model="churn",outcome="loaded"} 2.0' in page.text
    assert 'evergreen_serving_champion_info{model="churn",version="3"} 1.0' in page.text
    assert "script" not in page.text


def test_one_request_too_many_is_told_to_wait(
    registry: MemoryRegistry,
    pipelines: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry.add("churn", "1", CHURN, pipelines["churn"])
    registry.set("churn", "champion", "1")
    metrics, go_on = Metrics(), threading.Event()
    follower = Follower(registry, tmp_path / "cache", metrics, poll_seconds=0.05)
    with TestClient(create_app(follower, metrics, limits=Limits(pending=1, inline_ms=0))) as client:
        wait_for(lambda: follower.ready)
        body = example(client)

        def slow(*given: Any) -> Any:
            go_on.wait(10)
            return model_frame(*given)

        monkeypatch.setattr(pipeline, "model_frame", slow)
        results: list[Any] = []

        def ask() -> None:
            results.append(client.post("/invocations", json={"inputs": EXAMPLE}))

        first = threading.Thread(target=ask)
        first.start()
        wait_for(lambda: "evergreen_serving_pending 1.0" in client.get("/metrics").text)
        refused = client.post("/v2/models/churn/infer", json=body)
        go_on.set()
        first.join(10)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert "fewer than 1 requests waiting" in error(refused)
    assert results[0].status_code == 200


def test_the_readmes_curl_lines_need_no_content_type(served: TestClient) -> None:
    """`curl -d @-` sends the type of a form; the documented pipe of `example` into `infer` must work."""
    request = served.get("/v2/models/churn/example").content
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (
        served.post("/v2/models/churn/infer", content=request, headers=headers).status_code == 200
    )
    answer = served.post("/v2/models/churn/infer", content=b"tenure=3", headers=headers)
    assert answer.status_code == 400
