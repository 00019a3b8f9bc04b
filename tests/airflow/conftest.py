"""An Airflow of the tests' own: set up before anything imports Airflow."""

import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_home = Path(tempfile.mkdtemp(prefix="evergreen-airflow-"))
os.environ.update(
    AIRFLOW_HOME=str(_home),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
    AIRFLOW__CORE__PLUGINS_FOLDER=str(ROOT / "plugins"),
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_home / 'airflow.db'}",
)
