"""Messages about failed runs, received by a real HTTP server and a real mail server."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from aiosmtpd.controller import Controller
from airflow.sdk import DAG
from evergreen.notify import FailureNotifier, send

from include.errors import ServiceError, SpecError
from tests.integration.airflow.runs import dags_of, run
from tests.servers import free_port

SECRET = "s3cret-passw0rd"
DAG_FILE = """
from airflow.sdk import DAG, task
from evergreen.notify import FailureNotifier

with DAG("shop__train", schedule=None, on_failure_callback=FailureNotifier(model="shop", to={to!r})):
    @task
    def ingest():
        raise ValueError("no data")
    ingest()
"""


@pytest.fixture
def receiver():
    """An HTTP server; what is posted below /refused is refused."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            got.append((self.path, self.headers["Authorization"], body))
            self.send_response(500 if self.path.startswith("/refused") else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"json://ann:{SECRET}@127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def mailbox():
    got = []

    class Sink:
        async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802
            got.append(envelope)
            return "250 OK"

    controller = Controller(Sink(), hostname="127.0.0.1", port=free_port())
    controller.start()
    url = f"mailto://127.0.0.1:{controller.port}?from=evergreen@example.com&to=ops@example.com&mode=insecure"
    yield url, got
    controller.stop()


def failed_run(tmp_path, to):
    path = tmp_path / "shop.py"
    path.write_text(DAG_FILE.format(to=to))
    return run(dags_of(path)["shop__train"])


def test_a_failed_run_tells_both(
    world, tmp_path, receiver, mailbox, monkeypatch, caplog, capfd
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AIRFLOW_CONN_OPS", json.dumps({"conn_type": "generic", "host": mailbox[0]}))
    ended = failed_run(tmp_path, [f"{receiver[0]}/hooks/T0KENT0KEN", "connection:ops"])
    assert ended.state == "failed"
    ((path, login, message),) = receiver[1]
    assert path == "/hooks/T0KENT0KEN"
    assert login.startswith("Basic ")
    assert message["title"] == "shop: shop__train failed"
    assert message["message"].splitlines()[:3] == [
        "a task failed",
        "Task ingest",
        f"Run {ended.run_id}",
    ]
    assert message["message"].splitlines()[3].endswith(f"/dags/shop__train/runs/{ended.run_id}")
    (mail,) = mailbox[1]
    assert mail.rcpt_tos == ["ops@example.com"]
    assert b"shop: shop__train failed" in mail.content
    assert SECRET not in caplog.text + "".join(capfd.readouterr())


def test_a_refusal_does_not_break_the_run(world, tmp_path, receiver) -> None:
    ended = failed_run(tmp_path, [f"{receiver[0]}/refused", "nonsense"])
    assert ended.state == "failed"
    assert ended.tasks == {"ingest": "failed"}
    assert len(receiver[1]) == 1


def test_the_least_that_airflow_gives(receiver) -> None:
    """A run without a task to blame: Dag, run and reason are all there is."""
    notifier = FailureNotifier(model="shop", to=[f"{receiver[0]}/x"])
    notifier({"dag": DAG("shop__train"), "run_id": "r1", "reason": "all_tasks_deadlocked"})
    ((_, _, message),) = receiver[1]
    assert message["message"].splitlines()[:2] == ["its tasks wait for each other", "Run r1"]


def test_a_wrong_receiver_does_not_keep_the_message_from_the_others(receiver) -> None:
    with pytest.raises(SpecError) as caught:
        send([f"foo://ann:{SECRET}@host", "nonsense", f"{receiver[0]}/x"], "title", "body")
    assert "must be Apprise URLs, got foo://..., text without ://" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert len(receiver[1]) == 1


def test_a_refusal_is_an_error(receiver) -> None:
    with pytest.raises(ServiceError, match="every channel must take the message") as caught:
        send([f"{receiver[0]}/refused", f"{receiver[0]}/taken"], "title", "body")
    assert SECRET not in str(caught.value)
    assert sorted(path for path, _, _ in receiver[1]) == ["/refused", "/taken"]


def test_nobody_to_tell() -> None:
    send([], "title", "body")
