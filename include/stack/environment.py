"""The environment of every process of the stack: one pure function, also used by `run` and by tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from include.settings import ROOT, Settings
from include.stack.credentials import USERS, Credentials, airflow_passwords
from include.stack.layout import Layout
from include.stack.leftovers import COMPONENT_MARK, STACK_MARK

_QUIET = {
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "SCARF_ANALYTICS": "false",
    "DO_NOT_TRACK": "true",  # MLflow accepts nothing but "true"
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
}
_ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_TUNING = {
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    # A model's file is the wish to have it trained: its Dag runs on schedule without another click.
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
    # The default of 1 s is waited before every task.
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    # After a crash, tasks are picked up again within seconds instead of five minutes.
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
    # Tasks longer than the default token lifetime (600 s) are killed when a heartbeat races its expiry.
    "AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME": "86400",
    # New Dag files are seen after 5 s; a changed spec at once, through the watcher. Re-parsing
    # unchanged files is only a safety net.
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
}


def base_environment(parent: Mapping[str, str]) -> dict[str, str]:
    """Return the parent's variables without those that would lead Airflow, MLflow or Python elsewhere."""
    own = {
        name: value
        for name, value in parent.items()
        if not name.startswith(("MLFLOW_", "PYTHON"))
        and name not in {"AIRFLOW_HOME", STACK_MARK, COMPONENT_MARK}
    }
    # Calls between the components must not go through a proxy.
    hosts = [own.get("no_proxy", own.get("NO_PROXY", "")), "127.0.0.1", "localhost"]
    own["no_proxy"] = own["NO_PROXY"] = ",".join(host for host in hosts if host)
    return own


def mlflow_connection(url: str) -> str:
    """Return an Airflow connection of type `mlflow` as JSON text, from a base URL that may hold a login."""
    parts = urlsplit(url)
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    connection = {"conn_type": "mlflow", "host": address}
    if parts.username:
        connection |= {"login": unquote(parts.username), "password": unquote(parts.password or "")}
    return json.dumps(connection)


def evergreen_environment(settings: Settings, layout: Layout) -> dict[str, str]:
    """Return the `EVERGREEN_*` variables that give a child the settings of its parent."""
    values = settings.model_dump(mode="json") | {
        "home": str(layout.home),
        "serving_key": settings.serving_key.get_secret_value(),  # a dump holds asterisks instead
    }
    return {f"EVERGREEN_{name.upper()}": str(value) for name, value in values.items()}


def airflow_environment(
    settings: Settings, layout: Layout, credentials: Credentials, airflow_home: Path
) -> dict[str, str]:
    """Return Airflow's own settings.

    Args:
        settings: Ports, hosts and URLs.
        layout: Paths of the stack.
        credentials: Passwords and keys.
        airflow_home: Folder of this Airflow's database; `run` uses another than the scheduler's.
    """
    return {
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{airflow_home / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(layout.logs / "airflow"),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(
            layout.logs / "airflow" / "dag-processor"
        ),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(airflow_home / "bundles"),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{settings.airflow_port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{settings.airflow_port}/execution/",
        "AIRFLOW__API__SECRET_KEY": credentials.secret_key,
        "AIRFLOW__API_AUTH__JWT_SECRET": credentials.jwt_secret,
        "AIRFLOW__CORE__FERNET_KEY": credentials.fernet_key,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{u}:{r}" for u, r in USERS.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(airflow_passwords(layout)),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW_CONN_MLFLOW_DEFAULT": mlflow_connection(settings.mlflow),
        **_TUNING,
    }


def stack_environment(
    settings: Settings,
    layout: Layout,
    credentials: Credentials,
    parent: Mapping[str, str],
    *,
    airflow_home: Path | None = None,
) -> dict[str, str]:
    """Return the whole environment of a process of the stack.

    Args:
        settings: Where things are.
        layout: Paths of the stack.
        credentials: Passwords and keys.
        parent: Environment to start from, usually `os.environ`.
        airflow_home: Airflow's folder; None is the scheduler's.
    """
    return {
        **base_environment(parent),
        **_QUIET,
        **{name: parent.get(name, "1") for name in _ONE_THREAD},
        "PYTHONPATH": str(ROOT),
        "PYTHONSAFEPATH": "1",  # what lies in the working folder must not shadow a library
        "PYTHONUNBUFFERED": "1",
        # setproctitle, used by Airflow, would overwrite the memory the marks are read from.
        "SPT_NOENV": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **airflow_environment(settings, layout, credentials, airflow_home or layout.airflow),
        **evergreen_environment(settings, layout),
    }
