"""Messages about runs, sent by `dag.test()` to a real HTTP server and a real mail server."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG, Connection
from evergreen.notify import ApprovalNotifier, FailureNotifier
from evergreen.operators.approve import ApproveOperator
from evergreen.receivers import addresses, receivers

from include.ledger.ledger import Ledger
from include.spec.schema import ManualApproval
from tests.integration.airflow.runs import Ended, dags_of, run
from tests.receivers import SECRET, Hook, Mailbox, start_hook, start_mailbox

FAILS = """
from airflow.sdk import DAG, task
from evergreen.notify import ApprovalNotifier, FailureNotifier
from evergreen.operators.approve import ApproveOperator

with DAG("shop__train", schedule=None, on_failure_callback=FailureNotifier(model="shop", to={to!r})):
    @task
    def ingest():
        raise ValueError("no data")
    ingest()
"""
DECIDES = """
from airflow.sdk import DAG, task
from evergreen.notify import DriftNotifier

with DAG("{model}__monitor", schedule=None):
    @task(on_success_callback=DriftNotifier(model="{model}", to={to!r}))
    def decide():
        return {outcome!r}
    decide()
"""
ALERT = {
    "verdict": "ALERT",
    "reason": "6 of 11 features drifted",
    "window": "w7",
    "version": "3",
    "drifts": True,
    "findings": {"alert": 6},
}


@pytest.fixture
def hook() -> Iterator[Hook]:
    with start_hook() as it:
        yield it


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with start_mailbox() as it:
        yield it


def ended(tmp_path: Path, dag_id: str, text: str) -> Ended:
    path = tmp_path / f"{dag_id}.py"
    path.write_text(text)
    return run(dags_of(path)[dag_id])


def failed_run(tmp_path: Path, to: list[str]) -> Ended:
    return ended(tmp_path, "shop__train", FAILS.format(to=to))


def test_a_failed_run_tells_both(
    world, tmp_path, hook, mailbox, monkeypatch, caplog, capfd
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(
        "AIRFLOW_CONN_OPS", json.dumps({"conn_type": "generic", "host": mailbox.url})
    )
    done = failed_run(tmp_path, [hook.url(), "connection:ops"])
    assert done.state == "failed"
    ((path, login, _),) = hook.posts
    assert path == "/hooks/T0KENT0KEN"
    assert login
    ((title, text),) = hook.messages
    assert title == "shop: shop__train failed"
    assert text.splitlines()[:3] == ["a task failed", "Task ingest", f"Run {done.run_id}"]
    assert text.splitlines()[3].endswith(f"/dags/shop__train/runs/{done.run_id}")
    ((subject, mail),) = mailbox.messages
    assert subject == title
    assert mail.splitlines() == text.splitlines()
    (event,) = Ledger(f"sqlite:///{world / 'ledger.db'}").events("shop", "notified")
    before, tries = event.key.rsplit("/", 1)
    assert before == f"notified/failure/shop__train/{done.run_id}/ingest"
    assert tries == "1"
    assert event.payload["taken"] == ["json://...", "connection:ops"]
    seen = caplog.text + "".join(capfd.readouterr())
    assert "told connection:ops" in seen
    assert SECRET not in seen
    assert "T0KENT0KEN" not in seen


def test_a_receiver_that_is_away_does_not_break_the_run(world, tmp_path, hook, capfd) -> None:
    done = failed_run(tmp_path, [hook.url("/refused"), "nonsense", "connection:nobody"])
    assert (done.state, done.tasks) == ("failed", {"ingest": "failed"})
    assert len(hook.posts) == 1
    said = "".join(capfd.readouterr())
    for name in ("json://...", "text without ://", "connection:nobody"):
        assert f"somebody did not hear 'shop: shop__train failed': {name}: " in said
    assert SECRET not in said


def test_the_least_that_airflow_gives(world, hook) -> None:
    """A run without a task to blame: Dag, run and reason are all there is."""
    notifier = FailureNotifier(model="shop", to=[hook.url()])
    for _ in range(2):
        notifier({"dag": DAG("shop__train"), "run_id": "r1", "reason": "all_tasks_deadlocked"})
    ((_, text),) = hook.messages
    assert text.splitlines()[:2] == ["its tasks wait for each other", "Run r1"]


def test_a_run_that_fails_again_after_a_clear_is_told_again(world, hook) -> None:
    dag = DAG("cleared__train")
    notifier = FailureNotifier(model="cleared", to=[hook.url()])
    for number in (1, 1, 5):
        ti = SimpleNamespace(
            task_id="ingest", try_number=number, map_index=-1, xcom_pull=lambda **_: None
        )
        notifier({"dag": dag, "run_id": "r1", "reason": "task_failure", "ti": ti})
    assert len(hook.posts) == 2


def test_a_forced_pass_tells_of_its_window_again(world, hook) -> None:
    from evergreen.notify import DriftNotifier

    notifier = DriftNotifier(model="forced", to=[hook.url()])
    ti = SimpleNamespace(xcom_pull=lambda **_: ALERT)
    for run_id, force in (("r1", False), ("r2", False), ("r3", True), ("r3", True)):
        given = {"dag": DAG("forced__monitor"), "run_id": run_id, "ti": ti}
        notifier({**given, "params": {"force": force}})
    assert len(hook.posts) == 2


def test_a_malformed_connection_does_not_silence_the_others(hook) -> None:
    def get(conn_id: str) -> Connection:
        if conn_id == "broken":
            raise ValueError(f"{SECRET} is no port")
        extra = json.dumps({"config": SECRET})
        return Connection(conn_id=conn_id, conn_type="apprise", extra=extra)

    found = receivers(["connection:odd", "connection:broken", hook.url()], get)
    assert [bool(one.urls) for one in found] == [False, False, True]
    assert found[0].problem == "cannot be read from Airflow, got JSONDecodeError"
    assert SECRET not in str(found[:2])


def test_an_alert_is_told_once_per_window(world, tmp_path, hook) -> None:
    text = DECIDES.format(model="watched", to=[hook.url()], outcome=ALERT)
    for _ in range(2):
        assert ended(tmp_path, "watched__monitor", text).state == "success"
    ((title, body),) = hook.messages
    assert title == "watched: drift"
    assert body.startswith("6 of 11 features drifted\nVersion 3\nFindings: 6 alert\nAirflow run: ")
    ledger = Ledger(f"sqlite:///{world / 'ledger.db'}")
    assert [e.key for e in ledger.events("watched")] == ["notified/drift/3/w7"]


@pytest.mark.parametrize("verdict", ["OK", "WARN", "INSUFFICIENT_DATA"])
def test_nothing_else_is_worth_a_message(world, tmp_path, hook, verdict) -> None:
    text = DECIDES.format(model="calm", to=[hook.url()], outcome={**ALERT, "verdict": verdict})
    assert ended(tmp_path, "calm__monitor", text).state == "success"
    assert hook.posts == []


def test_a_bug_in_a_message_does_not_break_the_run(world, tmp_path, hook) -> None:
    text = DECIDES.format(model="odd", to=[hook.url()], outcome={"verdict": "ALERT"})
    assert ended(tmp_path, "odd__monitor", text).state == "success"
    assert hook.posts == []


def test_a_question_is_told_once(world, hook) -> None:
    """A task that is killed before Airflow knows that it waits asks again, and tells nobody again."""
    approval = ManualApproval(approvers=("ann",), timeout="2h")
    with DAG("asking__train"):
        task = ApproveOperator(
            task_id="approve",
            model="asking",
            approval=approval,
            data=None,
            verdict={"reason": "Better."},
            version={"version": "2"},
            notifiers=[ApprovalNotifier(model="asking", to=[hook.url()])],
        )
    for _ in range(2):
        (notifier,) = task.notifiers
        notifier({"dag": task.dag, "run_id": "r1", "task": task})
    ((title, text),) = hook.messages
    assert title == "asking: version 2 waits for approval"
    first, last, where, _ = text.splitlines()
    assert (first, last) == ("Better.", "No answer within 2:00:00 is a no.")
    assert where.startswith("Answer here: http")
    assert where.endswith("/dags/asking__train/runs/r1/tasks/approve/required_actions")


URL = "json://u:hush@example.com/x"


@pytest.mark.parametrize(
    ("connection", "urls"),
    [
        ({"password": URL}, [URL]),
        ({"host": URL}, [URL]),
        ({"host": "example.com", "extra": {"url": URL}}, [URL]),
        ({"conn_type": "apprise", "extra": {"config": {"path": URL, "tag": "ops"}}}, [URL]),
        (
            {"conn_type": "apprise", "extra": {"config": [{"path": URL}, {"path": "b://"}]}},
            [URL, "b://"],
        ),
        ({"login": "ann", "password": "hush"}, []),
    ],
)
def test_where_a_connection_keeps_its_address(connection, urls) -> None:
    fields = {
        "conn_type": "generic",
        **connection,
        "extra": json.dumps(connection.get("extra", {})),
    }
    assert addresses(Connection(conn_id="ops", **fields)) == urls


def test_a_connection_given_as_one_uri_is_that_uri(world, tmp_path, mailbox, monkeypatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_POST", mailbox.url)
    failed_run(tmp_path, ["connection:post"])
    ((subject, _),) = mailbox.messages
    assert subject == "shop: shop__train failed"
