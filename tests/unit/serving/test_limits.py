"""What happens when there is too much, or it takes too long: a clear answer, and soon."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from include.serving import forms
from include.serving.app import create_app
from include.serving.engine import Engine
from include.serving.follower import Follower
from include.serving.limits import Doors, Limits
from include.serving.rejection import RequestError
from include.serving.telemetry import Metrics
from tests.servers import free_port
from tests.unit.serving.registry import CHURN, EXAMPLE, MemoryRegistry, wait_for

INFER = "/v2/models/churn/infer"


def test_each_model_has_a_share_and_the_process_an_end() -> None:
    doors = Doors(Limits(pending=3, model_pending=2))
    doors.enter("a")
    doors.enter("a")
    with pytest.raises(RequestError, match=r"^model a: must have fewer than 2 requests") as share:
        doors.enter("a")
    doors.enter("b")
    with pytest.raises(RequestError, match=r"^serving: must have fewer than 3 requests") as full:
        doors.enter("c")
    assert (share.value.status, full.value.status) == (429, 503)
    for model in ("a", "a", "b"):
        doors.leave(model)
    assert doors.inside == 0
    doors.enter("c")


class Held:
    """Holds predictions until told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.go_on = threading.Semaphore(0), threading.Event()
        real = Engine.predict

        def predict(engine: Engine, columns: Any) -> Any:
            self.entered.release()
            self.go_on.wait(20)
            return real(engine, columns)

        monkeypatch.setattr(Engine, "predict", predict)


@pytest.fixture
def serve(registry: MemoryRegistry, pipelines: dict[str, Any], tmp_path: Path) -> Any:
    """Serve churn with uvicorn in a thread; yield its base URL."""
    registry.add("churn", "1", CHURN, pipelines["churn"])
    registry.set("churn", "champion", "1")

    @contextmanager
    def start(**limits: Any) -> Iterator[str]:
        metrics, port = Metrics(), free_port()
        follower = Follower(registry, tmp_path / "cache", metrics, poll_seconds=0.05)
        app = create_app(
            follower, metrics, limits=Limits(**{"inline_ms": 0, "threads": 1} | limits)
        )
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        wait_for(lambda: follower.ready and server.started)
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()

    return start


def post(url: str, answers: list[httpx.Response]) -> threading.Thread:
    thread = threading.Thread(
        target=lambda: answers.append(
            httpx.post(f"{url}/models/churn/invocations", json={"inputs": EXAMPLE}, timeout=30)
        )
    )
    thread.start()
    return thread


def test_an_answer_that_takes_too_long_is_not_waited_for(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(seconds=0.5, batch_rows=1) as url:
        held = Held(monkeypatch)
        answers: list[httpx.Response] = []
        first = post(url, answers)
        held.entered.acquire(timeout=10)
        second = post(url, answers)
        started = time.monotonic()
        for thread in (first, second):
            thread.join(10)
        assert time.monotonic() - started < 9
        by_status = {answer.status_code: answer for answer in answers}
        assert set(by_status) == {503, 504}
        assert "must begin within 0.5 s" in by_status[503].json()["error"]
        assert by_status[503].headers["retry-after"] == "1"
        assert "must answer within 0.5 s" in by_status[504].json()["error"]
        assert httpx.get(f"{url}/v2/health/live").status_code == 200
        held.go_on.set()
        assert not held.entered.acquire(timeout=0.2)  # what nobody waits for is never begun
        assert httpx.post(f"{url}/models/churn/invocations", json={"inputs": EXAMPLE}).is_success


def test_a_body_that_does_not_come_is_not_waited_for(serve: Any) -> None:
    with serve(body_seconds=0.3) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as line:
            line.settimeout(20)
            line.sendall(
                b"POST /v2/models/churn/infer HTTP/1.1\r\nHost: x\r\n"
                b"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
            )
            answer = line.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"body: must arrive within 0.3 s, got a part" in answer
        assert b"connection: close" in answer.lower()
        wait_for(lambda: "serving_pending 0.0" in httpx.get(f"{url}/metrics").text)


def test_bodies_together_have_a_bound(serve: Any) -> None:
    with serve(pending_bytes=100_000) as url:
        answer = httpx.post(url + INFER, content=(b" " * 20_000 for _ in range(20)))
        assert answer.status_code == 503
        assert "must hold bodies of at most 100000 bytes" in answer.json()["error"]
        # what was refused is let go
        assert httpx.post(url + INFER, content=b" " * 90_000).status_code == 400
        assert httpx.post(url + INFER, content=b" " * 90_000).status_code == 400


HEAD = (
    b"POST /v2/models/churn/infer HTTP/1.1\r\nHost: x\r\n"
    b"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
)


@contextmanager
def slow_sender(url: str) -> Iterator[socket.socket]:
    """Send a head, and a body without its end."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.settimeout(20)
        line.sendall(HEAD)
        yield line


def test_a_slow_sender_takes_no_room_from_those_whose_body_is_there(serve: Any) -> None:
    with serve(model_pending=1, pending=1) as url, slow_sender(url), slow_sender(url):
        time.sleep(0.3)  # not to be seen from outside: the heads have been read
        answer = httpx.post(f"{url}/models/churn/invocations", json={"inputs": EXAMPLE})
        assert answer.status_code == 200


def test_of_too_many_bodies_the_slowest_is_given_up(serve: Any) -> None:
    with (
        serve(arriving=2) as url,
        slow_sender(url) as first,
        slow_sender(url) as second,
    ):
        time.sleep(0.3)  # as above
        with slow_sender(url):
            answer = first.recv(10_000)
            assert answer.startswith(b"HTTP/1.1 408")
            assert b"must arrive before 2 others are on their way" in answer
            answers = [
                httpx.post(f"{url}/models/churn/invocations", json={"inputs": EXAMPLE})
                for _ in range(2)
            ]
            assert [each.status_code for each in answers] == [200, 200]
            assert second.recv(10_000).startswith(b"HTTP/1.1 408")


def test_unfinished_bodies_have_a_bound_of_their_own(serve: Any) -> None:
    with serve(arriving_bytes=100_000) as url:
        answer = httpx.post(url + INFER, content=(b" " * 20_000 for _ in range(20)))
        assert answer.status_code == 503
        assert "must hold unfinished bodies of at most 100000 bytes" in answer.json()["error"]
        assert httpx.post(url + INFER, content=b" " * 90_000).status_code == 400


def test_a_large_answer_is_written_in_a_thread(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    real = forms.dump

    def dump(answer: Any) -> bytes:
        written.append(threading.current_thread().name.partition("_")[0])
        return real(answer)

    monkeypatch.setattr(forms, "dump", dump)
    with serve(inline_ms=1e6) as url:
        for rows in (1, 4000):
            many = {name: values[:1] * rows for name, values in EXAMPLE.items()}
            answer = httpx.post(f"{url}/models/churn/invocations", json={"inputs": many})
            assert len(answer.json()["predictions"]) == rows
    assert (written[0] == "predict", written[1]) == (False, "predict")


def test_a_model_has_no_more_than_its_share(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(model_pending=2) as url:
        held = Held(monkeypatch)
        answers: list[httpx.Response] = []
        threads = [post(url, answers) for _ in range(2)]
        wait_for(lambda: "serving_pending 2.0" in httpx.get(f"{url}/metrics").text)
        refused = httpx.post(url + INFER, json={})
        held.go_on.set()
        for thread in threads:
            thread.join(20)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "model churn: must have fewer than 2 requests waiting" in refused.json()["error"]
        assert [answer.status_code for answer in answers] == [200, 200]


def test_a_large_request_delays_no_health_check(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(inline_ms=2.0) as url:
        held = Held(monkeypatch)
        many = {name: values[:1] * 10_000 for name, values in EXAMPLE.items()}
        answers: list[httpx.Response] = []
        thread = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{url}/models/churn/invocations", json={"inputs": many}, timeout=30)
            )
        )
        thread.start()
        assert held.entered.acquire(timeout=20)
        assert httpx.get(f"{url}/v2/health/live", timeout=10).status_code == 200
        assert answers == []
        held.go_on.set()
        thread.join(30)
        assert len(answers[0].json()["predictions"]) == 10_000
