"""One scoring Dag per spec that has a section `score`. Broken specs are shown by `training.py`."""

from __future__ import annotations

from airflow.sdk import DAG, get_parsing_context
from evergreen.factory.naming import score_dag_id
from evergreen.factory.scoring import score_dag

from include.errors import SpecError
from include.settings import get_settings
from include.spec.loader import load_spec, spec_paths

settings = get_settings()
only = get_parsing_context().dag_id  # set in a task's process, which needs just its own Dag

for path in spec_paths(settings):
    if only and only != score_dag_id(path.stem):
        continue
    try:
        spec = load_spec(path, settings)
    except SpecError:
        continue
    if spec.score:
        dag: DAG = score_dag(spec)
        globals()[dag.dag_id] = dag
