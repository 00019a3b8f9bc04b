"""One training Dag per spec. A broken spec becomes a Dag that says what is wrong; the others live on."""

from __future__ import annotations

from airflow.sdk import DAG, get_parsing_context
from evergreen.factory.naming import config_error_dag_id, training_dag_id
from evergreen.factory.training import config_error_dag, training_dag

from include.errors import SpecError
from include.settings import get_settings
from include.spec.loader import load_spec, spec_paths

settings = get_settings()
only = get_parsing_context().dag_id  # set in a task's process, which needs just its own Dag

for path in spec_paths(settings):
    if only and only not in (training_dag_id(path.stem), config_error_dag_id(path.stem)):
        continue
    try:
        dag: DAG = training_dag(load_spec(path, settings))
    except SpecError as error:
        dag = config_error_dag(path, error)
    globals()[dag.dag_id] = dag
