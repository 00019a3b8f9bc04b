"""People hear of a failure, a question, a no, a promotion and a rollback: once each, under the real scheduler.

One address is kept in an Airflow connection, where only Airflow can read it; the other stands in the spec.
"""

from collections.abc import Iterator

import pytest

from include.stack.airflow_client import AirflowClient
from include.stack.credentials import read_credentials
from include.stack.layout import get_layout
from tests.e2e.stack import Stack, answer_question, wait_until
from tests.models import DAYS, write_days
from tests.receivers import SECRET, Hook, Mailbox, start_hook, start_mailbox

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
MODEL = "told"


@pytest.fixture
def hook() -> Iterator[Hook]:
    with start_hook() as it:
        yield it


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with start_mailbox() as it:
        yield it


@pytest.fixture
def admin(stack: Stack) -> Iterator[AirflowClient]:
    credentials = read_credentials(get_layout(stack.home))
    assert credentials is not None
    with AirflowClient(stack.settings.airflow, "admin", credentials.admin) as client:
        yield client


def keep_address(client: AirflowClient, conn_id: str, url: str) -> None:
    body = {"connection_id": conn_id, "conn_type": "generic", "password": url}
    client.request("POST", "/connections", "Connection", json=body)


def test_one_message_per_event(
    stack: Stack, hook: Hook, mailbox: Mailbox, admin: AirflowClient
) -> None:
    keep_address(admin, "ops_mail", mailbox.url)
    notify = {
        "on": ["failure", "promotion", "rejection", "rollback", "approval"],
        "to": [hook.url(), "connection:ops_mail"],
    }
    manual = {"approval": {"manual": {"approvers": ["admin"], "timeout": "1h"}}}
    linear = [{"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 300}}]
    train = {"candidates": linear, "tune": {"trials": 1, "folds": 2}}
    same = {"register": manual, "notify": notify, "train": train}
    stack.add_model(MODEL, **same, validate={"min_rows": 100_000})
    stack.trigger(MODEL, "refused")
    assert stack.wait(MODEL, "refused").state == "failed"
    # Airflow calls a Dag's callback some seconds later, in the Dag processor.
    wait_until("the message", lambda: len(mailbox.envelopes) == 1, 60)
    assert hook.titles == [f"{MODEL}: {MODEL}__train failed"]
    assert "\nTask validate\nRun refused\n" in hook.messages[0][1]
    assert f"\nMLflow run: {stack.settings.mlflow}/" in hook.messages[0][1]

    stack.add_model(MODEL, **same)
    wires = [
        # The question is told and its row is written; Airflow has not heard yet that the task waits.
        stack.lay_wire("kill", MODEL, "approve", "include.ledger.ledger:Ledger.record", "leave"),
        # The task has ended, and its process dies before it tells: `finish` does.
        stack.lay_wire("kill", MODEL, "deploy.promote", "include.notify.tell:tell", "enter"),
    ]
    stack.trigger(MODEL, "first")
    answer_question(admin, MODEL, "first", "Approve")
    assert stack.wait(MODEL, "first").state == "success"
    assert all(wire.exists() for wire in wires)
    wait_until("the mails", lambda: len(mailbox.envelopes) == 3, 30)
    assert hook.titles[1:] == [
        f"{MODEL}: version 1 waits for approval",
        f"{MODEL}: version 1 is champion",
    ]
    question = hook.messages[1][1]
    assert f"/dags/{MODEL}__train/runs/first/tasks/approve/required_actions" in question
    assert f"MLflow run: {stack.settings.mlflow}/" in question
    assert "% interval" in question

    admin.request(
        "POST",
        f"/dags/{MODEL}__train/clearTaskInstances",
        "Clear",
        json={
            "dry_run": False,
            "dag_run_id": "first",
            "task_ids": ["deploy.promote"],
            "only_failed": False,
            "include_downstream": True,
        },
    )
    stack.wait(MODEL, "first")

    write_days(stack.data(MODEL), first=DAYS, days=12)
    stack.trigger(MODEL, "second")
    answer_question(admin, MODEL, "second", "Reject")
    assert stack.wait(MODEL, "second").state == "success"
    wait_until("the mails", lambda: len(mailbox.envelopes) == 5, 30)
    assert hook.titles[3:] == [
        f"{MODEL}: version 2 waits for approval",
        f"{MODEL}: version 2 was not approved",
    ]
    assert "Version 2 was not approved: admin" in hook.messages[4][1]

    done = stack.command("rollback", MODEL, "--to", "2", "--reason", "after all")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-2:] == ["Told json://...", "Told connection:ops_mail"]
    assert hook.titles[5:] == [f"{MODEL}: back to version 2"]

    assert [subject for subject, _ in mailbox.messages] == hook.titles
    said = [e.payload["event"] for e in stack.ledger.events(MODEL, "notified")]
    assert said == ["failure", "approval", "promotion", "approval", "rejection", "rollback"]
    assert stack.ledger.verify(MODEL).ok
    logs = [path.read_text(errors="replace") for path in (stack.home / "logs").rglob("*.log")]
    assert any("told connection:ops_mail" in text for text in logs)
    assert not any(SECRET in text or "T0KENT0KEN" in text for text in logs)
