"""The script that starts a training over REST, against a real Airflow API server (no scheduler behind it)."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from airflow.models.dagrun import DagRun
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session

from tests.integration.airflow.conftest import ROOT
from tests.integration.airflow.runs import dags_of
from tests.servers import free_port, run_process, wait_for

DAG_ID, RUN_ID = "diabetes__train", "diabetes-2026-03-01"


@pytest.fixture(scope="module")
def airflow_url(world):
    dags_of(ROOT / "dags/training.py")
    passwords = world / "passwords.json"
    passwords.write_text(json.dumps({"upstream": "only-for-tests"}))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "upstream:op",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__API_AUTH__JWT_SECRET": "a secret that is long enough for the tests to be quiet, or so it seems",
    }
    port, log = free_port(), world / "api-server.log"
    command = [sys.executable, "-m", "airflow", "api-server", "--apps", "core"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with run_process(command, log, environment) as process:
        wait_for(f"http://127.0.0.1:{port}/api/v2/monitor/health", process, log)
        yield f"http://127.0.0.1:{port}"


def script(url: str, password: str = "only-for-tests") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "docs/examples/start_training.py"), "diabetes"]
    command += ["2026-03-01", "--url", url, "--user", "upstream", "--timeout", "60"]
    return subprocess.run(
        command,
        env={**os.environ, "AIRFLOW_PASSWORD": password},
        capture_output=True,
        text=True,
        timeout=90,
    )


def finish_when_there() -> dict[str, object]:
    """Do what a scheduler would: bring the run to its end, with a verdict."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with create_session() as session:
            found = session.query(DagRun).filter_by(dag_id=DAG_ID, run_id=RUN_ID).one_or_none()
            if found is not None:
                verdict = {"verdict": "HOLD", "reason": "not better", "metrics": {}}
                XComModel.set(
                    key="return_value",
                    value=verdict,
                    task_id="evaluate",
                    dag_id=DAG_ID,
                    run_id=RUN_ID,
                    serialize=False,  # as a task's own value arrives
                    session=session,
                )
                found.state = "success"
                return dict(found.conf)
        time.sleep(0.2)
    raise TimeoutError("no run was made")


def test_started_once_however_often_it_is_asked(airflow_url) -> None:
    with ThreadPoolExecutor(1) as pool:
        scheduler = pool.submit(finish_when_there)
        first = script(airflow_url)
        conf = scheduler.result()
    said = f"{RUN_ID} success HOLD: not better\n"
    assert (first.returncode, first.stdout) == (0, said), first.stderr
    assert conf == {"trigger": "api", "reason": "batch 2026-03-01"}
    again = script(airflow_url)
    assert (again.returncode, again.stdout) == (0, said), again.stderr
    with create_session() as session:
        assert session.query(DagRun).filter_by(dag_id=DAG_ID, run_id=RUN_ID).count() == 1


def test_a_wrong_password_is_no_start(airflow_url) -> None:
    refused = script(airflow_url, password="guessed")
    assert refused.returncode == 1
    assert "401" in refused.stderr
