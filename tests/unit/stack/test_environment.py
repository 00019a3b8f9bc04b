import json

import pytest

from include.settings import Settings
from include.stack.credentials import Credentials
from include.stack.environment import base_environment, mlflow_connection, stack_environment
from include.stack.layout import Layout
from include.stack.leftovers import STACK_MARK


@pytest.fixture
def environment(settings: Settings, layout: Layout) -> dict[str, str]:
    return stack_environment(settings, layout, Credentials(), {"PATH": "/bin", "HOME": "/root"})


def test_what_would_lead_elsewhere_is_dropped() -> None:
    parent = {
        "MLFLOW_TRACKING_URI": "http://elsewhere",
        "AIRFLOW_HOME": "/elsewhere",
        "PYTHONPATH": "/elsewhere",
        STACK_MARK: "/another/stack",
        "AIRFLOW_CONN_WAREHOUSE": "postgres://here",
    }
    assert base_environment(parent).keys() == {"AIRFLOW_CONN_WAREHOUSE", "no_proxy", "NO_PROXY"}


def test_components_never_reach_each_other_through_a_proxy() -> None:
    own = base_environment({"no_proxy": "example.org", "http_proxy": "http://proxy"})
    assert own["no_proxy"] == own["NO_PROXY"] == "example.org,127.0.0.1,localhost"


def test_telemetry_and_examples_are_off(environment: dict[str, str]) -> None:
    assert environment["DO_NOT_TRACK"] == environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment["AIRFLOW__USAGE_DATA_COLLECTION__ENABLED"] == "False"
    assert environment["AIRFLOW__CORE__LOAD_EXAMPLES"] == "False"
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_everything_is_kept_in_the_home(environment: dict[str, str], layout: Layout) -> None:
    assert environment["AIRFLOW_HOME"] == str(layout.home / "airflow")
    url = f"sqlite:///{layout.home}/airflow/airflow.db"
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == url
    assert environment["EVERGREEN_HOME"] == str(layout.home)


def test_serving_and_its_clients_get_the_key_itself(layout: Layout) -> None:
    settings = Settings(home=layout.home, serving_key="0123456789abcdef")
    environment = stack_environment(settings, layout, Credentials(), {})
    assert environment["EVERGREEN_SERVING_KEY"] == "0123456789abcdef"


def test_another_airflow_has_another_database(settings: Settings, layout: Layout) -> None:
    other = layout.home / "airflow-run"
    environment = stack_environment(settings, layout, Credentials(), {}, airflow_home=other)
    assert environment["AIRFLOW_HOME"] == str(other)
    assert str(other) in environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]


def test_tasks_find_the_api_on_the_chosen_port(layout: Layout) -> None:
    settings = Settings(home=layout.home, airflow_port=9123)
    environment = stack_environment(settings, layout, Credentials(), {})
    assert (
        environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:9123/execution/"
    )


def test_children_get_the_settings_of_their_parent(
    settings: Settings, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stack_environment(settings, layout, Credentials(), {}).items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_threads_are_bounded_unless_somebody_chose(settings: Settings, layout: Layout) -> None:
    environment = stack_environment(settings, layout, Credentials(), {"OMP_NUM_THREADS": "3"})
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["OPENBLAS_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("url", "connection"),
    [
        ("http://127.0.0.1:5001", {"host": "http://127.0.0.1:5001"}),
        (
            "https://an%40na:p%3Aw@mlflow.example.org/base",
            {"host": "https://mlflow.example.org/base", "login": "an@na", "password": "p:w"},
        ),
    ],
)
def test_the_mlflow_connection(url: str, connection: dict[str, str]) -> None:
    assert json.loads(mlflow_connection(url)) == {"conn_type": "mlflow", **connection}
