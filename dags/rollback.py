"""The forms to bring an earlier version back and to release it: for all models together, broken specs included."""

from __future__ import annotations

from airflow.sdk import DAG
from evergreen.factory.rollback import rollback_dag, unpin_dag

from include.settings import get_settings
from include.spec.loader import spec_paths

models = sorted(path.stem for path in spec_paths(get_settings()))
if models:  # else there is nothing to choose from
    for make in (rollback_dag, unpin_dag):
        dag: DAG = make(models)
        globals()[dag.dag_id] = dag
