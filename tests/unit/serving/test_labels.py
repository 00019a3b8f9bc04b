from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from include.errors import ServiceError
from include.serving.app import create_app
from include.serving.follower import Follower
from include.serving.limits import Limits
from include.serving.telemetry import Metrics
from include.store.labels import read_labels
from tests.unit.serving.log_world import ALWAYS, World
from tests.unit.serving.registry import CHURN, MemoryRegistry, wait_for
from tests.unit.serving.test_fuzz import ANYTHING, QUIET, SCALARS

PATH = "/v2/models/churn/labels"


@pytest.fixture
def world(tmp_path: Path, pipelines: dict[str, Any]) -> World:
    return World(tmp_path, pipelines)


def stored(world: World, model: str = "churn") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_labels(world.store, model, ALWAYS[0]).to_pylist()
    return sorted(rows, key=lambda row: (str(row["request_id"]), row["row"] or 0))


def post(client: TestClient, *labels: Any, model: str = "churn") -> Any:
    return client.post(f"/v2/models/{model}/labels", json={"labels": labels})


# --- what is taken --------------------------------------------------------------------------------------


def test_labels_are_stored_when_they_are_answered(world: World) -> None:
    before = datetime.now(UTC)
    with world.serve() as client:
        answer = post(
            client,
            {"request_id": "q-1", "label": "yes"},
            {"request_id": "q-1", "row": 1, "label": "no"},
            {"key": 7, "time": "2024-05-06T07:08:09Z", "label": "no"},
            {"key": "c8", "time": None, "label": "yes"},
        )
        assert (answer.status_code, answer.json()) == (200, {"accepted": 4})
        rows = stored(world)  # serving still runs: nothing waits in memory
        assert 'evergreen_serving_labels_total{model="churn"} 4.0' in client.get("/metrics").text
    named = {(r["request_id"], r["row"], r["key"], r["time"], r["label"]) for r in rows}
    assert named == {
        ("q-1", 0, None, None, "yes"),
        ("q-1", 1, None, None, "no"),
        (None, None, "7", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC), "no"),
        (None, None, "c8", None, "yes"),
    }
    assert all(before <= row["received_at"] <= datetime.now(UTC) for row in rows)


def test_a_batch_sent_again_changes_nothing(world: World) -> None:
    with world.serve() as client:
        for _ in range(3):
            assert post(client, {"request_id": "q", "label": "yes"}).json() == {"accepted": 1}
            assert len(list(world.store.list("labels/"))) == 1
        post(client, {"request_id": "q", "label": "no"})
    assert [row["label"] for row in stored(world)] == ["no"]


def test_a_label_is_set_back_by_a_batch_with_a_name(world: World) -> None:
    with world.serve() as client:
        post(client, {"request_id": "q", "label": "yes"})
        post(client, {"request_id": "q", "label": "no"})
        post(client, {"request_id": "q", "label": "yes"})  # the first one, delivered late
        assert [row["label"] for row in stored(world)] == ["no"]
        back = {"labels": [{"request_id": "q", "label": "yes"}], "batch": "2026-02"}
        for _ in range(2):
            assert client.post(PATH, json=back).json() == {"accepted": 1}
        assert client.post(PATH, json=back | {"batch": 5}).status_code == 400
    assert [row["label"] for row in stored(world)] == ["yes"]
    assert len(list(world.store.list("labels/"))) == 3


def test_the_days_of_a_batch_are_limited(world: World) -> None:
    with world.serve() as client:
        many = [{"key": "k", "time": 86_400 * n, "label": "no"} for n in range(401)]
        answer = post(client, *many)
        assert answer.status_code == 400
        assert "labels: must lie on at most 400 different days" in answer.json()["error"]


def test_a_label_meets_its_prediction(world: World) -> None:
    with world.serve() as client:
        body = client.get("/v2/models/churn/example").json()
        named = client.post("/v2/models/churn/infer", json=body).headers["x-request-id"]
        post(client, {"request_id": named, "row": 2, "label": "yes"})
    predictions = {(row["_request_id"], row["_row"]) for row in world.log()}
    (label,) = stored(world)
    assert (label["request_id"], label["row"]) in predictions


@pytest.mark.parametrize(
    ("model", "label", "text"),
    [
        ("churn", "yes", "yes"),
        ("colour", 7, "7"),
        ("colour", 7.0, "7"),
        ("colour", "7", "7"),
        ("price", 3, "3.0"),
        ("price", -0.125, "-0.125"),
        ("price", 1e300, "1e+300"),
    ],
)
def test_labels_of_each_task(world: World, model: str, label: Any, text: str) -> None:
    with world.serve() as client:
        answer = post(client, {"key": "k", "label": label}, model=model)
        assert answer.status_code == 200, answer.text
    assert [row["label"] for row in stored(world, model)] == [text]


# --- what is refused ------------------------------------------------------------------------------------

ONE = {"request_id": "q", "label": "yes"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "body: must be an object with labels and, where wanted, batch, got []. Send {"),
        ({}, "body: must be an object with labels and, where wanted, batch"),
        ({"labels": [ONE], "more": 1}, "got the keys 'labels', 'more'"),
        ({"labels": []}, "labels: must be a list with at least one label, got []"),
        ({"labels": {}}, "labels: must be a list"),
        ({"labels": [ONE] * 501}, "labels: must be at most 500, got 501"),
        ({"labels": [ONE, 3]}, "labels[1]: must be an object, got 3"),
        ({"labels": [{"label": "yes"}]}, "must have either request_id or key, got neither"),
        ({"labels": [{**ONE, "key": 1}]}, "must have either request_id or key, got both"),
        ({"labels": [{**ONE, "rwo": 1}]}, "got 'rwo' (did you mean 'row'?)"),
        (
            {"labels": [{**ONE, "time": 1}]},
            "must have only 'label', 'request_id', 'row', got 'time'",
        ),
        ({"labels": [{"key": 1, "row": 1, "label": "no"}]}, "got 'row'"),
        ({"labels": [{**ONE, "row": -1}]}, "labels[0].row: must be a whole number from 0, got -1"),
        ({"labels": [{**ONE, "row": True}]}, "row: must be a whole number from 0, got True"),
        ({"labels": [{**ONE, "row": 2**31}]}, "row: must be a whole number"),
        ({"labels": [{**ONE, "request_id": ""}]}, "labels[0].request_id: must be text, got ''"),
        ({"labels": [{**ONE, "request_id": 5}]}, "request_id: must be text, got 5"),
        ({"labels": [{**ONE, "request_id": "x" * 300}]}, "must have at most 256 characters"),
        ({"labels": [{"request_id": "q"}]}, "must be a class of the model ('no', 'yes'), got None"),
        (
            {"labels": [{**ONE, "label": "maybe"}]},
            "('no', 'yes'), got 'maybe'. Send the true class",
        ),
        ({"labels": [{**ONE, "label": [1]}]}, "must be a class of the model"),
        ({"labels": [{"key": [], "label": "no"}]}, "labels[0].key: must be text or a number"),
        ({"labels": [{"key": "", "label": "no"}]}, "labels[0].key: must name an entity"),
        ({"labels": [{"key": 1, "time": "x", "label": "no"}]}, "labels[0].time: must be a time"),
        (
            {"labels": [ONE, {**ONE, "label": "no"}]},
            "labels[1]: must agree with the others about this prediction",
        ),
        (
            {"labels": [{**ONE, "row": 0}, {**ONE, "label": "no"}]},
            "labels[1]: must agree with the others",
        ),
    ],
)
def test_a_bad_batch_says_what_is_wrong(served: TestClient, body: Any, message: str) -> None:
    answer = served.post(PATH, json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize("label", ['"3"', "true", "null", "1e400", "1" * 400, "NaN", "[1]"])
def test_a_regression_wants_finite_numbers(served: TestClient, label: str) -> None:
    answer = served.post(
        "/v2/models/price/labels",
        content=f'{{"labels": [{{"key": "k", "label": {label}}}]}}',
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 400
    assert "must be a finite number" in answer.text or "must be JSON" in answer.text


def test_one_bad_label_stores_none(world: World) -> None:
    with world.serve() as client:
        assert post(client, ONE, {**ONE, "row": 1, "label": "maybe"}).status_code == 400
    assert stored(world) == []


def test_who_is_not_served(served: TestClient) -> None:
    answer = post(served, ONE, model="chrn")
    assert answer.status_code == 404
    assert "did you mean 'churn'?" in answer.json()["error"]
    assert served.get(PATH).status_code == 405


def test_limits_as_elsewhere(served: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    large = served.post(PATH, content=b" " * 200_001, headers=headers)
    assert large.status_code == 413
    assert (
        served.post(PATH, content=b"a,b", headers={"Content-Type": "text/csv"}).status_code == 415
    )


# --- the store ------------------------------------------------------------------------------------------


def test_a_store_that_is_away_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> int:
        raise ServiceError("s3://secret-bucket", "S3 must answer, got nothing", "Retry.")

    with world.serve() as client:
        monkeypatch.setattr("include.serving.labels.write_labels", away)
        answer = post(client, ONE)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert "labels: must be written to the store" in answer.json()["error"]
        assert "secret" not in answer.text
        monkeypatch.undo()
        assert post(client, ONE).status_code == 200


def test_without_a_store_labels_are_refused(
    registry: MemoryRegistry, pipelines: dict[str, Any], tmp_path: Path
) -> None:
    registry.add("churn", "1", CHURN, pipelines["churn"])
    registry.set("churn", "champion", "1")
    metrics = Metrics()
    follower = Follower(registry, tmp_path / "cache", metrics, poll_seconds=0.05)
    with TestClient(create_app(follower, metrics)) as client:
        wait_for(lambda: follower.ready)
        assert post(client, ONE).status_code == 503
        example_body = client.get("/v2/models/churn/example").json()
        assert client.post("/v2/models/churn/infer", json=example_body).status_code == 200


def test_a_slow_store_holds_up_no_prediction(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def slow(*_: Any, **__: Any) -> int:
        go_on.wait(20)
        return 0

    with world.serve() as client:
        monkeypatch.setattr("include.serving.labels.write_labels", slow)
        threads = [threading.Thread(target=post, args=(client, ONE)) for _ in range(4)]
        for thread in threads:
            thread.start()
        body = client.get("/v2/models/churn/example").json()
        assert client.post("/v2/models/churn/infer", json=body).status_code == 200
        assert any(thread.is_alive() for thread in threads)
        go_on.set()
        for thread in threads:
            thread.join(10)


# --- whatever is sent -----------------------------------------------------------------------------------

LABELS = st.fixed_dictionaries(
    {},
    optional={
        "request_id": st.text(max_size=5) | SCALARS,
        "row": st.integers(-1, 3) | SCALARS,
        "key": SCALARS | ANYTHING,
        "time": SCALARS | st.datetimes().map(str) | st.sampled_from(["2024-01-01", "24:00", "1e9"]),
        "label": st.sampled_from(["yes", "no", 1, 2, 7, 0.5]) | SCALARS | ANYTHING,
        "other": ANYTHING,
    },
)


@settings(parent=QUIET, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=st.fixed_dictionaries({"labels": st.lists(LABELS, max_size=3)}) | ANYTHING)
@example(request={"labels": [{"key": "k", "time": "9999-12-31T23:59:59-23:59", "label": "yes"}]})
@example(request={"labels": [{"key": "k", "time": "0001-01-01T00:00:00+23:59", "label": "yes"}]})
@example(request={"labels": [{"key": "\x00", "label": "yes"}]})
def test_whatever_is_sent(served: TestClient, request: Any) -> None:
    for model in ("churn", "price", "colour"):
        answer = served.post(
            f"/v2/models/{model}/labels",
            content=orjson.dumps(request),
            headers={"Content-Type": "application/json"},
        )
        body = answer.json()
        if answer.status_code == 200:
            assert body == {"accepted": len(request["labels"])}
        else:
            assert answer.status_code == 400, answer.text
            assert list(body) == ["error"]
            assert len(body["error"]) < 5000


@QUIET
@given(body=st.binary(max_size=60))
def test_whatever_bytes_are_sent(served: TestClient, body: bytes) -> None:
    answer = served.post(PATH, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_bodies_of_labels_count_before_they_are_read_and_must_come_in_time(
    pipelines: dict[str, Any], tmp_path: Path
) -> None:
    world = World(tmp_path, pipelines)
    limits = Limits(rows=500, pending=2, seconds=0.05)
    with world.serve(requests=limits) as client:
        statuses = asyncio.run(_stalled(client.app, 3))
        assert sorted(statuses) == [408, 408, 503]
        assert post(client, {"request_id": "q", "label": "yes"}).status_code == 200


async def _stalled(front: Any, count: int) -> list[int]:
    """Send bodies that never end, at the same time; return the answers' statuses."""
    statuses: list[int] = []

    async def one() -> None:
        parts = iter([{"type": "http.request", "body": b"{", "more_body": True}])

        async def receive() -> Any:
            part = next(parts, None)
            if part is None:
                await asyncio.get_running_loop().create_future()
            return part

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {"type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode()}
        scope |= {"headers": [], "query_string": b"", "http_version": "1.1", "root_path": ""}
        await front(scope, receive, send)

    sent = [asyncio.create_task(one()) for _ in range(count)]
    while not all(task.done() for task in sent):
        await asyncio.sleep(0.02)
        front.bodies.sweep()
    return statuses
