"""The clean-up: one Dag for all models."""

from __future__ import annotations

from airflow.sdk import DAG
from evergreen.factory.maintenance import reap_dag

dag: DAG = reap_dag()
