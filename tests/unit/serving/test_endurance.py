"""A real serving process under fuzzers and thousands of requests: no 500, no crash, no hang, no growth."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from include.settings import ROOT
from tests.servers import free_port, run_process
from tests.unit.serving.registry import wait_for

pytestmark = pytest.mark.server

# OIP tensors and MLflow's forms have rules between their parts (as many values as the shape says, every feature
# once) that JSON Schema cannot say, so what fits the schema may be refused. Everything else is checked.
NOT_CHECKED = "positive_data_acceptance"


@dataclass
class Server:
    """A running process."""

    url: str
    port: int
    process: psutil.Process
    log: Path

    def megabytes(self) -> float:
        return self.process.memory_info().rss / 2**20

    def series(self) -> list[str]:
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]

    def check(self) -> None:
        """Raise unless it still answers, and never failed."""
        assert httpx.get(f"{self.url}/v2/health/ready").json()["ready"] is True
        example = httpx.get(f"{self.url}/v2/models/churn/example").json()
        assert httpx.post(f"{self.url}/v2/models/churn/infer", json=example).status_code == 200
        assert "Traceback" not in self.log.read_text()
        assert [line for line in self.series() if 'status="500"' in line] == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("fuzzed"), free_port()
    command = [sys.executable, "-m", "tests.unit.serving.fuzz_server", str(folder), str(port)]
    log = folder / "serving.log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with run_process(command, log, environment) as process:
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            try:
                return httpx.get(f"{url}/v2/health/ready").status_code == 200
            except httpx.HTTPError:
                return False

        wait_for(ready, 120)
        yield Server(url, port, psutil.Process(process.pid), log)


def test_schemathesis(server: Server, tmp_path: Path) -> None:
    """Its own OpenAPI document, fuzzed for a minute."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run"]
    command += [f"{server.url}/openapi.json?model=churn", "--phases", "examples,coverage,fuzzing"]
    command += ["--max-time", "45", "--seed", "1", "--no-shrink", "--continue-on-failure"]
    command += ["--exclude-checks", NOT_CHECKED, "--suppress-health-check", "all"]
    command += ["--request-timeout", "20", "--warnings", "off"]
    finished = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
    )
    assert finished.returncode == 0, finished.stdout[-8000:]
    cases = re.search(r"([\d,]+) generated", finished.stdout)
    assert cases is not None
    assert int(cases[1].replace(",", "")) > 300
    server.check()


def traffic(server: Server, rounds: int, first: int) -> None:
    """Right and wrong requests; names, ids and keys never repeat."""
    row = {"age": 30, "income": 1.5, "member": True, "region": "n", "plan": "1", "seen_at": None}
    with httpx.Client(base_url=server.url, timeout=30) as client:
        example = client.get("/v2/models/colour/example").json()
        for number in range(first, first + rounds):
            odd = f"odd-{number}"
            sent = [
                client.post("/predict/churn", json={**row, "customer": odd}),
                client.post("/v2/models/colour/infer", json={**example, "id": odd}),
                client.post("/models/price/invocations", json={"dataframe_records": [row]}),
                client.post(f"/v2/models/{odd}/infer", json=example),
                client.post(f"/predict/{odd}", content=b"{"),
                client.post(f"/v2/models/churn/versions/{number + 2}/infer", json=example),
                client.post("/predict/churn", json={**row, odd: 1}, headers={"x-request-id": odd}),
                client.get(f"/{odd}"),
                client.request("PATCH", f"/v2/models/{odd}"),
                client.get("/openapi.json", params={"model": odd}),
            ]
            assert [answer.status_code for answer in sent] == [
                *(200, 200, 200, 404, 404, 404, 400, 404, 405, 404)
            ]


def test_nothing_grows(server: Server) -> None:
    traffic(server, 150, 0)
    before, threads, series = server.megabytes(), server.process.num_threads(), server.series()
    traffic(server, 300, 1000)
    assert server.megabytes() - before < 15
    assert server.process.num_threads() <= threads + 2
    assert sorted(server.series()) == sorted(series)
    assert not [line for line in series if "odd-" in line]
    assert len(series) < 1000
    server.check()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00" * 64,
        b"GET /v2 HTTP/9.9\r\n\r\n",
        b"GET " + b"/a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
        b"POST /predict/churn HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /predict/churn HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict/churn HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /predict/churn HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{",
        b"POST /predict/\xff\xfe HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /predict/%ff%00 HTTP/1.1\r\nHost: x\r\nX-Request-Id: \xff\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_raw_bytes(server: Server, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            answer = b""  # it may hang up on nonsense
    assert not answer.startswith(b"HTTP/1.1 5")
    server.check()


def test_deep_and_wide_bodies(server: Server) -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    wide = b'{"rows": [' + b"{}," * 300_000 + b"{}]}"
    names = b'{"inputs": {' + b",".join(b'"c%d": [1]' % n for n in range(50_000)) + b"}}"
    for path in ("/predict/churn", "/v2/models/churn/infer", "/models/churn/invocations"):
        for body in (deep, wide, names, b'{"inputs": ' + deep + b"}"):
            answer = httpx.post(f"{server.url}{path}", content=body, timeout=60)
            assert answer.status_code == 400, (path, answer.text)
            assert len(answer.content) < 5000
    server.check()
