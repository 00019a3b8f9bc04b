"""The connection against a real MLflow that wants a password: where the password goes, and where it does not."""

import logging
import os

import pytest
from airflow.models.connection import Connection
from airflow.utils.session import create_session

from tests.integration.airflow.conftest import ROOT
from tests.integration.airflow.runs import dags_of, run
from tests.servers import start_guard

USER, PASSWORD = "ann", "s3cret:p/w#%"
WEB = "https://ml.example.com/tracking"


@pytest.fixture(scope="module")
def guarded(world, mlflow_url):
    """A connection in Airflow's database, as a person makes it in the form; yields the guard's log."""
    with (
        start_guard(mlflow_url, USER, PASSWORD) as (url, seen),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.delenv("AIRFLOW_CONN_MLFLOW_DEFAULT")
        fields = {"conn_type": "mlflow", "host": url, "extra": f'{{"ui_url": "{WEB}/"}}'}
        with create_session() as session:
            good = Connection(conn_id="mlflow_default", login=USER, password=PASSWORD, **fields)
            bad = Connection(conn_id="wrong", login=USER, password="guessed-it", **fields)
            session.add_all([good, bad])
        yield seen
        with create_session() as session:
            session.query(Connection).filter(
                Connection.conn_id.in_(["mlflow_default", "wrong"])
            ).delete()


@pytest.fixture(scope="module")
def ended(guarded):
    before = dict(os.environ)
    dag = dags_of(ROOT / "docs/examples/mlflow_operators.py")["example_mlflow_operators"]
    ended = run(dag)
    return ended, before, dict(os.environ)


def test_every_call_carries_the_password(ended, guarded) -> None:
    assert ended[0].state == "success", ended[0].tasks
    assert {status for _, status in guarded} <= {200, 404}  # 404: no such alias yet
    assert any("mlflow-artifacts" in path for path, _ in guarded)


def test_the_environment_is_left_alone(ended) -> None:
    _, before, after = ended
    assert {k: v for k, v in after.items() if k.startswith("MLFLOW")} == {
        k: v for k, v in before.items() if k.startswith("MLFLOW")
    }
    assert not [name for name, value in after.items() if PASSWORD in value]


def test_links_lead_to_the_web_address_and_hold_no_password(ended) -> None:
    links = {task: ended[0].link(task) for task in ("start", "log", "register", "promote")}
    for link in links.values():
        assert link.startswith(f"{WEB}/#/experiments/")
        assert ended[0].value("start") in link
        assert "@" not in link


def test_logs_hold_no_password(guarded, capfd, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    dag = dags_of(ROOT / "docs/examples/mlflow_operators.py")["example_mlflow_operators"]
    dag.get_task("start").mlflow_conn_id = "wrong"
    dag.get_task("start").retries = 0
    assert run(dag).state == "failed"
    said = caplog.text + "".join(capfd.readouterr())
    assert "HTTP 401" in said
    for secret in (PASSWORD, "s3cret", "guessed-it"):
        assert secret not in said


@pytest.fixture(scope="module")
def api(guarded):
    """Airflow's own REST API, in this process, for an administrator."""
    from airflow.api_fastapi.app import create_app
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from fastapi.testclient import TestClient

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
        app = create_app(apps="core")
        token = app.state.auth_manager.generate_jwt(
            SimpleAuthManagerUser(username="admin", role="ADMIN")
        )
        client = TestClient(app, headers={"Authorization": f"Bearer {token}"})
        yield client


def test_the_form_is_known_to_the_web_ui(api) -> None:
    answer = api.get("/ui/connections/hook_meta")
    assert answer.status_code == 200
    (form,) = (m for m in answer.json() if m["connection_type"] == "mlflow")
    assert form["hook_name"] == "MLflow"
    assert list(form["extra_fields"]) == ["ui_url"]


def test_the_test_button(api, guarded) -> None:
    with create_session() as session:
        host = session.query(Connection).filter_by(conn_id="mlflow_default").one().host
    body = {"connection_id": "mine", "conn_type": "mlflow", "host": host, "login": USER}
    good = api.post("/api/v2/connections/test", json=body | {"password": PASSWORD})
    assert good.json() == {"status": True, "message": f"MLflow answers at {host}."}
    wrong = api.post("/api/v2/connections/test", json=body | {"password": "no"}).json()
    assert not wrong["status"]
    assert "got HTTP 401" in wrong["message"]
    assert "Put the right user:password@" in wrong["message"]
    dead = api.post("/api/v2/connections/test", json=body | {"host": "http://127.0.0.1:1"}).json()
    assert not dead["status"]
    assert "must answer, got" in dead["message"]
