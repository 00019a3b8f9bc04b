"""A person stands between the gate and the champion: a yes deploys, a no leaves everything as it was."""

import pytest

from include.errors import ServiceError
from include.stack.airflow_client import AirflowClient
from include.stack.credentials import read_credentials
from include.stack.layout import get_layout
from tests.e2e.stack import Stack, answer_question, asks, question, wait_until
from tests.models import DAYS, write_days

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
MODEL = "asked"


def wait_for_question(stack: Stack, run_id: str) -> dict[str, object]:
    wait_until("the question", lambda: asks(stack.airflow, MODEL, run_id) == "awaiting_input", 300)
    found: dict[str, object] = stack.airflow.request("GET", question(MODEL, run_id), "Question")
    return found


def test_only_an_approver_lets_a_version_take_over(stack: Stack) -> None:
    manual = {"approvers": ["admin"], "timeout": "1h"}
    stack.add_model(MODEL, register={"approval": {"manual": manual}})
    stack.trigger(MODEL, "first")
    posed = wait_for_question(stack, "first")
    assert posed["subject"] == f"Promote {MODEL}?"
    assert "roc_auc" in str(posed["body"])
    assert stack.registry.aliases(MODEL) == {"challenger": "1"}
    assert stack.serves(MODEL) is None
    body = {"chosen_options": ["Approve"], "params_input": {}}
    with pytest.raises(ServiceError, match="status 403"):
        stack.airflow.request("PATCH", question(MODEL, "first"), "Answer", json=body)

    credentials = read_credentials(get_layout(stack.home))
    assert credentials is not None
    with AirflowClient(stack.settings.airflow, "admin", credentials.admin) as admin:
        answer_question(admin, MODEL, "first", "Approve")
        assert stack.wait(MODEL, "first").state == "success"
        stack.assert_one_of_everything(MODEL, "first")

        write_days(stack.data(MODEL), first=DAYS, days=12)
        stack.trigger(MODEL, "second")
        wait_for_question(stack, "second")
        answer_question(admin, MODEL, "second", "Reject")
    result = stack.wait(MODEL, "second")
    assert result.state == "success"
    assert {t.task_id: t.state for t in result.tasks}["deploy.promote"] == "skipped"
    assert stack.registry.aliases(MODEL) == {"champion": "1", "challenger": "2"}
    assert stack.serves(MODEL) == "1"
    assert stack.kinds(MODEL).count("promotion") == 1
    assert {run.info.status for run in stack.runs(MODEL)} == {"FINISHED"}
    answers = [e.payload["verdict"] for e in stack.ledger.events(MODEL, "approval")]
    assert answers == ["PROMOTE", "REJECT"]

    stack.trigger(MODEL, "third")
    again = {t.task_id: t.state for t in stack.wait(MODEL, "third").tasks}
    assert again["ingest"] == "skipped", "the same question would be asked every night"
