"""The connection type `mlflow` as Airflow finds it, and the address made of a connection."""

import pytest
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
from airflow.models.connection import Connection as StoredConnection
from airflow.providers_manager import ProvidersManager
from airflow.sdk import Connection
from evergreen.hooks.mlflow_hook import MlflowHook, tracking_uri

from include.errors import SpecError


def connection(**fields: object) -> Connection:
    return Connection(conn_id="mine", conn_type="mlflow", **fields)


def test_airflow_discovers_the_connection_type() -> None:
    manager = ProvidersManager()
    assert "airflow-evergreen" in manager.providers
    hook = dict(manager.hooks)["mlflow"]
    assert hook.hook_class_name == f"{MlflowHook.__module__}.{MlflowHook.__qualname__}"
    assert (hook.hook_name, hook.connection_testable) == ("MLflow", True)
    assert hook.connection_id_attribute_name == "mlflow_conn_id"


def test_its_form() -> None:
    (form,) = (m for m in HookMetaService.hook_meta_data() if m.connection_type == "mlflow")
    assert form.hook_name == "MLflow"
    assert form.standard_fields.host.title == "Tracking URL"
    assert form.standard_fields.login.title == "User"
    assert form.standard_fields.port.hidden
    assert form.standard_fields.url_schema.hidden
    assert form.extra_fields["ui_url"]["schema"]["title"] == "Web URL"


@pytest.mark.parametrize(
    ("fields", "uri"),
    [
        ({"host": "http://127.0.0.1:5001"}, "http://127.0.0.1:5001"),
        ({"host": " https://ml.example.com/base/ "}, "https://ml.example.com/base"),
        ({"host": "mlflow", "port": 5000}, "http://mlflow:5000"),
        ({"host": "mlflow:5000"}, "http://mlflow:5000"),
        ({"host": "mlflow", "schema": "https"}, "https://mlflow"),
        ({"host": "http://[::1]:5001"}, "http://[::1]:5001"),
        (
            {"host": "http://m:1", "login": "ann@x", "password": "p:w/#%"},
            "http://ann%40x:p%3Aw%2F%23%25@m:1",
        ),
        ({"host": "http://m:1", "login": "ann"}, "http://ann:@m:1"),
    ],
)
def test_address(fields: dict[str, object], uri: str) -> None:
    assert tracking_uri(connection(**fields)) == uri


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "http://127.0.0.1:5001"},
        {"host": "https://ml.example.com/base", "login": "ann@x", "password": "p:w/#%"},
        {"host": "mlflow", "port": 5000, "extra": '{"ui_url": "https://ml.example.com"}'},
    ],
)
def test_a_connection_survives_being_a_uri(fields: dict[str, object]) -> None:
    """In an environment variable, as an operator may set it and as the *Test* button does."""
    uri = StoredConnection(conn_id="mine", conn_type="mlflow", **fields).get_uri()
    back = Connection.from_uri(uri, conn_id="mine")
    assert tracking_uri(back) == tracking_uri(connection(**fields))
    assert back.extra_dejson == connection(**fields).extra_dejson


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "connection mine: must have a host, got none"),
        ({"host": "  "}, "must have a host, got none"),
        ({"host": "sqlite:///mlflow.db"}, "must name an http or https URL, got 'sqlite"),
        ({"host": "http://m:notaport"}, "must name an http or https URL, got Port could not"),
        ({"host": "http://"}, "must name an http or https URL"),
        ({"host": "http://ann:secret@m:1"}, "must have no credentials in a URL, got some"),
    ],
)
def test_wrong_addresses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        tracking_uri(connection(**fields))
    assert "secret" not in str(caught.value)


def test_a_dead_server_fails_the_test_button_at_once(monkeypatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_DEAD", '{"conn_type": "mlflow", "host": "http://127.0.0.1:1"}')
    ok, message = MlflowHook("dead").test_connection()
    assert not ok
    assert message.startswith("MLflow at http://127.0.0.1:1: must answer, got")


def test_a_script_is_no_web_address(monkeypatch) -> None:
    """It would become a link in Airflow's UI."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_EVIL",
        '{"conn_type": "mlflow", "host": "http://127.0.0.1:1", "extra": {"ui_url": "javascript:alert(1)"}}',
    )
    ok, message = MlflowHook("evil").test_connection()
    assert not ok
    assert "ui_url: must name an http or https URL" in message
