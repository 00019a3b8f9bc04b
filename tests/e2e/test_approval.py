"""A person stands between the gate and the champion: a yes deploys, a no leaves everything as it was."""

import pytest

from include.errors import ServiceError
from include.stack.airflow_client import AirflowClient
from include.stack.credentials import read_credentials
from include.stack.layout import get_layout
from tests.e2e.stack import Stack, wait_until
from tests.models import DAYS, write_days

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
MODEL = "asked"


def question(run_id: str) -> str:
    return f"/dags/{MODEL}__train/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"


def answer(client: AirflowClient, run_id: str, option: str) -> None:
    body = {"chosen_options": [option], "params_input": {}}
    client.request("PATCH", question(run_id), "Answer", json=body)


def settle(client: AirflowClient, run_id: str, option: str) -> None:
    """Answer until the answer is taken.

    An answer that comes before the scheduler has read that the asking process ended makes Airflow take the
    task for lost: it asks once more. No person is that fast.
    """

    def taken() -> bool:
        if not client.request("GET", question(run_id), "Question")["response_received"]:
            answer(client, run_id, option)
        return state(client, run_id) in ("success", "failed")

    wait_until("the answer to be taken", taken, 300)


def state(client: AirflowClient, run_id: str) -> str | None:
    tasks = client.task_instances(f"{MODEL}__train", run_id)
    return next((t.state for t in tasks if t.task_id == "approve"), None)


def wait_for_question(stack: Stack, run_id: str) -> dict[str, object]:
    wait_until("the question", lambda: state(stack.airflow, run_id) == "awaiting_input", 300)
    found: dict[str, object] = stack.airflow.request("GET", question(run_id), "Question")
    return found


def test_only_an_approver_lets_a_version_take_over(stack: Stack) -> None:
    manual = {"approvers": ["admin"], "timeout": "1h"}
    stack.add_model(MODEL, register={"approval": {"manual": manual}})
    stack.trigger(MODEL, "first")
    question = wait_for_question(stack, "first")
    assert question["subject"] == f"Promote {MODEL}?"
    assert "roc_auc" in str(question["body"])
    assert stack.registry.aliases(MODEL) == {"challenger": "1"}
    assert stack.serves(MODEL) is None
    with pytest.raises(ServiceError, match="status 403"):
        answer(stack.airflow, "first", "Approve")

    credentials = read_credentials(get_layout(stack.home))
    assert credentials is not None
    with AirflowClient(stack.settings.airflow, "admin", credentials.admin) as admin:
        settle(admin, "first", "Approve")
        assert stack.wait(MODEL, "first").state == "success"
        stack.assert_one_of_everything(MODEL, "first")

        write_days(stack.data(MODEL), first=DAYS, days=12)
        stack.trigger(MODEL, "second")
        wait_for_question(stack, "second")
        settle(admin, "second", "Reject")
    result = stack.wait(MODEL, "second")
    assert result.state == "success"
    assert {t.task_id: t.state for t in result.tasks}["deploy"] == "skipped"
    assert stack.registry.aliases(MODEL) == {"champion": "1", "challenger": "2"}
    assert stack.serves(MODEL) == "1"
    assert stack.kinds(MODEL).count("promotion") == 1
    assert {run.info.status for run in stack.runs(MODEL)} == {"FINISHED"}
    answers = [e.payload["verdict"] for e in stack.ledger.events(MODEL, "approval")]
    assert answers == ["PROMOTE", "REJECT"]

    stack.trigger(MODEL, "third")
    again = {t.task_id: t.state for t in stack.wait(MODEL, "third").tasks}
    assert again["ingest"] == "skipped", "the same question would be asked every night"
