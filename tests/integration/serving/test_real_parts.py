"""`python -m include.serving` as users run it, following a real MLflow server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from include.deploy.client import ServingClient
from include.deploy.probe import Probe
from include.deploy.rollout import smoke, take_over
from include.deploy.waiting import Waiting
from include.ledger.ledger import Ledger
from include.ledger.replicas import Replica
from include.registry.gateway import Registry
from include.registry.package import Package
from include.registry.trust import dump_model
from include.settings import ROOT
from include.store.features import model_frame
from tests.servers import free_port, run_process, start_mlflow
from tests.unit.serving.registry import CHURN, EXAMPLE, FEATURES, TYPES, fit, wait_for

pytestmark = pytest.mark.server


@contextmanager
def serving(home: Path, mlflow_url: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The serving process; its log is `serving.log` in `home`."""
    home.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "EVERGREEN_HOME": str(home),
        "EVERGREEN_MLFLOW_URL": mlflow_url,
        "EVERGREEN_SERVING_PORT": str(port),
    }
    command = [sys.executable, "-m", "include.serving"]
    with run_process(command, home / "serving.log", environment) as process:
        yield process


def answers(client: ServingClient, version: str | None = None) -> bool:
    """Whether the model answers (with that version) right now; False while serving is away."""
    with httpx.Client() as http:
        try:
            body = http.get(f"{client.base_url}/v2/models/churn/ready").json()
        except (httpx.HTTPError, ValueError):
            return False
    return body.get("ready") is True and version in (None, body["champion"])


def register(registry: Registry, folder: Path, pipeline: Any, key: str) -> str:
    path = folder / key / "model.skops"
    meta: Mapping[str, Any] = {"snapshot_id": key}
    package = Package(
        name="churn",
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
    run_id = registry.ensure_run("serving-test", key, key, {})
    return registry.register(package, run_id=run_id, key=key, tags={}).version


def test_the_life_of_a_model_in_serving(tmp_path: Path) -> None:
    """First champion, deploy of a challenger, MLflow away, restart without MLflow, MLflow back."""
    mlflow_port, port = free_port(), free_port()
    home = tmp_path / "home"
    with ServingClient(f"http://127.0.0.1:{port}") as client:
        with start_mlflow(tmp_path / "mlflow", port=mlflow_port) as url:
            registry = Registry(url)
            first = register(registry, tmp_path, fit(CHURN), "a")
            registry.set_alias("churn", "champion", first, expected=None)
            with serving(home, url, port) as process:
                wait_for(lambda: answers(client, first), 60)
                second = register(registry, tmp_path, fit(CHURN, seed=1), "b")
                registry.set_alias("churn", "challenger", second, expected=None)
                probe = Probe(client, "churn", second)
                ledger = Ledger(f"sqlite:///{home}/ledger.db")
                waiting = Waiting("churn", timedelta(seconds=30))

                def replicas() -> list[Replica]:
                    return ledger.live_replicas(datetime.now(UTC))

                assert smoke(probe, replicas, waiting).replicas == 1
                result = take_over(
                    probe,
                    replicas,
                    waiting,
                    promote=lambda: registry.set_alias("churn", "champion", second, expected=first),
                    undo=lambda: registry.set_alias("churn", "champion", first, expected=second),
                )
                assert (result.version, result.previous) == (second, first)
                assert result.seconds < 15
                body = client.example("churn").body
                assert client.infer("churn", body).body["model_version"] == second
                started = time.monotonic()
                process.send_signal(signal.SIGTERM)
                process.wait(15)
                assert time.monotonic() - started < 10
                assert process.returncode in (0, -signal.SIGTERM)
        with serving(home, f"http://127.0.0.1:{mlflow_port}", port):
            wait_for(lambda: answers(client, second), 60)
            state = client.ready("churn").body
            assert state["champion"] == second
            assert "must answer" in state["registry_error"]
            assert client.infer("churn", body).body["model_version"] == second
            with start_mlflow(tmp_path / "mlflow", port=mlflow_port) as url:
                Registry(url).set_alias("churn", "champion", first, expected=second)
                wait_for(lambda: answers(client, first), 30)
                assert client.ready("churn").body["registry_error"] is None
    assert "Traceback" not in (home / "serving.log").read_text()


def test_a_taken_port_is_said_plainly(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, "http://127.0.0.1:1", port):
        wait_for(lambda: _listens(port), 60)
        second = subprocess.run(
            [sys.executable, "-m", "include.serving"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "EVERGREEN_SERVING_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        status = httpx.get(f"http://127.0.0.1:{port}/v2/health/ready")
    assert second.returncode == 1
    assert second.stderr.startswith(f"serving: must be able to listen on 127.0.0.1:{port}, got")
    assert "Traceback" not in second.stderr
    assert status.status_code == 503
    assert status.json()["ready"] is False


def _listens(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v2/health/live").status_code == 200
    except httpx.HTTPError:
        return False
