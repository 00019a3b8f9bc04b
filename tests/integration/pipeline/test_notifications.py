"""A training run tells its people: one message per event, with numbers and links, by HTTP and by mail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from tests.integration.pipeline.test_verdicts import MUCH_BETTER, QUICK, of_kind
from tests.integration.pipeline.world import Run, World
from tests.models import write_days
from tests.receivers import SECRET, Hook, Mailbox, start_hook, start_mailbox
from tests.servers import free_port

pytestmark = pytest.mark.server
EVERYTHING = ["failure", "promotion", "rejection", "drift", "rollback", "approval"]


@pytest.fixture
def hook() -> Iterator[Hook]:
    with start_hook() as it:
        yield it


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with start_mailbox() as it:
        yield it


def told(world: World, model: str) -> list[str]:
    """Events of the messages the ledger knows of."""
    return [said["event"] for said in of_kind(world, model, "notified")]


def pages(text: str, run: Run, world: World, model: str) -> None:
    """Assert that a message links to the run in Airflow and in MLflow."""
    lines = text.splitlines()
    assert any(x.endswith(f"/dags/{model}__train/runs/{run.run_id}") for x in lines), text
    run_id = of_kind(world, model, "verdict")[-1]["run_id"]
    (mlflow,) = [x for x in lines if x.startswith("MLflow run: ")]
    assert mlflow.startswith(f"MLflow run: {world.settings.mlflow}/")
    assert mlflow.endswith(run_id)


def test_a_models_life_in_messages(world: World, hook: Hook, mailbox: Mailbox) -> None:
    to = {"notify": {"on": EVERYTHING, "to": [hook.url(), mailbox.url]}}
    world.add_model("told", **QUICK, **to)
    first = world.run("told__train")
    assert first.state == "success"
    ((title, text),) = hook.messages
    assert title == "told: version 1 is champion"
    assert "roc_auc: 0." in text
    assert "% interval" in text
    assert "It is the first champion." in text
    pages(text, first, world, "told")

    world.run("told__train")  # no new data: nothing happened
    world.write_spec("told", **QUICK, **to, evaluate=MUCH_BETTER)
    write_days(world.data("told"), first=40, days=10)
    held = world.run("told__train")
    verdict = of_kind(world, "told", "verdict")[-1]
    assert hook.titles[1:] == ["told: not promoted (HOLD)"]
    text = hook.messages[1][1]
    assert text.splitlines()[0] == verdict["reason"]
    assert "(champion, version 1)" in text
    pages(text, held, world, "told")

    world.write_spec("told", **QUICK, **to)
    write_days(world.data("told"), first=50, days=5)
    assert world.run("told__train").tasks["deploy.promote"] == "success"
    champion = world.registry.aliases("told")["champion"]
    assert hook.titles[2:] == [f"told: version {champion} is champion"]
    assert "It replaces version 1." in hook.messages[2][1]

    done = world.command("rollback", "told", "--reason", "complaints")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-2:] == ["Told json://...", "Told mailto://..."]
    assert hook.titles[3:] == ["told: back to version 1"]
    assert f"Version {champion} was taken back: complaints" in hook.messages[3][1]

    world.write_spec("told", **QUICK, **to, validate={"min_rows": 100_000})
    failed = world.run("told__train")
    assert failed.failure[0] == "validate"
    assert hook.titles[4:] == ["told: told__train failed"]
    assert f"Task validate\nRun {failed.run_id}\n" in hook.messages[4][1]

    events = ["promotion", "rejection", "promotion", "rollback", "failure"]
    assert told(world, "told") == events
    assert [subject for subject, _ in mailbox.messages] == hook.titles
    assert world.ledger.verify("told").ok
    assert SECRET not in world.log.read_text() + done.stdout + done.stderr


@contextmanager
def stubborn(serving: str) -> Iterator[str]:
    """Run a proxy in front of serving that answers for versions, and never as champion; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path.endswith("/infer") and "/versions/" not in self.path:
                status, content = 503, b"{}"
            else:
                reply = httpx.request(self.command, serving + self.path, content=body, timeout=30)
                status, content = reply.status_code, reply.content
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_promotion_that_was_taken_back_is_told(world: World, hook: Hook) -> None:
    notify = {"on": EVERYTHING, "to": [hook.url()]}
    world.add_model("undone", **QUICK, notify=notify, deploy={"timeout": "20s"})
    with stubborn(world.settings.serving) as url:
        run = world.run("undone__train", environment={"EVERGREEN_SERVING_URL": url})
    assert run.failure[0] == "deploy.promote"
    assert sorted(hook.titles) == [
        "undone: no champion is left",
        "undone: undone__train failed",
    ]
    text = dict(hook.messages)["undone: no champion is left"]
    assert "Version 1 was taken back: serving did not answer with the new champion" in text
    pages(text, run, world, "undone")
    assert sorted(told(world, "undone")) == ["failure", "rollback"]


def test_a_receiver_that_is_away_does_not_fail_the_run(world: World, hook: Hook) -> None:
    away = f"json://127.0.0.1:{free_port()}/x"
    to = [away, "connection:nobody", hook.url()]
    world.add_model("lonely", **QUICK, notify={"on": ["promotion"], "to": to})
    run = world.run("lonely__train")
    assert run.state == "success"
    assert hook.titles == ["lonely: version 1 is champion"]
    (said,) = of_kind(world, "lonely", "notified")
    assert said["taken"] == ["json://..."]
    assert [missed.partition(": ")[0] for missed in said["missed"]] == [
        "json://...",
        "connection:nobody",
    ]
    assert "somebody did not hear 'lonely: version 1 is champion'" in world.log.read_text()


def test_nobody_asked_nobody_told(world: World, hook: Hook) -> None:
    notify: dict[str, Any] = {"on": ["failure"], "to": [hook.url()]}
    world.add_model("quiet", **QUICK, notify=notify)
    assert world.run("quiet__train").state == "success"
    assert world.command("rollback", "quiet", "--to", "1").returncode == 1  # is champion already
    assert hook.posts == []
    assert told(world, "quiet") == []


def test_the_nightly_run_says_why_it_did_nothing(world: World) -> None:
    night = {"trigger": "schedule"}
    world.add_model("nightly", **QUICK)
    assert world.run("nightly__train", night).state == "success"
    again = world.run("nightly__train", night)
    assert again.state == "success"
    assert again.tasks["admit"] == "skipped", "the cool-down holds it back"
    assert of_kind(world, "nightly", "decision")[-1]["reason"].startswith("cooling down until ")
    world.write_spec("nightly", **QUICK, retrain={"cooldown": "1s"})
    again = world.run("nightly__train", night)
    assert (again.state, again.tasks["ingest"]) == ("success", "skipped")
    assert "no new data: version 1" in of_kind(world, "nightly", "skip")[-1]["reason"]
    assert world.command("freeze", "nightly", "--reason", "holidays").returncode == 0
    again = world.run("nightly__train", night)
    assert (again.state, again.tasks["admit"]) == ("success", "skipped")
    assert of_kind(world, "nightly", "decision")[-1]["reason"] == "the model is frozen: holidays"
    said = world.command("history", "nightly").stdout
    assert "SKIP: the model is frozen: holidays" in said
    assert "SKIP: no new data: version 1" in said
