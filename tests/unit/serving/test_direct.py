"""The short way on the wire, against a real uvicorn: the same answers, and ASGI for all that it is not sure of."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pytest
import uvicorn

from include.registry.rollouts import Rollout
from include.serving.access import Access
from include.serving.access_log import AccessLog
from include.serving.app import create_app
from include.serving.direct import Direct
from include.serving.follower import Follower
from include.serving.front import Front
from include.serving.limits import Limits
from include.serving.telemetry import Metrics
from tests.servers import free_port
from tests.unit.serving.registry import CHURN, MemoryRegistry, wait_for

PATH = "/v2/models/churn/infer"
_SECRET = "a-secret-of-our-own-for-tests"


class Wire:
    """A connection on which every byte counts, and what reached ASGI behind it."""

    def __init__(self, port: int, log: BytesIO) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.file: BinaryIO = self.socket.makefile("rb")
        self.by_asgi: list[str] = []
        self.log = log

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.socket.sendall(part)

    def answer(self) -> tuple[int, dict[str, str], Any]:
        """Read one answer."""
        status = int(self.file.readline().split()[1])
        headers: dict[str, str] = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name] = value
        body = self.file.read(int(headers.get("content-length", "0")))
        return status, headers, orjson.loads(body) if body else None


def post(body: bytes, *headers: str, path: str = PATH) -> bytes:
    said = ("Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers)
    return "\r\n".join((f"POST {path} HTTP/1.1", *said, "", "")).encode() + body


@pytest.fixture
def serve(
    registry: MemoryRegistry,
    pipelines: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Serve churn with uvicorn on this protocol; yield a connection."""
    registry.add("churn", "1", CHURN, pipelines["churn"])
    registry.add("churn", "2", CHURN, pipelines["churn2"])
    registry.set("churn", "champion", "1")

    @contextmanager
    def start(access: Access | None = None, keep_alive: Any = 5, **limits: Any) -> Iterator[Wire]:
        metrics, port, log = Metrics(), free_port(), BytesIO()
        follower = Follower(registry, tmp_path / "cache", metrics, poll_seconds=0.05)
        app = create_app(
            follower,
            metrics,
            limits=Limits(**{"inline_ms": 10_000.0} | limits),
            access=access,
            access_log=AccessLog(metrics, log, seconds=0.02),
        )
        config = uvicorn.Config(
            app,
            port=port,
            http=Direct,
            proxy_headers=False,
            log_config=None,
            access_log=False,
            timeout_keep_alive=keep_alive,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        wait_for(lambda: follower.ready and server.started)
        wire = Wire(port, log)
        real = Front.__call__

        async def watched(front: Front, scope: Any, receive: Any, send: Any) -> None:
            wire.by_asgi.append(scope.get("path", ""))
            await real(front, scope, receive, send)

        monkeypatch.setattr(Front, "__call__", watched)
        yield wire
        wire.socket.close()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()

    return start


def body_of(**more: Any) -> bytes:
    """Return a right request of one row."""
    values = {"age": 30, "income": 1000.5, "member": True, "region": "north", "plan": "1"}
    datatypes = {int: "FP64", float: "FP64", bool: "BOOL", str: "BYTES"}
    inputs = [
        {"name": name, "shape": [1], "datatype": datatypes[type(value)], "data": [value]}
        for name, value in values.items()
    ]
    return orjson.dumps({"inputs": inputs} | more)


def test_a_request_in_one_piece_is_answered_without_asgi_and_alike(serve: Any) -> None:
    with serve() as wire:
        right = post(body_of(id="mine"), "traceparent: 00-" + "a" * 32 + "-" + "b" * 16 + "-01")
        wire.send(right)
        status, headers, said = wire.answer()
        assert (status, said["id"], headers["x-request-id"]) == (200, "mine", "mine")
        assert wire.by_asgi == []
        wire.send(right[:-40])
        wire.send(right[-40:])
        again = wire.answer()
        assert again[2] == said
        assert again[1].keys() == headers.keys()
        wait_for(lambda: wire.log.getvalue().count(b"\n") == 2)
        lines = [orjson.loads(line) for line in wire.log.getvalue().splitlines()]
        ours, asgi = ({k: v for k, v in line.items() if k not in ("time", "ms")} for line in lines)
        assert ours == asgi
        assert ours["trace_id"] == "a" * 32


def test_what_is_not_plainly_right_gets_its_reason_from_asgi(serve: Any) -> None:
    with serve() as wire:
        for request, status, said in (
            (post(b"{"), 400, "body: must be JSON"),
            (
                post(body_of(), path="/v2/models/none/infer"),
                404,
                "model: must be one that is served",
            ),
            (post(body_of(), "Content-Encoding: gzip"), 415, "Content-Encoding"),
            (post(b"{}", path="/v2/models/churn/labels"), 400, ""),
        ):
            wire.send(request)
            got, _, answer = wire.answer()
            assert got == status, answer
            assert said in answer["error"]
        assert len(wire.by_asgi) == 4


def test_requests_sent_at_once_are_answered_in_their_order(serve: Any) -> None:
    with serve() as wire:
        wire.send(post(body_of(id="a")) + post(b"{") + post(body_of(id="c")))
        answers = [wire.answer() for _ in range(3)]
        assert [status for status, _, _ in answers] == [200, 400, 200]
        assert [said.get("id") for _, _, said in answers] == ["a", None, "c"]
        assert (
            len(wire.by_asgi) == 2
        )  # one of them at once, so that many cannot keep all others waiting


def test_the_clock_of_an_idle_connection_stops_for_the_request_after(serve: Any) -> None:
    with serve(keep_alive=0.3) as wire:
        second = post(body_of(id="b"))
        wire.send(post(body_of(id="a")) + second[:-40])
        assert wire.answer()[2]["id"] == "a"
        time.sleep(0.8)  # longer than it may be idle
        wire.send(second[-40:])
        assert wire.answer()[2]["id"] == "b"
        wire.send(post(body_of(id="c")))
        assert wire.answer()[2]["id"] == "c"
        assert wire.file.read() == b"", "idle, it is closed"


def test_a_broken_request_that_is_cut_in_two_is_refused(serve: Any) -> None:
    with serve() as wire:
        broken = post(body_of(), path="http://host")
        wire.send(broken[:-1])
        wire.send(broken[-1:])
        assert wire.file.readline().split()[1] == b"400"


@pytest.mark.parametrize(
    ("header", "closes"), [("Connection: close", True), ("Expect: 100-continue", False)]
)
def test_what_http_wants_to_be_told_is_left_to_uvicorn(
    serve: Any, header: str, closes: bool
) -> None:
    with serve() as wire:
        wire.send(post(body_of(id="a"), header))
        answer = wire.answer()
        if answer[0] == 100:
            answer = wire.answer()
        assert answer[0] == 200
        assert wire.by_asgi == [PATH]
        assert (answer[1].get("connection") == "close") is closes


def test_a_slow_version_and_a_rollout_take_the_long_way(
    serve: Any, registry: MemoryRegistry
) -> None:
    with serve(inline_ms=0.0) as wire:
        wire.send(post(body_of()))
        assert wire.answer()[0] == 200
        assert wire.by_asgi == [PATH]
    registry.roll_out("churn", Rollout("r1", "2", "canary", 1.0))
    with serve() as wire:
        wire.send(post(body_of()))
        assert wire.answer()[0] == 200
        assert wire.by_asgi == [PATH]


def test_a_key_is_asked_for_all_the_same(serve: Any) -> None:
    access = Access(lambda: [], required=True, own=_SECRET, copy=None, clock=lambda: 0.0)
    with serve(access) as wire:
        wire.send(post(body_of()))
        assert wire.answer()[0] == 401
        wire.send(post(body_of(), "X-Api-Key: " + "x" * 20))
        assert wire.answer()[0] == 401
        assert len(wire.by_asgi) == 2
        wire.send(post(body_of(), f"X-Api-Key: {_SECRET}"))
        assert wire.answer()[0] == 200
        assert len(wire.by_asgi) == 2


def test_a_full_house_is_one_for_the_short_way_too(serve: Any) -> None:
    with serve(pending=0) as wire:
        wire.send(post(body_of()))
        status, headers, _ = wire.answer()
        assert (status, headers["retry-after"]) == (503, "1")
