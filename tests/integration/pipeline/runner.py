"""Runs training Dags with `dag.test()`, one after the other, in one process that keeps Airflow loaded.

A program: reads requests from standard input, a JSON object a line (`dag_id`, `conf`, `environment`), and writes
Airflow's log as JSON lines, with `{"event": "RUN ENDED", ...}` after each run.
"""

import json
import os
import sys

from airflow.dag_processing.dagbag import DagBag
from airflow.utils import timezone


def run(dag_id: str, conf: dict[str, object]) -> dict[str, object]:
    """Run one Dag to its end; retries are left out, so that a test does not wait for them."""
    bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    if bag.import_errors or dag_id not in bag.dags:
        return {"state": None, "error": str(bag.import_errors), "dags": sorted(bag.dags)}
    dag = bag.dags[dag_id]
    for task in dag.tasks:
        task.retries = 0
        if hasattr(task, "partial_kwargs"):
            task.partial_kwargs["retries"] = 0
    done = dag.test(logical_date=timezone.utcnow(), run_conf=conf)
    tasks = {}
    for task in done.get_task_instances():
        name = task.task_id if task.map_index < 0 else f"{task.task_id} [{task.map_index}]"
        tasks[name] = str(task.state)
    return {"state": str(done.state), "run_id": done.run_id, "tasks": tasks}


for line in sys.stdin:
    request = json.loads(line)
    before = dict(os.environ)
    os.environ.update(request["environment"])
    answer = run(request["dag_id"], request["conf"])
    os.environ.clear()
    os.environ.update(before)
    print(json.dumps({"event": "RUN ENDED", **answer}), flush=True)
