"""What keeps tasks quick to start and Dags quick to store."""

import os
import subprocess
import sys

from airflow.serialization.serialized_objects import DagSerialization
from evergreen.factory.params import training_params
from evergreen.factory.training import training_dag

from include.settings import ROOT
from include.spec.schema import Spec

_IMPORT = "import sys, include.registry.gateway; print(*{'sklearn', 'skops'} & set(sys.modules))"


def test_talking_to_mlflow_does_not_bring_what_models_are_made_of() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_parameters_are_the_dags_and_not_copied_into_each_task() -> None:
    source = {"kind": "file", "path": "data/*.csv"}
    spec = Spec.model_validate(
        {"model": "small", "task": "binary", "ingest": {"source": source, "target": "y"}}
    )
    dag = training_dag(spec)
    assert set(dag.params) == set(training_params())
    stored = DagSerialization.to_dict(dag)["dag"]
    assert {name for name, _ in stored["params"]} == set(training_params())
    assert not any(task["__var"].get("params") for task in stored["tasks"])
