"""The client against a small stand-in for Airflow; tests/e2e uses the real one."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from include.errors import ConflictError, ServiceError, SpecError
from include.settings import Settings
from include.stack import airflow_replies
from include.stack.airflow_client import AirflowClient, TaskState, open_client
from include.stack.credentials import ensure_credentials
from include.stack.layout import Layout

Reply = tuple[int, Any]


@dataclass
class Airflow:
    """Answers by method and path; counts logins; forgets tokens when told to."""

    url: str = ""
    logins: int = 0
    valid: set[str] = field(default_factory=set)
    replies: dict[str, Callable[[dict[str, Any]], Reply]] = field(default_factory=dict)
    seen: list[tuple[str, Any]] = field(default_factory=list)

    def answer(self, method: str, path: str, token: str, body: dict[str, Any]) -> Reply:
        if path == "/auth/token":
            if body != {"username": "anna", "password": "right"}:
                return 401, {"detail": "Invalid credentials"}
            self.logins += 1
            self.valid = {f"Bearer t{self.logins}"}
            return 201, {"access_token": f"t{self.logins}"}
        if token not in self.valid:
            return 401, {"detail": "Not authenticated"}
        self.seen.append((f"{method} {path}", body))
        reply = self.replies.get(f"{method} {path.partition('?')[0].removeprefix('/api/v2')}")
        return reply(body) if reply else (404, {"detail": f"{path} not found"})


@pytest.fixture
def airflow() -> Iterator[Airflow]:
    it = Airflow()

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            token = self.headers.get("Authorization") or ""
            status, reply = it.answer(self.command, self.path, token, body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        do_GET = do_POST = do_PATCH = _reply  # noqa: N815 - the server's names

        def log_message(self, format: str, *arguments: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    it.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield it
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(airflow: Airflow) -> Iterator[AirflowClient]:
    with AirflowClient(airflow.url, "anna", "right") as client:
        yield client


def _task(
    name: str, state: str | None, index: int = -1, label: str | None = None
) -> dict[str, Any]:
    return {
        "task_id": name,
        "map_index": index,
        "state": state,
        "try_number": 1,
        "duration": 1.5,
        "rendered_map_index": label,
    }


def test_one_login_serves_many_requests(airflow: Airflow, client: AirflowClient) -> None:
    airflow.replies["GET /dags/d/details"] = lambda _: (200, {"dag_id": "d"})
    assert client.dag("d") == client.dag("d") == {"dag_id": "d"}
    assert airflow.logins == 1


def test_a_token_that_ran_out_is_renewed(airflow: Airflow, client: AirflowClient) -> None:
    airflow.replies["GET /dags/d/details"] = lambda _: (200, {"dag_id": "d"})
    client.dag("d")
    airflow.valid.clear()
    assert client.dag("d") == {"dag_id": "d"}
    assert airflow.logins == 2


def test_a_wrong_login_is_said(airflow: Airflow) -> None:
    with (
        AirflowClient(airflow.url, "anna", "wrong") as client,
        pytest.raises(ServiceError, match="must accept the login of 'anna', got status 401"),
    ):
        client.dag("d")


def test_nobody_there(client: AirflowClient) -> None:
    with (
        AirflowClient("http://127.0.0.1:9", "anna", "right") as away,
        pytest.raises(ServiceError, match=r"Airflow .* must answer, got ConnectError"),
    ):
        away.dag("d")


def test_trigger_sends_what_airflow_asks_for(airflow: Airflow, client: AirflowClient) -> None:
    airflow.replies["POST /dags/d/dagRuns"] = lambda body: (200, {"dag_run_id": body["dag_run_id"]})
    assert client.trigger("d", {"force": True}, "r 1") == {"dag_run_id": "r 1"}
    body = {"logical_date": None, "conf": {"force": True}, "dag_run_id": "r 1"}
    assert airflow.seen == [("POST /api/v2/dags/d/dagRuns", body)]


@pytest.mark.parametrize(
    ("busy", "waits", "works", "asked"), [(2, 0, True, 3), (9, 0, False, 4), (2, 60, False, 1)]
)
def test_a_locked_database_is_asked_again(
    airflow: Airflow,
    client: AirflowClient,
    monkeypatch: pytest.MonkeyPatch,
    busy: int,
    waits: float,
    works: bool,
    asked: int,
) -> None:
    monkeypatch.setattr(airflow_replies, "LOCK_SECONDS", waits)

    def reply(_: dict[str, Any]) -> Reply:
        locked = len(airflow.seen) <= busy
        return (500, {"detail": {"reason": "Database error"}}) if locked else (200, {"state": "x"})

    airflow.replies["GET /dags/d/dagRuns/r"] = reply
    if works:
        assert client.run("d", "r") == {"state": "x"}
    else:
        with pytest.raises(ServiceError, match=r"got status 500.*Database error"):
            client.run("d", "r")
    assert len(airflow.seen) == asked


@pytest.mark.parametrize(
    ("status", "detail", "kind", "words"),
    [
        (
            400,
            "Invalid input for param force: 'x' is not of type 'boolean'\n\nFailed validating",
            SpecError,
            r"got Invalid input for param force: 'x' is not of type 'boolean'\. Correct",
        ),
        (404, "Dag not found", SpecError, "Run of d: must exist, got Dag not found"),
        (409, {"reason": "Unique constraint violation"}, ConflictError, "Unique constraint"),
        (422, [{"loc": ["body", "conf"], "msg": "Input"}], SpecError, "body.conf: Input"),
        (403, "Forbidden", ServiceError, "must be allowed, got status 403"),
        (500, None, ServiceError, "must work, got status 500"),
    ],
)
def test_every_refusal_is_one_clear_error(
    airflow: Airflow,
    client: AirflowClient,
    status: int,
    detail: Any,
    kind: type[Exception],
    words: str,
) -> None:
    airflow.replies["POST /dags/d/dagRuns"] = lambda _: (status, {"detail": detail})
    with pytest.raises(kind, match=words):
        client.trigger("d")


def test_tasks_of_all_pages(airflow: Airflow, client: AirflowClient) -> None:
    pages = [
        {"task_instances": [_task("a", "success")] * 100, "total_entries": 101},
        {"task_instances": [_task("b", None, 3, "HGB")], "total_entries": 101},
    ]
    path = "GET /dags/d/dagRuns/r%2F1/taskInstances"
    airflow.replies[path] = lambda _: (200, pages[int("offset=100" in airflow.seen[-1][0])])
    tasks = client.task_instances("d", "r/1")
    assert len(tasks) == 101
    assert tasks[-1] == TaskState("b", 3, None, 1, 1.5, "HGB")
    assert (tasks[0].name, tasks[-1].name) == ("a", "b [HGB]")


def test_wait_follows_to_the_end_and_survives_a_restart(
    airflow: Airflow, client: AirflowClient
) -> None:
    states = iter([(200, {"state": "running"}), (503, {}), (200, {"state": "failed"})])
    airflow.replies["GET /dags/d/dagRuns/r"] = lambda _: next(states)
    tasks = [_task("a", "failed"), _task("b", "upstream_failed")]
    page = {"task_instances": tasks, "total_entries": 2}
    airflow.replies["GET /dags/d/dagRuns/r/taskInstances"] = lambda _: (200, page)
    seen: list[str] = []
    result = client.wait("d", "r", lambda state, _tasks: seen.append(state), poll=0.01)
    assert seen == ["running", "failed"]
    assert [task.name for task in result.failed_tasks] == ["a"]


def test_wait_gives_up_when_told_to(airflow: Airflow, client: AirflowClient) -> None:
    airflow.replies["GET /dags/d/dagRuns/r"] = lambda _: (200, {"state": "running"})
    page = {"task_instances": [], "total_entries": 0}
    airflow.replies["GET /dags/d/dagRuns/r/taskInstances"] = lambda _: (200, page)
    with pytest.raises(ServiceError, match="must end within 0 s, got no end"):
        client.wait("d", "r", timeout=0.05, poll=0.01)
    airflow.replies["GET /dags/d/dagRuns/r"] = lambda _: (503, {})
    with pytest.raises(ServiceError, match="got status 503"):
        client.wait("d", "r", patience=0.05, poll=0.01)


def test_a_dag_is_waited_for(airflow: Airflow, client: AirflowClient) -> None:
    replies: Iterator[Reply] = iter([(404, {"detail": "not found"}), (200, {"dag_id": "d"})])
    airflow.replies["GET /dags/d/details"] = lambda _: next(replies)
    assert client.wait_for_dag("d", timeout=5) == {"dag_id": "d"}


def test_a_dag_that_never_comes_says_what_broke_it(airflow: Airflow, client: AirflowClient) -> None:
    errors: list[dict[str, str]] = []
    airflow.replies["GET /importErrors"] = lambda _: (200, {"import_errors": errors})
    with pytest.raises(SpecError, match="Dag d: must exist"):
        client.wait_for_dag("d", timeout=0)
    errors.append({"stack_trace": "Traceback\n  ...\nNameError: name 'x' is not defined\n"})
    with pytest.raises(SpecError, match="Dag d: must be parsed, got NameError: name 'x'"):
        client.wait_for_dag("d", timeout=0)


def test_the_last_error_of_a_log(airflow: Airflow, client: AirflowClient) -> None:
    task = TaskState("a", -1, "failed", 2, 1.0, None)
    assert client.last_words("d", "r", task) == ""
    path = "GET /dags/d/dagRuns/r/taskInstances/a/logs/2"
    content: list[Any] = [
        {"level": "error", "event": "earlier"},
        {
            "level": "error",
            "event": "Task failed with exception",
            "error_detail": [{"exc_type": "DataError", "exc_value": "no rows."}],
        },
        {"level": "info", "event": "bye"},
        "a plain line",
    ]
    airflow.replies[path] = lambda _: (200, {"content": content})
    assert client.last_words("d", "r", task) == "DataError: no rows."
    content[1]["error_detail"] = [
        {"exc_type": "AirflowFailException", "exc_value": "churn: must have rows, got none."}
    ]
    assert client.last_words("d", "r", task) == "churn: must have rows, got none."


def test_xcom(airflow: Airflow, client: AirflowClient) -> None:
    path = "GET /dags/d/dagRuns/r/taskInstances/a/xcomEntries/return_value"
    airflow.replies[path] = lambda _: (200, {"value": {"verdict": "HOLD"}})
    assert client.xcom("d", "r", "a") == {"verdict": "HOLD"}


def test_the_login_comes_from_the_url_or_from_the_stack(
    airflow: Airflow, layout: Layout, settings: Settings
) -> None:
    airflow.replies["GET /dags/d/details"] = lambda _: (200, {"dag_id": "d"})
    with pytest.raises(ServiceError, match="must have been started once, got no passwords"):
        open_client(settings)
    url = airflow.url.replace("://", "://anna:right@")
    with open_client(Settings(home=layout.home, airflow_url=url)) as client:
        assert client.url == airflow.url
        assert client.dag("d") == {"dag_id": "d"}
    ensure_credentials(layout)
    with open_client(settings) as client:
        assert client.url == "http://127.0.0.1:8080"
