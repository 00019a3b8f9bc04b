"""A real MLflow with two versions of churn, real serving processes, and clients that keep them busy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from include.registry.gateway import Registry
from include.registry.package import Package
from include.registry.trust import dump_model
from include.settings import ROOT
from include.store.features import model_frame
from tests.servers import run_process, start_mlflow
from tests.unit.serving.registry import CHURN, EXAMPLE, FEATURES, TYPES, fit


def register(
    registry: Registry, folder: Path, pipeline: Any, key: str, *, name: str = "churn"
) -> str:
    """Register a pipeline as training would; return its version."""
    path = folder / name / key / "model.skops"
    meta: Mapping[str, Any] = {"snapshot_id": key}
    package = Package(
        name=name,
        model_path=path,
        sha256=dump_model(pipeline, path),
        features=FEATURES,
        types=TYPES,
        classes=CHURN["classes"],
        task="binary",
        target="churned",
        example=model_frame(EXAMPLE, FEATURES),
        meta=meta,
    )
    run_id = registry.ensure_run("serving-test", f"{name}-{key}", key, {})
    return registry.register(package, run_id=run_id, key=key, tags={}).version


@dataclass
class World:
    """An MLflow that can be taken down, with versions 1 (champion) and 2 of churn."""

    folder: Path
    port: int
    url: str = ""
    _server: Any = None

    def start_mlflow(self) -> None:
        self._server = start_mlflow(self.folder / "mlflow", port=self.port)
        self.url = self._server.__enter__()

    def stop_mlflow(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.__exit__(None, None, None)

    def promote(self, version: str) -> None:
        registry = Registry(self.url)
        now = registry.aliases("churn").get("champion")
        registry.set_alias("churn", "champion", version, expected=now)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    from tests.servers import free_port

    world = World(tmp_path_factory.mktemp("world"), free_port())
    world.start_mlflow()
    registry = Registry(world.url)
    for seed in (0, 1):
        register(registry, world.folder, fit(CHURN, seed=seed), f"s{seed}")
    registry.set_alias("churn", "champion", "1", expected=None)
    yield world
    world.stop_mlflow()


@contextmanager
def serving(
    home: Path, mlflow_url: str, port: int, **settings: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m include.serving`; its log is `serving.log` in `home`."""
    home.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "EVERGREEN_HOME": str(home),
        "EVERGREEN_MLFLOW_URL": mlflow_url,
        "EVERGREEN_SERVING_PORT": str(port),
        **{f"EVERGREEN_{name.upper()}": str(value) for name, value in settings.items()},
    }
    command = [sys.executable, "-m", "include.serving"]
    with run_process(command, home / "serving.log", environment) as process:
        yield process


def state(port: int) -> dict[str, Any]:
    """What serving says about churn right now; empty while it is away."""
    try:
        body: dict[str, Any] = httpx.get(f"http://127.0.0.1:{port}/v2/models/churn/ready").json()
    except (httpx.HTTPError, ValueError):
        return {}
    return body


def champion(port: int) -> str | None:
    """The version that answers; None while none does."""
    found = state(port)
    return found["champion"] if found.get("ready") else None


def children(pid: int) -> list[int]:
    """The processes a process started."""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(each) for each in text.split()]
    return []


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@dataclass
class Load:
    """Clients that ask one after the other, each on a connection of its own, and count what they get.

    Args:
        port: Of serving.
        clients: How many; few, for they share the cores with what they test.
        reconnect: Open a new connection for every request.
    """

    port: int
    clients: int = 3
    reconnect: bool = False
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest: float = 0.0
    _done: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Load:
        base = f"http://127.0.0.1:{self.port}/v2/models/churn"
        body = httpx.get(f"{base}/example").content
        for _ in range(self.clients):
            thread = threading.Thread(target=self._run, args=(f"{base}/infer", body))
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _run(self, url: str, body: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        if self.reconnect:
            headers["Connection"] = "close"
        client = httpx.Client(headers=headers, timeout=30)
        while not self._done.is_set():
            started = time.monotonic()
            try:
                answer = client.post(url, content=body)
            except httpx.HTTPError as error:
                outcome = (type(error).__name__, "")
            else:
                version = answer.json().get("model_version", answer.text[:200])
                outcome = (str(answer.status_code), version)
            with self._lock:
                self.answers[outcome] += 1
                self.slowest = max(self.slowest, time.monotonic() - started)
        client.close()

    @property
    def sent(self) -> int:
        return sum(self.answers.values())

    @property
    def failed(self) -> dict[tuple[str, str], int]:
        return {outcome: n for outcome, n in self.answers.items() if outcome[0] != "200"}
