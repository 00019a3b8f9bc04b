"""API keys at serving's door: when one is needed, whom it lets in, and what is said of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from include.errors import ServiceError, SpecError
from include.ledger.keys import ApiKey
from include.ledger.ledger import Ledger
from include.serving.access import ANYBODY, Access
from include.serving.app import create_app
from include.serving.follower import Follower
from include.serving.key_copy import KeyCopy
from include.serving.rejection import RequestError
from include.serving.telemetry import Metrics
from include.settings import Settings
from tests.unit.serving.registry import CHURN, PRICE, MemoryRegistry, wait_for

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OWN = "o" * 32


class World:
    """A ledger, a clock, and the access they make."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger(f"sqlite:///{folder}/ledger.db")
        self.now = NOW
        self.down = False

    def read(self) -> list[ApiKey]:
        if self.down:
            raise ServiceError("Ledger", "must take part, got nothing", "Start it.")
        return self.ledger.api_keys()

    def access(self, *, required: bool = False, own: str = "", refreshed: bool = True) -> Access:
        copy = KeyCopy(self.folder / "cache" / "keys.json")
        access = Access(
            self.read, required=required, own=own, copy=copy, clock=lambda: self.now.timestamp()
        )
        if refreshed:
            access.refresh()
        return access

    def add(self, *models: str, lifetime: timedelta | None = None) -> tuple[str, str]:
        key, text = self.ledger.add_api_key(
            "ann", models or ("*",), now=self.now, lifetime=lifetime
        )
        return key.id, text


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def bearer(text: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), (b"authorization", f"Bearer {text}".encode())]


def refusal(access: Access, headers: list[tuple[bytes, bytes]]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        access.enter(headers)
    return caught.value


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.4", False),
        ("serving", False),
        ("", False),
    ],
)
def test_loopback(host: str, local: bool) -> None:
    assert Settings(host=host).on_loopback is local


def test_open_until_there_is_a_key(world: World) -> None:
    access = world.access()
    assert access.enter([]) is ANYBODY
    id, text = world.add()
    access.refresh()
    assert refusal(access, []).status == 401
    assert access.enter(bearer(text)).id == id


def test_a_key_is_required_beyond_this_machine(world: World) -> None:
    error = refusal(world.access(required=True), [])
    assert error.status == 401
    assert "got none" in str(error)


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key"])
def test_both_headers(world: World, name: bytes) -> None:
    id, text = world.add()
    value = text.encode() if name == b"x-api-key" else b"bEaReR " + text.encode()
    assert world.access().enter([(name, value)]).id == id


def test_wrong_keys(world: World) -> None:
    id, text = world.add()
    _, other = world.add()
    access = world.access()
    mixed = f"eg_{id}.{other.partition('.')[2]}"
    for wrong in (mixed, text[:-1], text + "x", f"eg_{id}", f"eg_{id}.", "", "eg_", "\xff" * 9):
        error = refusal(access, bearer(wrong))
        assert error.status == 401
        assert wrong == "" or wrong not in str(error)
    assert refusal(access, [(b"authorization", b"Basic " + text.encode())]).status == 401


def test_revoked_and_expired(world: World) -> None:
    id, text = world.add(lifetime=timedelta(hours=1))
    access = world.access()
    assert access.enter(bearer(text))
    world.now += timedelta(hours=1)
    assert refusal(access, bearer(text)).status == 401, "no refresh is needed for an end"
    world.now -= timedelta(hours=1)
    world.add()
    world.ledger.revoke_api_key(id)
    access.refresh()
    assert refusal(access, bearer(text)).status == 401


def test_an_expired_key_does_not_open_the_door(world: World) -> None:
    world.add(lifetime=timedelta(hours=1))
    world.now += timedelta(hours=2)
    assert refusal(world.access(), []).status == 401


def test_the_key_of_the_environment(world: World) -> None:
    access = world.access(own=OWN)
    assert access.enter(bearer(OWN)).models is None
    assert refusal(access, []).status == 401
    assert refusal(access, bearer(OWN + "x")).status == 401


def test_a_short_key_of_the_environment_is_refused(world: World) -> None:
    with pytest.raises(SpecError, match=r"at least 16 characters, got 6\.") as caught:
        world.access(own="secret")
    assert "secret" not in str(caught.value)


def test_it_answers_nobody_before_it_knows(world: World) -> None:
    world.down = True
    _, text = world.add()
    access = world.access()
    assert refusal(access, []).status == 503
    assert refusal(access, bearer(text)).status == 503
    assert not access.known
    own = world.access(own=OWN)
    assert own.enter(bearer(OWN)).id == "environment"
    assert refusal(own, []).status == 401
    assert refusal(own, bearer(text)).status == 503, "it may be valid: trying again helps"


def test_the_copy_on_disk_stands_in_for_the_ledger(world: World) -> None:
    id, text = world.add("churn", lifetime=timedelta(hours=1))
    world.access()
    stored = world.folder / "cache" / "keys.json"
    assert text.partition(".")[2] not in stored.read_text()
    assert stored.stat().st_mode & 0o777 == 0o600
    world.down = True
    access = world.access(refreshed=False)
    access.start()
    access.stop()
    caller = access.enter(bearer(text))
    assert (caller.id, caller.models) == (id, frozenset({"churn"}))
    world.now += timedelta(hours=2)
    assert refusal(access, bearer(text)).status == 401


@pytest.mark.parametrize("damage", ["", "{", "[{}]", '[{"id": "a", "hash": "b", "models": []}]'])
def test_a_damaged_copy_is_none(world: World, damage: str) -> None:
    world.down = True
    (world.folder / "cache").mkdir()
    (world.folder / "cache" / "keys.json").write_text(damage)
    access = world.access(refreshed=False)
    access.start()
    access.stop()
    assert refusal(access, []).status == 503


def test_what_was_known_stays_while_the_ledger_is_away(world: World) -> None:
    _, text = world.add()
    access = world.access()
    world.down = True
    access.refresh()
    assert access.enter(bearer(text))
    assert refusal(access, []).status == 401


def test_rotation(world: World) -> None:
    old_id, old = world.add("churn")
    access = world.access()
    new, text, ended = world.ledger.rotate_api_key(old_id, now=world.now, grace=timedelta(hours=24))
    assert (new.name, new.models, ended.id) == ("ann", ("churn",), old_id)
    access.refresh()
    assert access.enter(bearer(old)).id == old_id
    assert access.enter(bearer(text)).id == new.id
    world.now += timedelta(hours=24)
    assert refusal(access, bearer(old)).status == 401
    assert access.enter(bearer(text)).id == new.id


# --- at the door ------------------------------------------------------------------------------------------


@pytest.fixture
def door(
    world: World, pipelines: dict[str, Any], tmp_path: Path
) -> Iterator[tuple[World, TestClient, Access, Metrics]]:
    """A client on an app that serves churn and price, with a ledger of keys."""
    registry = MemoryRegistry(tmp_path / "registry")
    registry.add("churn", "3", CHURN, pipelines["churn"])
    registry.add("price", "1", PRICE, pipelines["price"])
    registry.set("churn", "champion", "3")
    registry.set("price", "champion", "1")
    metrics = Metrics()
    follower = Follower(registry, tmp_path / "models", metrics, poll_seconds=0.1)
    access = world.access(required=True)
    with TestClient(create_app(follower, metrics, access=access)) as client:
        wait_for(lambda: follower.ready)
        yield world, client, access, metrics


def key(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def test_everything_but_health_wants_a_key(door: Any) -> None:
    _world, client, _, metrics = door
    for path in ("/v2/health/live", "/v2/health/ready", "/ping", "/health"):
        assert client.get(path).status_code == 200
    paths = ("/v2", "/v2/models", "/v2/models/churn", "/metrics", "/openapi.json", "/nothing")
    for path in (*paths, "/v2/health/", "//ping", "/ping/x"):
        answer = client.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == 'Bearer realm="evergreen"'
        assert list(answer.json()) == ["error"]
    assert client.post("/v2/models/churn/infer", content=b"x" * 1000).status_code == 401
    assert b'route="access",status="401"' in metrics.exposition()


def test_scopes(door: Any) -> None:
    world, client, access, _ = door
    _, part = world.add("churn", "ghost")
    _, whole = world.add()
    access.refresh()
    example = client.get("/v2/models/churn/example", headers=key(part)).json()
    assert client.post("/v2/models/churn/infer", json=example, headers=key(part)).status_code == 200
    listing = client.get("/v2/models", headers=key(part)).json()["models"]
    assert [each["name"] for each in listing] == ["churn"]
    rows = {"dataframe_records": []}
    for path in ("price", "unheard-of"):
        for at in (f"/v2/models/{path}/infer", f"/models/{path}/invocations", f"/predict/{path}"):
            answer = client.post(at, json=example, headers=key(part))
            assert answer.status_code == 403, at
            assert "api key is for" in answer.json()["error"].lower()
        assert client.get(f"/v2/models/{path}", headers=key(part)).status_code == 403
        named = {**key(part), "x-model-name": path}
        assert client.post("/invocations", json=rows, headers=named).status_code == 403
        asked = client.post(f"/invocations?model={path}", json=rows, headers=key(part))
        assert asked.status_code == 403
    # The only model in scope needs no name; that there is another one is not said.
    assert client.post("/invocations", json=rows, headers=key(part)).status_code == 400
    unknown = client.get("/v2/models/ghost", headers=key(part))
    assert unknown.status_code == 404
    assert "price" not in unknown.text
    assert client.get("/metrics", headers=key(part)).status_code == 403
    assert client.get("/metrics", headers=key(whole)).status_code == 200
    assert client.get("/v2/models/price", headers=key(whole)).status_code == 200


def test_it_is_not_ready_before_it_knows_its_keys(world: World, tmp_path: Path) -> None:
    world.down = True
    metrics = Metrics()
    follower = Follower(MemoryRegistry(tmp_path / "r"), tmp_path / "m", metrics, poll_seconds=0.1)
    access = world.access()
    with TestClient(create_app(follower, metrics, access=access)) as client:
        wait_for(lambda: follower.ready)
        answer = client.get("/v2/health/ready")
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
        assert "must know its API keys" in answer.json()["error"]
        world.down = False
        access.refresh()
        assert client.get("/v2/health/ready").status_code == 200


def test_keys_stay_out_of_logs_errors_and_metrics(
    door: Any, caplog: pytest.LogCaptureFixture
) -> None:
    world, client, access, metrics = door
    _, text = world.add("churn")
    access.refresh()
    said = []
    with caplog.at_level(logging.DEBUG):
        for sent in (text, text[:-1]):
            for path in ("/v2/models/churn", "/v2/models/price", "/nothing", "/invocations"):
                said.append(client.post(path, headers=key(sent), content=b"{").text)
                said.append(client.get(path, headers={"x-api-key": sent}).text)
    secret = text.partition(".")[2][:-1]
    assert secret not in "".join(said)
    assert secret not in caplog.text
    assert secret.encode() not in metrics.exposition()
