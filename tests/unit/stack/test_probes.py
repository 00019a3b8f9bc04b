import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from include.stack.components import Component
from include.stack.probes import check
from include.stack.supervision import Process

STARTED = 1_767_225_600.0  # 2026-01-01T00:00:00Z


@pytest.fixture
def answers() -> dict[str, tuple[int, Any]]:
    """What the server says, by path; anything else is 404."""
    return {}


@pytest.fixture
def port(answers: dict[str, tuple[int, Any]]) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path.partition("?")[0], (404, {}))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *arguments: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def _check(port: int, *names: str, state: str = "RUNNING") -> dict[str, bool]:
    components = tuple(
        Component(n, (), n, "127.0.0.1", port if n in {"api-server", "mlflow", "serving"} else None)
        for n in names
    )
    return check(components, {n: Process(n, state, 1, STARTED, STARTED + 9, "") for n in names})


def _health(beat: str, status: str = "healthy") -> dict[str, Any]:
    return {
        "metadatabase": {"status": "healthy"},
        "scheduler": {"status": status, "latest_scheduler_heartbeat": beat},
        "triggerer": {"status": status, "latest_triggerer_heartbeat": None},
    }


def test_airflow_answers_for_all_of_its_components(
    port: int, answers: dict[str, tuple[int, Any]]
) -> None:
    names = ("api-server", "scheduler", "dag-processor", "triggerer")
    assert _check(port, *names) == dict.fromkeys(names, False)
    answers["/api/v2/monitor/health"] = (200, _health("2026-01-01T00:00:05+00:00"))
    assert _check(port, *names) == {
        "api-server": True,
        "scheduler": True,
        "dag-processor": False,
        "triggerer": False,
    }


def test_a_heartbeat_from_before_the_start_counts_for_nothing(
    port: int, answers: dict[str, tuple[int, Any]]
) -> None:
    answers["/api/v2/monitor/health"] = (200, _health("2025-12-31T23:59:55+00:00"))
    assert _check(port, "api-server", "scheduler")["scheduler"] is False


def test_unhealthy_is_unhealthy(port: int, answers: dict[str, tuple[int, Any]]) -> None:
    answers["/api/v2/monitor/health"] = (200, _health("2026-01-01T00:00:05+00:00", "unhealthy"))
    assert _check(port, "api-server", "scheduler")["scheduler"] is False


def test_mlflow_must_answer_its_api_not_only_its_health_page(
    port: int, answers: dict[str, tuple[int, Any]]
) -> None:
    answers["/health"] = (200, "OK")
    answers["/api/2.0/mlflow/experiments/search"] = (403, {})
    assert _check(port, "mlflow") == {"mlflow": False}
    answers["/api/2.0/mlflow/experiments/search"] = (200, {})
    assert _check(port, "mlflow") == {"mlflow": True}


def test_serving_is_up_before_it_has_a_model(
    port: int, answers: dict[str, tuple[int, Any]]
) -> None:
    answers["/v2/health/ready"] = (503, {})
    answers["/v2/health/live"] = (200, {"live": True})
    assert _check(port, "serving") == {"serving": True}


def test_who_answers_for_a_stopped_component_is_somebody_else(
    port: int, answers: dict[str, tuple[int, Any]]
) -> None:
    answers["/v2/health/live"] = (200, {"live": True})
    assert _check(port, "serving", state="FATAL") == {"serving": False}


def test_proxies_are_not_asked(
    port: int, answers: dict[str, tuple[int, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    answers["/v2/health/live"] = (200, {"live": True})
    assert _check(port, "serving") == {"serving": True}


def test_others_are_well_when_they_run(port: int) -> None:
    assert _check(port, "watcher") == {"watcher": True}
    assert _check(port, "watcher", state="STARTING") == {"watcher": False}
