"""Evergreen's one Airflow plugin: it gives our operators' links to the web UI."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin
from evergreen.links import MlflowRunLink


class EvergreenPlugin(AirflowPlugin):
    """Registers the link from a task to its MLflow run."""

    name = "evergreen"
    operator_extra_links = [MlflowRunLink()]  # noqa: RUF012  # the form Airflow reads
