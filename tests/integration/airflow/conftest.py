"""An Airflow of the tests' own with a migrated database, and a real MLflow beside it."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import start_mlflow

ROOT = Path(__file__).resolve().parents[3]
_PREFIX = "evergreen-airflow-"

# Airflow reads its settings once per process: where tests/airflow came first, its Airflow is ours too.
if not Path(os.environ.get("AIRFLOW_HOME", "")).name.startswith(_PREFIX):
    _home = Path(tempfile.mkdtemp(prefix=_PREFIX))
    os.environ.update(
        AIRFLOW_HOME=str(_home),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__UNIT_TEST_MODE="False",
        AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
        AIRFLOW__CORE__PLUGINS_FOLDER=str(ROOT / "plugins"),
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_home / 'airflow.db'}",
    )


@pytest.fixture(scope="session")
def airflow_db() -> None:
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")])},
    )


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_mlflow(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture(scope="module")
def world(
    airflow_db: None, mlflow_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Airflow's database, MLflow behind `mlflow_default`, and a home for ledger and store; yields that home."""
    home = tmp_path_factory.mktemp("evergreen")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVERGREEN_HOME", str(home))
        patch.setenv("EVERGREEN_MLFLOW_URL", mlflow_url)
        connection = {"conn_type": "mlflow", "host": mlflow_url}
        patch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(connection))
        yield home
