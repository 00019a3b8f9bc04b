from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest
from fastapi.testclient import TestClient

from include.serving.access_log import AccessLog, Line, trace_id
from include.serving.app import create_app
from include.serving.follower import Follower
from include.serving.telemetry import Metrics
from tests.unit.serving.registry import CHURN, MemoryRegistry, wait_for

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"00-{TRACE}-{PARENT}-01", TRACE),
        (f"cc-{TRACE}-{PARENT}-01-what-comes-later", TRACE),
        (f"00-{TRACE}-{PARENT}-01-more", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-{PARENT}", None),
        (f"00-{TRACE}-{PARENT}-01\n", None),
        ("", None),
    ],
)
def test_traces(header: str, expected: str | None) -> None:
    assert trace_id(header.encode()) == expected


def lines(out: Any) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in out.getvalue().splitlines()]


def test_every_request_is_one_line(
    registry: MemoryRegistry, pipelines: dict[str, Any], tmp_path: Path
) -> None:
    registry.add("churn", "1", CHURN, pipelines["churn"])
    registry.set("churn", "champion", "1")
    metrics, out = Metrics(), io.BytesIO()
    follower = Follower(registry, tmp_path / "cache", metrics, poll_seconds=0.05)
    access_log = AccessLog(metrics, out, seconds=60)
    with TestClient(create_app(follower, metrics, access_log=access_log)) as client:
        wait_for(lambda: follower.ready)
        body = client.get("/v2/models/churn/example?secret=1").json()
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "mine"}
        answer = client.post("/v2/models/churn/infer", json=body, headers=headers)
        client.post("/v2/models/churn/infer", content=b"someone@example.com")
        client.post("/v2/models/nobody/infer", content=b"{}")
        assert out.getvalue() == b""
    found = lines(out)
    assert [(each["method"], each["path"], each["status"]) for each in found] == [
        ("GET", "/v2/models/churn/example", 200),
        ("POST", "/v2/models/churn/infer", 200),
        ("POST", "/v2/models/churn/infer", 400),
        ("POST", "/v2/models/nobody/infer", 404),
    ]
    served = found[1]
    assert (served["model"], served["version"], served["arm"]) == ("churn", "1", "champion")
    assert (served["rows"], served["request_id"], served["trace_id"]) == (3, "mine", TRACE)
    assert served["bytes"] == len(answer.content)
    assert 0 < served["ms"] < 60_000
    assert served["time"].endswith("Z")
    assert (found[2]["model"], found[2]["version"], found[3]["model"]) == ("churn", None, None)
    assert b"secret" not in out.getvalue()
    assert b"someone" not in out.getvalue()


class Stuck(io.BytesIO):
    """An output that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go_on = threading.Event(), threading.Event()

    def write(self, data: Any) -> int:
        self.entered.set()
        self.go_on.wait(10)
        return super().write(data)


def line(number: int) -> Line:
    return Line(1.0, "GET", f"/{number}", 200, 1.0, 0)


def test_an_output_nobody_reads_costs_lines_and_nothing_else() -> None:
    metrics, out = Metrics(), Stuck()
    log = AccessLog(metrics, out, waiting=3, seconds=0.001)
    log.start()
    log.put(line(0))
    assert out.entered.wait(10)
    for number in range(1, 6):
        log.put(line(number))
    assert b"access_log_dropped_lines_total 2.0" in metrics.exposition()
    out.go_on.set()
    log.close()
    assert [each["path"] for each in lines(out)] == ["/0", "/1", "/2", "/3"]


def test_an_output_that_is_gone_ends_nothing() -> None:
    metrics, out = Metrics(), io.BytesIO()
    out.close()
    log = AccessLog(metrics, out, seconds=0.001)
    log.start()
    log.put(line(0))
    wait_for(lambda: b"access_log_dropped_lines_total 1.0" in metrics.exposition())
    log.put(line(1))
    log.close()
    assert b"access_log_dropped_lines_total 2.0" in metrics.exposition()
