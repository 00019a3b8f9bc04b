"""An upstream job outside Airflow that starts a training run over REST, waits, and prints what came of it.

    AIRFLOW_PASSWORD=... python start_training.py churn 2026-03-01

The run's id is made from the model and the batch: started twice, the same batch is one run.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

import httpx


def log_in(url: str, user: str, password: str) -> httpx.Client:
    """Return a client that carries an access token."""
    answer = httpx.post(f"{url}/auth/token", json={"username": user, "password": password})
    answer.raise_for_status()
    token = answer.json()["access_token"]
    return httpx.Client(
        base_url=f"{url}/api/v2", headers={"Authorization": f"Bearer {token}"}, timeout=30
    )


def start(client: httpx.Client, dag_id: str, run_id: str, reason: str) -> None:
    """Start a run; one of this id that is there already is as good."""
    answer = client.post(
        f"/dags/{dag_id}/dagRuns",
        json={
            "dag_run_id": run_id,
            "logical_date": None,
            "conf": {"trigger": "api", "reason": reason},
        },
    )
    if answer.status_code != httpx.codes.CONFLICT:
        answer.raise_for_status()


def wait(client: httpx.Client, dag_id: str, run_id: str, seconds: float) -> str:
    """Return the state in which a run ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = client.get(f"/dags/{dag_id}/dagRuns/{run_id}")
        answer.raise_for_status()
        state = str(answer.json()["state"])
        if state in ("success", "failed"):
            return state
        time.sleep(2)
    raise TimeoutError(f"{run_id} is not done after {seconds} seconds")


def handed_on(client: httpx.Client, dag_id: str, run_id: str, task: str, key: str) -> Any:
    """Return what a task handed on; None where it was skipped or not reached."""
    answer = client.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task}/xcomEntries/{key}")
    if answer.status_code == httpx.codes.NOT_FOUND:
        return None
    answer.raise_for_status()
    return answer.json()["value"]


def result(client: httpx.Client, dag_id: str, run_id: str) -> list[str]:
    """Return the gate's verdict, the version if one was registered, and the reason; nothing for a failure."""
    found = (client, dag_id, run_id)
    verdict = handed_on(*found, "evaluate", "return_value")
    if verdict is None:  # nothing was trained; where that was a decision, its task says why
        reasons = (handed_on(*found, task, "skip_reason") for task in ("admit", "ingest"))
        return [f"SKIP: {reason}" for reason in reasons if reason]
    made = handed_on(*found, "register", "return_value")
    version = f" version {made['version']}" if made else ""
    return [f"{verdict['verdict']}{version}: {verdict['reason']}"]


def main() -> int:
    """Start, wait, print."""
    parser = argparse.ArgumentParser(description="Start a training run.")
    parser.add_argument("model")
    parser.add_argument("batch", help="what is new: a date, a file's name")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--user", default="admin")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds")
    given = parser.parse_args()

    dag_id, run_id = f"{given.model}__train", f"{given.model}-{given.batch}"
    with log_in(given.url, given.user, os.environ["AIRFLOW_PASSWORD"]) as client:
        start(client, dag_id, run_id, reason=f"batch {given.batch}")
        state = wait(client, dag_id, run_id, given.timeout)
        print(run_id, state, *result(client, dag_id, run_id))
    return 0 if state == "success" else 1


if __name__ == "__main__":
    sys.exit(main())
