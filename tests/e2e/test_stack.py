"""The embedded stack as a user meets it: `./evergreen` and nothing else."""

import json
import os
import re
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from include.errors import ServiceError
from include.stack import leftovers
from include.stack.airflow_client import AirflowClient
from include.stack.credentials import read_credentials
from include.stack.layout import get_layout
from tests.e2e.stack import Stack, wait_until
from tests.models import small_spec, write_spec

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that these tests may maltreat, in a folder with a space in its name."""
    it = Stack(tmp_path_factory.mktemp("a stack"))
    try:
        yield it
    finally:
        it.down()
        assert leftovers.find(it.home) == []


@pytest.fixture(scope="module")
def first_words(own: Stack) -> str:
    """What the first `up` says; the tests that need a running stack ask for it."""
    own.models.mkdir()
    done = own.command("up")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _status(stack: Stack) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(stack.command("status", "--json").stdout)
    return status


def _admin(stack: Stack) -> str:
    credentials = read_credentials(get_layout(stack.home))
    assert credentials
    return credentials.admin


def test_up_says_where_everything_is_and_the_login(own: Stack, first_words: str) -> None:
    ports = (own.settings.airflow_port, own.settings.mlflow_port, own.settings.serving_port)
    assert all(f"http://127.0.0.1:{port}" in first_words for port in ports)
    assert f"admin / {_admin(own)}" in first_words
    assert _status(own)["healthy"] is True


def test_a_second_up_changes_nothing_and_keeps_the_password_to_itself(
    own: Stack, first_words: str
) -> None:
    pids = [component["pid"] for component in _status(own)["components"]]
    done = own.command("up")
    assert (done.returncode, "Already up." in done.stdout) == (0, True)
    assert _admin(own) not in done.stdout
    assert [component["pid"] for component in _status(own)["components"]] == pids
    assert own.command("password").stdout.strip() == _admin(own)


def test_it_listens_on_this_machine_only(own: Stack, first_words: str) -> None:
    listening = {
        connection.laddr
        for process in leftovers.find(own.home)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    ports = {own.settings.airflow_port, own.settings.mlflow_port, own.settings.serving_port}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {address.port for address in listening} == ports


def test_secrets_are_private_and_in_no_log(own: Stack, first_words: str) -> None:
    layout = get_layout(own.home)
    assert stat.S_IMODE(own.home.stat().st_mode) == 0o700
    for name in ("credentials.json", "airflow-passwords.json", "run/supervisor.sock"):
        assert stat.S_IMODE((own.home / name).stat().st_mode) == 0o600
    secrets = json.loads(layout.credentials.read_text()).values()
    texts = [path.read_text(errors="replace") for path in layout.logs.rglob("*.log")]
    texts += [path.read_text(errors="replace") for path in layout.run.glob("*.*") if path.is_file()]
    assert texts
    assert not any(secret in text for secret in secrets for text in texts)


def test_who_may_do_what(own: Stack, first_words: str) -> None:
    credentials = read_credentials(get_layout(own.home))
    assert credentials
    url = own.settings.airflow
    assert httpx.get(f"{url}/api/v2/dags").status_code == 401
    for password in ("admin", "airflow", ""):
        login = {"username": "admin", "password": password}
        assert httpx.post(f"{url}/auth/token", json=login).status_code in {400, 401}
    own.add_model("guarded")
    with AirflowClient(url, "viewer", credentials.viewer) as viewer:
        viewer.wait_for_dag("guarded__train", timeout=60)
        with pytest.raises(ServiceError, match="must be allowed, got status 403"):
            viewer.trigger("guarded__train")


def test_a_new_spec_is_trained_seconds_later(own: Stack, first_words: str) -> None:
    own.add_model("quick")
    # Well below the interval at which Airflow would look again by itself.
    own.airflow.wait_for_dag("quick__train", timeout=60)

    done = own.command("trigger", "quick", "--run-id", "first", "-p", "reason=a test")
    assert done.returncode == 0, done.stdout + done.stderr
    for task in (
        "admit",
        "ingest",
        "validate",
        "train.fit",
        "evaluate",
        "register",
        "deploy.promote",
    ):
        assert re.search(rf"✓ {re.escape(task)}\s", done.stdout), done.stdout
    assert "PROMOTE: " in done.stdout

    again = own.command("trigger", "quick", "--run-id", "first")
    assert (again.returncode, len(again.stderr.splitlines())) == (1, 1)
    assert "must be new, got one that exists" in again.stderr
    wrong = own.command("trigger", "quick", "-p", "force=lots")
    assert "'lots' is not of type 'boolean'" in wrong.stderr
    unknown = own.command("trigger", "quick", "-p", "forse=true")
    assert "Did you mean 'force'?" in unknown.stderr


def test_what_happened_can_be_read(own: Stack, first_words: str) -> None:
    history = json.loads(own.command("history", "quick", "--json").stdout)
    kinds = [event["kind"] for event in history["events"]]
    assert history["intact"] is True
    assert kinds.index("decision") < kinds.index("verdict") < kinds.index("promotion")
    lineage = json.loads(own.command("lineage", "quick", "--json").stdout)
    assert (lineage["version"], lineage["aliases"]) == ("1", ["champion"])
    assert lineage["tags"]["airflow.run_id"] == "first"
    assert httpx.get(lineage["run_url"].partition("#")[0]).status_code == 200
    missing = own.command("lineage", "quick", "9")
    assert missing.stderr.startswith("Error: MLflow model 'quick': must have version 9, got 1")
    assert len(missing.stderr.splitlines()) == 1
    assert "a rollback needs another version" in own.command("rollback", "quick").stderr


def test_run_needs_no_scheduler_and_rollback_undoes_it(own: Stack, first_words: str) -> None:
    changes = {"train": {"seed": 7}}
    write_spec(own.models, small_spec("quick", own.data("quick"), **changes))
    done = own.command("run", "quick", "-p", "force=true", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    states = {task["task_id"]: task["state"] for task in json.loads(done.stdout)["tasks"]}
    assert (states["train.fit"], states["deploy.promote"]) == ("success", "success")
    assert own.serves("quick") == "2"
    # The scheduler's Airflow knows nothing of it.
    assert [run["dag_run_id"] for run in own.airflow.runs("quick__train")] == ["first"]

    done = own.command("rollback", "quick", "--reason", "a test")
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[:1] == ["Champion of quick: version 1 (was 2)."]
    assert said[-1].startswith("1 serving process answers with it")
    assert own.serves("quick") == "1"


def test_a_failed_run_says_why(own: Stack, first_words: str) -> None:
    spec = small_spec("lost", own.home / "nowhere")
    write_spec(own.models, spec)
    own.airflow.wait_for_dag("lost__train", timeout=60)
    done = own.command("trigger", "lost")
    assert done.returncode == 1
    assert "✗ ingest" in done.stdout
    assert re.search(r"^ingest: .*nowhere", done.stdout, re.M), done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_taken_port_is_said_plainly(own: Stack, first_words: str, tmp_path: Path) -> None:
    other = Stack(tmp_path / "other")
    taken = own.settings.mlflow_port
    other.settings = other.settings.model_copy(update={"mlflow_port": taken})
    done = other.command("up")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert f"Port {taken} (MLflow): must be free on 127.0.0.1, got one in use by" in done.stderr
    assert "set EVERGREEN_MLFLOW_PORT to another port" in done.stderr
    assert leftovers.find(other.home) == []


def test_whatever_is_killed_comes_back(own: Stack, first_words: str) -> None:
    before = {c["name"]: c["pid"] for c in _status(own)["components"]}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    wait_until("all are back", lambda: _status(own)["healthy"], 120)
    after = {c["name"]: c["pid"] for c in _status(own)["components"]}
    assert not set(before.values()) & set(after.values())
    # Neither MLflow's server process nor Airflow's idle workers stay behind.
    wait_until("no orphans", lambda: _orphans(own) == [], 30)
    assert own.serves("quick") == "1"


def _orphans(stack: Stack) -> list[str]:
    """Processes of the stack whose parent is none of it; supervisord is meant to be the only one."""
    processes = leftovers.find(stack.home)
    pids = {process.pid for process in processes}
    names = []
    for process in processes:
        try:
            if process.ppid() not in pids and "supervisor.supervisord" not in process.cmdline():
                names.append(" ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return names


def test_a_killed_supervisor_is_replaced(own: Stack, first_words: str) -> None:
    pid = int((own.home / "run" / "supervisord.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    wait_until("it is noticed", lambda: _status(own)["leftovers"], 10)
    assert "The supervisor is gone" in own.command("status").stdout
    done = own.command("up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "an earlier stack left behind" in done.stdout
    assert _orphans(own) == []
    assert own.serves("quick") == "1"


def test_down_ends_everything_and_nobody_else(own: Stack, first_words: str, stack: Stack) -> None:
    assert own.command("down").stdout == "Stopped.\n"
    assert leftovers.find(own.home) == []
    assert own.command("down").stdout == "Nothing was running.\n"
    assert own.command("status").returncode == 3
    assert _status(stack)["healthy"] is True
