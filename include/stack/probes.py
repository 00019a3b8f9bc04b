"""Asks each component itself whether it works: a process that runs is not yet a service that answers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

from include.stack.components import Component
from include.stack.supervision import Process

#: Key of each Airflow component in the answer of `/api/v2/monitor/health`.
_AIRFLOW = {
    "scheduler": ("scheduler", "latest_scheduler_heartbeat"),
    "dag-processor": ("dag_processor", "latest_dag_processor_heartbeat"),
    "triggerer": ("triggerer", "latest_triggerer_heartbeat"),
}


def _get(url: str, **options: Any) -> httpx.Response | None:
    try:
        # No proxy, whatever the environment says: these are on this machine.
        return httpx.get(url, timeout=5.0, trust_env=False, **options)
    except httpx.HTTPError:
        return None


def airflow_health(url: str) -> dict[str, Any]:
    """Return Airflow's own view of its components; empty when the api-server does not answer."""
    answer = _get(f"{url}/api/v2/monitor/health")
    if answer is None or answer.status_code != 200:
        return {}
    health: dict[str, Any] = answer.json()
    return health


def _heartbeat_ok(health: Mapping[str, Any], process: Process) -> bool:
    key, beat = _AIRFLOW[process.name]
    part = health.get(key) or {}
    if part.get("status") != "healthy" or not part.get(beat):
        return False
    # A heartbeat from before this start was another process's.
    return datetime.fromisoformat(part[beat]) >= datetime.fromtimestamp(int(process.started), UTC)


def _mlflow_ok(url: str) -> bool:
    # /health would answer even when every API call is refused.
    answer = _get(f"{url}/api/2.0/mlflow/experiments/search", params={"max_results": 1})
    return answer is not None and answer.status_code == 200


def _serving_ok(url: str) -> bool:
    # "ready" may wait for a first model; a stack is up before it has one.
    answer = _get(f"{url}/v2/health/live")
    return answer is not None and answer.status_code == 200


def check(components: tuple[Component, ...], processes: Mapping[str, Process]) -> dict[str, bool]:
    """Return for each component whether it works, asking each through its own API.

    Args:
        components: The stack's components.
        processes: What supervisord says about them.
    """
    airflow = next((c.url for c in components if c.name == "api-server"), "")
    health = airflow_health(airflow) if airflow else {}
    result = {}
    for component in components:
        process = processes.get(component.name)
        if process is None or process.state not in {"RUNNING", "STARTING"}:
            result[component.name] = False
        elif component.name in _AIRFLOW:
            result[component.name] = _heartbeat_ok(health, process)
        elif component.name == "api-server":
            result[component.name] = (health.get("metadatabase") or {}).get("status") == "healthy"
        elif component.name == "mlflow":
            result[component.name] = _mlflow_ok(component.url)
        elif component.name == "serving":
            result[component.name] = _serving_ok(component.url)
        else:
            result[component.name] = process.state == "RUNNING"
    return result
