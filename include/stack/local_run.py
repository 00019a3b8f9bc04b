"""Runs a training Dag in one process of its own, without the scheduler, and tells how its tasks go.

The scheduler must not see such a run: it would take its tasks for work to be done. So it gets an Airflow
database of its own; registry, ledger and store are the real ones.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from include.errors import ConflictError
from include.settings import Settings
from include.stack import databases
from include.stack.airflow_replies import raised
from include.stack.credentials import ensure_credentials
from include.stack.environment import stack_environment
from include.stack.layout import Layout, get_layout, only_one, prepare
from include.stack.status import running_settings

_TASK = re.compile(r"\[DAG TEST\] (starting|end task) task_id=(\S+) map_index=(-?\d+)")


@dataclass
class LocalTask:
    """One task of a local run.

    Args:
        task_id: The task.
        map_index: Index of a mapped task; -1 when it is not mapped.
        state: Airflow's word; `running` until it ends.
        seconds: How long it took; None while it runs.
        error: What it failed with; empty when it did not.
    """

    task_id: str
    map_index: int
    state: str = "running"
    seconds: float | None = None
    error: str = ""
    began: datetime | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Task id, with the index of a mapped instance in brackets."""
        return self.task_id if self.map_index < 0 else f"{self.task_id} [{self.map_index}]"


@dataclass(frozen=True)
class LocalResult:
    """How a local run ended.

    Args:
        succeeded: Whether the run as a whole did.
        tasks: Every attempt of every task that ran, in order.
        log: File with everything Airflow said.
    """

    succeeded: bool
    tasks: tuple[LocalTask, ...]
    log: Path


def read_events(lines: Iterable[str]) -> Iterator[LocalTask]:
    """Yield each task twice, when it starts and when it has ended, from Airflow's JSON log lines.

    Args:
        lines: Log lines; those that are not JSON are skipped.
    """
    task: LocalTask | None = None
    for line in lines:
        try:
            entry = json.loads(line)
            event = str(entry["event"])
        except (ValueError, KeyError, TypeError):
            continue
        if match := _TASK.search(event):
            when = datetime.fromisoformat(entry["timestamp"])
            if match[1] == "starting":
                task = LocalTask(match[2], int(match[3]), began=when)
                yield task
            elif task is not None:
                task.seconds = (when - task.began).total_seconds() if task.began else None
                yield task
                task = None
        elif task is not None:
            _note(task, event, entry)


def _note(task: LocalTask, event: str, entry: Mapping[str, Any]) -> None:
    if event == "Task instance state updated" and entry.get("new_state"):
        task.state = entry["new_state"]
    elif str(entry.get("level")).lower() in {"error", "critical"}:
        details = entry.get("exception") or entry.get("error_detail")
        if details:
            task.error = raised(details[0])


def run_dag(
    settings: Settings,
    dag_id: str,
    conf: Mapping[str, Any],
    progress: Callable[[LocalTask], None] = lambda _task: None,
) -> LocalResult:
    """Run a Dag to its end with `dag.test()` in a process of its own.

    Args:
        settings: Where things are; MLflow and serving must be up.
        dag_id: The Dag.
        conf: Parameters of the run.
        progress: Called when a task starts and when it has ended.

    Raises:
        ConflictError: Such a run is at work already.
        ServiceError: The database cannot be prepared.
    """
    layout = get_layout(settings.home)
    prepare(layout)
    airflow_home = layout.home / "airflow-run"
    environment = stack_environment(
        running_settings(settings),
        layout,
        ensure_credentials(layout),
        os.environ,
        airflow_home=airflow_home,
    )
    # One JSON document a line can be read without guessing.
    environment["AIRFLOW__LOGGING__JSON_LOGS"] = "True"
    refusal = ConflictError(
        f"run of {dag_id}", "must be the only one here, got another at work", "Wait for its end."
    )
    with only_one(layout.run / f"{dag_id}.lock", refusal):
        with layout.lock(lambda: None):
            databases.migrate([databases.airflow_database(airflow_home)], environment, layout)
        return _run(layout, dag_id, conf, environment, progress)


def _run(
    layout: Layout,
    dag_id: str,
    conf: Mapping[str, Any],
    environment: Mapping[str, str],
    progress: Callable[[LocalTask], None],
) -> LocalResult:
    log = layout.log(f"run-{dag_id}")
    command = [sys.executable, "-m", "airflow", "dags", "test", dag_id, "--conf", json.dumps(conf)]
    tasks: list[LocalTask] = []
    with (
        log.open("w") as file,
        subprocess.Popen(
            command,
            env=dict(environment),
            cwd=layout.run,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        try:
            for task in read_events(_copy(process.stdout or (), file.write)):
                if not any(task is known for known in tasks):
                    tasks.append(task)
                progress(task)
            returncode = process.wait()
        except BaseException:
            process.terminate()
            raise
    return LocalResult(returncode == 0, tuple(tasks), log)


def _copy(lines: Iterable[str], write: Callable[[str], Any]) -> Iterator[str]:
    for line in lines:
        write(line)
        yield line
