"""Against the real serving app on an in-memory registry; strange answers come from a scripted transport."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from include.deploy.client import ServingClient
from include.deploy.probe import Probe
from include.deploy.rollout import DeployResult, smoke, take_over
from include.deploy.waiting import Waiting
from include.errors import ConflictError, ModelError, ServiceError
from include.serving.app import create_app
from include.serving.follower import Follower
from include.serving.front import LOG_HEADER
from include.serving.telemetry import Metrics
from tests.unit.serving.registry import CHURN, PRICE, MemoryRegistry, fit, wait_for

SHORT, LONG = timedelta(seconds=0.3), timedelta(seconds=15)


@dataclass(frozen=True)
class Report:
    """What a replica says of itself."""

    id: str
    state: Mapping[str, Any]


def deploy(
    client: ServingClient,
    replicas: Callable[[], list[Report]],
    *,
    version: str = "2",
    timeout: timedelta = LONG,
    examples: list[Any] | None = None,
    promote: Callable[[], object],
    undo: Callable[[], object],
    **clocks: Any,
) -> DeployResult:
    """Both ends of a rollout, one after the other."""
    probe = Probe(client, "churn", version, examples)
    waiting = Waiting(probe.where, timeout, **{"poll_seconds": 0.02} | clocks)
    assert smoke(probe, replicas, waiting).smoke_ms > 0
    return take_over(probe, replicas, waiting, promote=promote, undo=undo)


def everybody(version: str) -> Callable[[], list[Report]]:
    """One replica that has loaded a version and has it as champion."""
    mine = {"champion": version, "loaded": [version], "failures": {}, "rollout": None}
    return lambda: [Report("a", {"models": {"churn": mine}})]


class World:
    """A registry, the app that follows it, and a record of what was called."""

    def __init__(self, registry: MemoryRegistry, client: ServingClient, follower: Follower) -> None:
        self.registry, self.client, self.follower = registry, client, follower
        self.calls: list[str] = []

    def promote(self) -> None:
        self.calls.append("promote")
        self.registry.set("churn", "champion", "2")

    def undo(self) -> None:
        self.calls.append("undo")
        self.registry.set("churn", "champion", "1")

    def replicas(self) -> list[Report]:
        """The app, as it would report itself."""
        body = self.client.ready("churn").body
        loaded = [v for v in ("1", "2", "3") if self.client.ready("churn", v).ok]
        mine = {"champion": body.get("champion"), "loaded": loaded}
        mine["failures"] = body.get("failures") or {}
        return [Report("a", {"models": {"churn": mine}})]

    def deploy(self, **changes: Any) -> DeployResult:
        options: dict[str, Any] = {"promote": self.promote, "undo": self.undo}
        return deploy(self.client, self.replicas, **options | changes)

    def champion(self) -> str | None:
        body = self.client.ready("churn").body
        return body.get("champion")


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {"1": fit(CHURN), "2": fit(CHURN, seed=1), "price": fit(PRICE)}


@pytest.fixture
def world(tmp_path: Path, models: dict[str, Any]) -> Iterator[World]:
    """Version 1 of churn serves, 2 is challenger."""
    registry = MemoryRegistry(tmp_path / "registry")
    for version in ("1", "2"):
        registry.add("churn", version, CHURN, models[version])
    registry.set("churn", "champion", "1")
    registry.set("churn", "challenger", "2")
    metrics = Metrics()
    follower = Follower(registry, tmp_path / "cache", metrics, poll_seconds=0.02)
    with TestClient(create_app(follower, metrics)) as app:
        wait_for(lambda: follower.ready)
        with ServingClient("http://serving", transport=app._transport) as client:
            yield World(registry, client, follower)


def test_smoke_promote_confirm(world: World) -> None:
    result = world.deploy()
    assert (result.version, result.previous) == ("2", "1")
    assert result.seconds > 0
    assert world.calls == ["promote"]
    assert world.champion() == "2"


def test_a_second_run_only_finishes_a_promotion_that_was_cut_short(world: World) -> None:
    world.deploy()
    again = world.deploy()
    assert (again.version, again.previous) == ("2", "2")
    assert world.calls == ["promote", "promote"]
    assert world.champion() == "2"


def test_a_first_model_has_no_previous_one(world: World) -> None:
    world.registry.set("churn", "champion", None)
    wait_for(lambda: world.champion() is None)
    assert world.deploy().previous is None


def test_own_example_requests_are_used(world: World) -> None:
    body = dict(world.client.example("churn", "2").body)
    with pytest.raises(ModelError, match="must answer a smoke request, got HTTP 400: inputs: must"):
        world.deploy(examples=[body, {"inputs": []}])
    assert world.calls == []
    assert world.deploy(examples=[body, body]).version == "2"


def test_a_version_serving_does_not_know_is_waited_for(world: World) -> None:
    world.registry.set("churn", "challenger", None)
    wait_for(lambda: world.client.ready("churn", "2").status == 404)
    with pytest.raises(
        ServiceError,
        match=r"be loaded by every replica within 0.3 s, serving answered last: 1 of 1 lag: a has loaded 1",
    ):
        world.deploy(timeout=SHORT)
    assert world.calls == []
    assert world.champion() == "1"


def test_a_version_serving_refuses_is_a_model_error_and_stays_out(
    world: World, models: dict[str, Any]
) -> None:
    world.registry.add("churn", "3", CHURN, models["price"])
    world.registry.set("churn", "challenger", "3")
    with pytest.raises(
        ModelError, match=r"version 3: must be loadable by every replica, a got: .*example"
    ):
        world.deploy(version="3")
    assert world.calls == []
    assert world.champion() == "1"


def test_when_serving_does_not_follow_the_promotion_is_taken_back(world: World) -> None:
    wait_for(lambda: world.client.infer("churn", world.client.example("churn").body, "2").ok)
    world.registry.down = True
    wait_for(lambda: world.follower.registry_error)
    with pytest.raises(
        ServiceError, match=r"must be champion in every replica within .* lag: a has champion 1"
    ):
        world.deploy(timeout=SHORT)
    assert world.calls == ["promote", "undo"]
    world.registry.down = False
    wait_for(lambda: world.follower.registry_error is None)
    assert world.champion() == "1"


def test_a_refused_promotion_is_not_undone(world: World) -> None:
    def refuse() -> None:
        raise ConflictError("churn", "champion must be 1, got 5", "Look again.")

    with pytest.raises(ConflictError, match="must be 1, got 5"):
        world.deploy(promote=refuse)
    assert world.calls == []


def test_a_failed_undo_is_told_with_its_cause(world: World) -> None:
    def stuck() -> None:
        raise ServiceError("MLflow", "must answer, got nothing", "Start it.")

    def nothing() -> None: ...

    with pytest.raises(
        ServiceError, match=r"be champion .*could not be taken back: MLflow: must answer"
    ):
        world.deploy(promote=nothing, undo=stuck, timeout=SHORT)


# --- strange answers ------------------------------------------------------------------------------------


def scripted(infer: Callable[[], httpx.Response]) -> ServingClient:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/infer"):
            return infer()
        if request.url.path.endswith("/example"):
            return httpx.Response(200, json={"inputs": []})
        return httpx.Response(200, json={"champion": "1", "failures": {}})

    return ServingClient("http://serving", transport=httpx.MockTransport(answer))


def outputs(predict: Any, probability: Any = None, version: str = "2") -> httpx.Response:
    tensors = [{"name": "predict", "data": predict}]
    if probability is not None:
        tensors.append({"name": "probability", "data": probability})
    return httpx.Response(200, json={"model_version": version, "outputs": tensors})


def never() -> None:
    raise AssertionError("must not be called")


def run(client: ServingClient, timeout: timedelta = SHORT) -> DeployResult:
    return deploy(client, everybody("2"), promote=never, undo=never, timeout=timeout)


def test_a_probe_is_no_live_traffic() -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/infer"):
            seen.append(request.headers.get(LOG_HEADER))
            return outputs([1])
        if request.url.path.endswith("/example"):
            return httpx.Response(200, json={"inputs": []})
        return httpx.Response(200, json={"champion": "2", "failures": {}})

    client = ServingClient("http://serving", transport=httpx.MockTransport(answer))
    deploy(client, everybody("2"), promote=lambda: None, undo=never, timeout=SHORT)
    client.infer("churn", {"inputs": []})
    assert set(seen[:-1]) == {"off"}
    assert seen[-1] is None


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (outputs([]), "no predictions"),
        (outputs([None]), "missing or not finite"),
        (outputs([1], [None, 1.0]), "not between 0 and 1"),
        (outputs([1], [1.5, -0.5]), "not between 0 and 1"),
        (outputs([1], [0.5, 0.4]), "do not sum to 1"),
        (outputs([1], []), "not between 0 and 1"),
        (httpx.Response(200, json={"model_version": "2"}), "no predictions"),
        (httpx.Response(400, json={"error": "inputs: wrong"}), "HTTP 400: inputs: wrong"),
    ],
)
def test_an_answer_that_is_not_sane_is_a_model_error(answer: httpx.Response, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        run(scripted(lambda: answer), LONG)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (outputs([1], version="7"), "last: version 7 answers"),
        (httpx.Response(503, json={"error": "loading"}), "last: HTTP 503: loading"),
        (httpx.Response(500, text="<html>"), "last: HTTP 500: no JSON object but '<html>'"),
    ],
)
def test_what_may_pass_is_waited_out(answer: httpx.Response, message: str) -> None:
    with pytest.raises(ServiceError, match=message):
        run(scripted(lambda: answer))


def test_serving_away_is_a_service_error() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    client = ServingClient("http://serving:1", transport=httpx.MockTransport(refuse))
    with pytest.raises(
        ServiceError, match=r"last: serving at http://serving:1: must answer, got Connect"
    ):
        run(client)


def test_time_is_the_injected_clock() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    client = scripted(lambda: httpx.Response(503, json={"error": "loading"}))
    with pytest.raises(ServiceError, match="within 600 s"):
        deploy(
            client,
            everybody("2"),
            promote=never,
            undo=never,
            timeout=timedelta(minutes=10),
            poll_seconds=0.5,
            clock=lambda: now[0],
            sleep=sleep,
        )
    assert now[0] == 600.0
