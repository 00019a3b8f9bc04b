"""Links from a task in Airflow's web UI to what it made elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

RUN_URL_KEY = "mlflow_run_url"
REPORT_URL_KEY = "report_url"
TRAINING_RUN_KEY = "training_run"


class MlflowRunLink(BaseOperatorLink):
    """A button that opens the task's MLflow run."""

    name = "MLflow run"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # Airflow's signature
        """Return the address the task stored, or an empty string when it made no run."""
        return _address(ti_key, RUN_URL_KEY)


class ReportLink(BaseOperatorLink):
    """A button that opens the page of what the monitor found."""

    name = "Monitoring report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # Airflow's signature
        """Return the address the task stored, or an empty string when it wrote no page."""
        return _address(ti_key, REPORT_URL_KEY)


class TrainingRunLink(BaseOperatorLink):
    """A button that opens the training run that the task started."""

    name = "Training run"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # Airflow's signature
        """Return the run's page, or an empty string when the task started none."""
        run = XCom.get_value(ti_key=ti_key, key=TRAINING_RUN_KEY)
        if not isinstance(run, dict):
            return ""
        base_url = str(conf.get("api", "base_url", fallback="http://127.0.0.1:8080")).rstrip("/")
        return f"{base_url}/dags/{run['dag_id']}/runs/{run['run_id']}"


def _address(ti_key: TaskInstanceKey, key: str) -> str:
    url = XCom.get_value(ti_key=ti_key, key=key)
    return url if isinstance(url, str) else ""
