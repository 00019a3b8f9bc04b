"""Links from a task in Airflow's web UI to what it made elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

RUN_URL_KEY = "mlflow_run_url"


class MlflowRunLink(BaseOperatorLink):
    """A button that opens the task's MLflow run."""

    name = "MLflow run"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # Airflow's signature
        """Return the address the task stored, or an empty string when it made no run."""
        url = XCom.get_value(ti_key=ti_key, key=RUN_URL_KEY)
        return url if isinstance(url, str) else ""
