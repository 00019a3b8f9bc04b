"""Requests while a rollout is on: who answers, what is logged, and that no caller pays for a trial."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from include.registry.rollouts import Rollout
from include.serving import trials
from include.serving.engine import Engine
from include.serving.limits import Limits
from include.serving.rejection import RequestError
from include.serving.routing import takes
from include.serving.shadow import Copy, Shadow
from include.serving.telemetry import Metrics
from tests.unit.serving.log_world import World
from tests.unit.serving.registry import wait_for

INFER = "/v2/models/churn/infer"


@pytest.fixture
def world(tmp_path: Path, pipelines: dict[str, Any]) -> World:
    return World(tmp_path, pipelines)


def roll_out(world: World, client: TestClient, mode: Any, share: float = 0.5) -> Rollout:
    rollout = Rollout("r1", "4", mode, share)
    world.registry.roll_out("churn", rollout)
    wanted = f'mode="{mode}",model="churn",version="4"}} {share}'
    wait_for(lambda: wanted in client.get("/metrics").text)
    return rollout


def ask(client: TestClient, body: dict[str, Any], **more: Any) -> Any:
    answer = client.post(INFER, json=body | more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def break_challenger(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    real = Engine.predict

    def predict(self: Engine, columns: Any) -> Any:
        if self.version == "4":
            raise error
        return real(self, columns)

    monkeypatch.setattr(Engine, "predict", predict)


@pytest.mark.parametrize("mode", ["canary", "ab"])
def test_the_challenger_answers_its_share_and_keeps_its_callers(world: World, mode: str) -> None:
    with world.serve() as client:
        body = client.get("/v2/models/churn/example").json()
        rollout = roll_out(world, client, mode)
        for number in range(40):
            key = f"customer-{number}"
            parameters = {"routing_key": key}
            expected = "4" if takes(key, rollout.id, 0.5) else "3"
            versions = {ask(client, body, parameters=parameters)["model_version"] for _ in "ab"}
            assert versions == {expected}
        named = client.post("/v2/models/churn/versions/3/infer", json=body).json()
        assert named["model_version"] == "3"
        page = client.get("/metrics").text
    arms = Counter((row["_version"], row["_arm"]) for row in world.log())
    assert set(arms) == {("3", "champion"), ("4", "challenger"), ("3", "version")}
    assert 'requests_total{arm="challenger",model="churn",route="infer"' in page
    assert 'request_seconds_count{arm="challenger",model="churn",version="4"}' in page


def test_the_key_column_routes_where_all_rows_share_a_key_else_the_id(world: World) -> None:
    with world.serve() as client:
        body = client.get("/v2/models/churn/example").json()
        rollout = roll_out(world, client, "canary")
        inside = next(f"k{n}" for n in range(99) if takes(f"k{n}", rollout.id, 0.5))
        outside = next(f"k{n}" for n in range(99) if not takes(f"k{n}", rollout.id, 0.5))
        for keys, name, version in (
            ([inside] * 3, outside, "4"),
            ([outside] * 3, inside, "3"),
            ([inside, outside, inside], outside, "3"),
            ([None] * 3, inside, "4"),
        ):
            column = {"name": "customer", "shape": [3], "datatype": "BYTES", "data": keys}
            answer = ask(client, {"inputs": [*body["inputs"], column], "id": name})
            assert answer["model_version"] == version


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (RequestError(422, "inputs", "must be finite, got nan", "?"), "422 inputs: must be finite"),
        (ZeroDivisionError("secret"), "500 ZeroDivisionError"),
    ],
)
def test_a_broken_challenger_costs_no_caller_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, logged: str
) -> None:
    with world.serve() as client:
        body = client.get("/v2/models/churn/example").json()
        roll_out(world, client, "canary", share=1.0)
        break_challenger(monkeypatch, error)
        assert ask(client, body, id="q")["model_version"] == "3"
        by_version = client.post("/v2/models/churn/versions/4/infer", json=body)
        assert by_version.status_code == (422 if isinstance(error, RequestError) else 500)
        status = by_version.status_code
        wanted = f'errors_total{{arm="challenger",model="churn",status="{status}",version="4"}} 1.0'
        assert wanted in client.get("/metrics").text
    rows = [row for row in world.log() if row["_request_id"] == "q"]
    said = Counter((row["_version"], row["_arm"], row["_error"]) for row in rows)
    assert said == {("4", "challenger", logged): 1, ("3", "champion", None): 3}


@pytest.mark.parametrize("inline_ms", [0.0, 2.0])
def test_a_challenger_that_hangs_costs_no_caller_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch, inline_ms: float
) -> None:
    monkeypatch.setattr(trials, "_PLACES", 4)
    limits = Limits(seconds=1.0, threads=2, inline_ms=inline_ms, model_pending=12)
    go_on, real = threading.Event(), Engine.predict

    def predict(self: Engine, columns: Any) -> Any:
        if self.version == "4":
            go_on.wait(20)
        return real(self, columns)

    with world.serve(requests=limits) as client, ThreadPoolExecutor(8) as callers:
        body = client.get("/v2/models/churn/example").json()
        price = client.get("/v2/models/price/example").json()
        rollout = roll_out(world, client, "canary", share=0.1)
        monkeypatch.setattr(Engine, "predict", predict)
        inside = [key for key in map(str, range(999)) if takes(key, rollout.id, 0.1)]
        asked = [*inside[:8], *map(str, range(100)), *inside[8:12]]

        def one(key: str) -> tuple[int, Any]:
            answer = client.post(INFER, json=body | {"parameters": {"routing_key": key}})
            return answer.status_code, answer.json().get("model_version")

        answers = callers.map(one, asked)
        assert client.post("/v2/models/price/infer", json=price).status_code == 200
        assert Counter(answers) == {(200, "3"): len(asked)}
        page = client.get("/metrics").text
        go_on.set()
        wait_for(lambda: one(inside[0]) == (200, "4"))
    assert 'errors_total{arm="challenger",model="churn",status="504",version="4"}' in page
    assert 'errors_total{arm="champion"' not in page
    rows = world.log()
    failed = [row for row in rows if row["_error"]]
    assert (
        len(failed) >= 5
    )  # once places are taken by what it does not get to, that is its failure, too
    assert {(row["_arm"], row["_version"]) for row in failed} == {("challenger", "4")}
    assert all(row["_error"].startswith("504 challenger: must answer within") for row in failed)
    champion = [row["_latency_ms"] for row in rows if row["_arm"] == "champion"]
    assert max(champion) < 400  # half a second with the challenger is not its own


def test_a_busy_challenger_is_not_asked_and_that_is_no_failure(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "_PLACES", 1)
    entered, go_on, real = threading.Event(), threading.Event(), Engine.predict

    def predict(self: Engine, columns: Any) -> Any:
        if self.version == "4":
            entered.set()
            go_on.wait(4)
        return real(self, columns)

    with world.serve() as client, ThreadPoolExecutor(1) as other:
        body = client.get("/v2/models/churn/example").json()
        roll_out(world, client, "canary", share=1.0)
        monkeypatch.setattr(Engine, "predict", predict)
        first = other.submit(ask, client, body)
        assert entered.wait(10)
        assert ask(client, body)["model_version"] == "3"
        go_on.set()
        assert first.result()["model_version"] == "4"
        wanted = 'errors_total{arm="challenger",model="churn",status="503",version="4"} 1.0'
        assert wanted in client.get("/metrics").text
    said = {(row["_arm"], row["_error"]) for row in world.log()}
    assert said == {("champion", None), ("challenger", None)}


def test_the_champions_clock_starts_when_it_is_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Engine.predict

    def predict(self: Engine, columns: Any) -> Any:
        if self.version == "4":
            time.sleep(0.5)  # what is measured
            raise ValueError
        return real(self, columns)

    with world.serve() as client:
        body = client.get("/v2/models/churn/example").json()
        roll_out(world, client, "canary", share=1.0)
        monkeypatch.setattr(Engine, "predict", predict)
        assert ask(client, body)["model_version"] == "3"
    spent = {row["_arm"]: row["_latency_ms"] for row in world.log()}
    assert spent["challenger"] >= 500
    assert spent["champion"] < 400


def test_a_challenger_is_charged_for_its_computing_and_not_for_its_thread(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The champion, asked on the event loop, has no thread to wait for."""
    real_begin, real_predict, busy, slow = trials._Trial.predict, Engine.predict, 0.3, 0.1

    async def after_others(self: Any, *args: Any) -> Any:
        for _ in range(self._pool._max_workers):
            self._pool.submit(time.sleep, busy)
        return await real_begin(self, *args)

    def predict(self: Engine, columns: Any) -> Any:
        if self.version == "4":
            time.sleep(slow)
        return real_predict(self, columns)

    with world.serve(requests=Limits(inline_ms=10_000)) as client:
        body = client.get("/v2/models/churn/example").json()
        roll_out(world, client, "canary", share=1.0)
        monkeypatch.setattr(trials._Trial, "predict", after_others)
        monkeypatch.setattr(Engine, "predict", predict)
        began = time.perf_counter()
        assert ask(client, body, id="q")["model_version"] == "4"
        assert time.perf_counter() - began > busy
    (latency,) = {row["_latency_ms"] for row in world.log() if row["_request_id"] == "q"}
    assert slow * 1000 <= latency < busy * 1000


def test_a_callers_fault_is_not_held_against_the_challenger(world: World) -> None:
    with world.serve() as client:
        roll_out(world, client, "canary", share=1.0)
        assert client.post(INFER, json={"inputs": []}).status_code == 400
    assert {(row["_arm"], row["_error"][:3]) for row in world.log()} == {("champion", "400")}


def test_a_shadow_is_logged_and_never_returned(world: World) -> None:
    with world.serve() as client:
        body = client.get("/v2/models/churn/example").json()
        roll_out(world, client, "shadow", share=1.0)
        for number in range(5):
            assert ask(client, body, id=str(number))["model_version"] == "3"
        headers = {"x-evergreen-log": "off"}
        assert client.post(INFER, json=body, headers=headers).status_code == 200
        done = 'shadow_rows_total{model="churn",version="4"} 15.0'
        wait_for(lambda: done in client.get("/metrics").text)
    rows = world.log()
    for number in range(5):
        mine = [row for row in rows if row["_request_id"] == str(number)]
        by_arm = {row["_arm"]: [r for r in mine if r["_arm"] == row["_arm"]] for row in mine}
        assert set(by_arm) == {"champion", "shadow"}
        assert [r["age"] for r in by_arm["shadow"]] == [r["age"] for r in by_arm["champion"]]
        assert {r["_version"] for r in by_arm["shadow"]} == {"4"}
        assert by_arm["shadow"][0]["_score"] != by_arm["champion"][0]["_score"]
    assert len(rows) == 30


def test_a_shadow_that_fails_or_lags_costs_no_caller_anything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.serve() as client:
        body = client.get("/v2/models/churn/example").json()
        roll_out(world, client, "shadow", share=1.0)
        break_challenger(monkeypatch, ValueError("secret"))
        assert ask(client, body, id="q")["model_version"] == "3"
        done = 'shadow_rows_total{model="churn",version="4"} 3.0'
        wait_for(lambda: done in client.get("/metrics").text)
    errors = [(row["_arm"], row["_error"]) for row in world.log() if row["_error"]]
    assert errors == [("shadow", "500 ValueError")]


class Holding:
    """A challenger that predicts when it may; the log it writes to."""

    version = "4"
    model = SimpleNamespace(name="churn")
    schema = SimpleNamespace(features=None)
    task, classes, has_probability = "binary", (), True

    def __init__(self) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.logged: list[Any] = []
        self.put = self.logged.append

    def predict(self, _: Any) -> Any:
        self.entered.set()
        self.go_on.wait(20)
        raise ValueError


def test_a_shadows_queue_is_bounded_in_bytes_and_what_it_drops_is_counted() -> None:
    metrics, holding = Metrics(), Holding()
    part: Any = holding
    shadow = Shadow(part, metrics, max_rows=1000, max_bytes=100)

    def put(texts: int) -> None:
        asked: Any = SimpleNamespace(columns={}, identity=None)
        shadow.put(Copy(part, 1, lambda: asked, "q", 0, texts))

    def dropped() -> float:
        name = "evergreen_serving_shadow_dropped_rows_total"
        found = metrics.exposition().decode().splitlines()
        return sum(float(line.split()[-1]) for line in found if line.startswith(name))

    put(90)
    assert holding.entered.wait(10)
    for texts in (60, 60, 40):  # the one in hand waits no longer
        put(texts)
    assert dropped() == 1
    shadow.close()
    holding.go_on.set()
    assert dropped() == 3
    wait_for(lambda: len(holding.logged) == 1)
