"""A real uvicorn under load while champions change: not one request may fail."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import uvicorn

from include.engines import pipeline
from include.serving.app import create_app
from include.serving.follower import Follower
from include.serving.limits import Limits
from include.serving.telemetry import Metrics
from include.store.features import model_frame
from tests.servers import free_port
from tests.unit.serving.registry import CHURN, MemoryRegistry, wait_for

IN_THREADS = Limits(
    inline_ms=0
)  # so that a test may hold up a prediction, however quick the machine is


class Server:
    """uvicorn in a thread of this process."""

    def __init__(self, registry: MemoryRegistry, cache: Path) -> None:
        metrics = Metrics()
        self.follower = Follower(registry, cache, metrics, poll_seconds=0.05)
        self.port = free_port()
        config = uvicorn.Config(
            create_app(self.follower, metrics, limits=IN_THREADS),
            port=self.port,
            log_config=None,
            access_log=False,
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> Server:
        self.thread.start()
        wait_for(lambda: self.follower.ready and self.server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()


def test_no_request_fails_while_champions_change(
    registry: MemoryRegistry, pipelines: dict[str, Any], tmp_path: Path
) -> None:
    for version, name in (("1", "churn"), ("2", "churn2")):
        registry.add("churn", version, CHURN, pipelines[name])
    registry.add("churn", "3", CHURN, pipelines["churn"])
    registry.spoil("churn", "3")
    registry.set("churn", "champion", "1")
    with Server(registry, tmp_path / "cache") as server:
        base = f"http://127.0.0.1:{server.port}/v2/models/churn"
        body = orjson.dumps(httpx.get(f"{base}/example").json())
        answers: Counter[tuple[int, str]] = Counter()
        done, sent = threading.Event(), list[int]()

        def load() -> None:
            mine: Counter[tuple[int, str]] = Counter()
            with httpx.Client(headers={"Content-Type": "application/json"}) as client:
                while not done.is_set():
                    answer = client.post(f"{base}/infer", content=body)
                    mine[answer.status_code, answer.json().get("model_version", answer.text)] += 1
                    sent.append(answer.status_code)
            answers.update(mine)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        waits = []
        for version in ("2", "1", "2", "1", "3", "2"):
            started, before = time.monotonic(), len(sent)
            registry.set("churn", "champion", version)
            if version == "3":
                wait_for(lambda: server.follower.table["churn"].failures)
                continue
            wait_for(lambda version=version: server.follower.table["churn"].engine(version))
            waits.append(time.monotonic() - started)
            wait_for(lambda before=before: len(sent) > before + 10)
        done.set()
        for thread in threads:
            thread.join(10)
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers} == {"1", "2"}
    assert len(sent) > 50
    assert max(waits) < 5


def waiting(server: Server) -> float:
    page = httpx.get(f"http://127.0.0.1:{server.port}/metrics").text
    line = next(each for each in page.splitlines() if each.startswith("evergreen_serving_pending "))
    return float(line.split()[1])


def test_a_shutdown_finishes_what_was_accepted(
    registry: MemoryRegistry,
    pipelines: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry.add("churn", "1", CHURN, pipelines["churn"])
    registry.set("churn", "champion", "1")
    results: list[httpx.Response] = []
    go_on = threading.Event()
    with Server(registry, tmp_path / "cache") as server:
        base = f"http://127.0.0.1:{server.port}/v2/models/churn"
        body = httpx.get(f"{base}/example").json()

        def slow(*given: Any) -> Any:
            go_on.wait(10)
            return model_frame(*given)

        monkeypatch.setattr(pipeline, "model_frame", slow)

        def ask() -> None:
            results.append(httpx.post(f"{base}/infer", json=body, timeout=20))

        clients = [threading.Thread(target=ask) for _ in range(3)]
        for client in clients:
            client.start()
        wait_for(lambda: waiting(server) == 3)
        server.server.should_exit = True
        wait_for(lambda: not server.server.servers[0].is_serving())
        assert results == []
        go_on.set()
        for client in clients:
            client.join(20)
    assert [answer.status_code for answer in results] == [200, 200, 200]


def test_a_caller_that_goes_away_is_no_fault_of_ours(
    registry: MemoryRegistry,
    pipelines: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry.add("churn", "1", CHURN, pipelines["churn"])
    registry.set("churn", "champion", "1")
    with Server(registry, tmp_path / "cache") as server:
        with socket.create_connection(("127.0.0.1", server.port)) as line:
            line.sendall(
                b"POST /v2/models/churn/infer HTTP/1.1\r\nHost: x\r\n"
                b"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
            )
        url = f"http://127.0.0.1:{server.port}/metrics"
        wait_for(lambda: 'route="infer",status="400"' in httpx.get(url).text)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
