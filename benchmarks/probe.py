"""Tells where a task's seconds go; `pipeline.py` lays it into Airflow's configuration folder.

Airflow imports it there, as `airflow_local_settings`, in each of its processes. Each execution of one of our operators
becomes a line of JSON in the file that EVERGREEN_BENCH_PROBE names: when it began and ended, its processor seconds,
and how much of both went into first imports of modules and into waiting for MLflow.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

__all__: list[str] = []  # Airflow copies what is listed here into its own settings

_spent = {"import": 0.0, "import_cpu": 0.0, "mlflow": 0.0, "mlflow_cpu": 0.0, "mlflow_calls": 0.0}
_main = threading.main_thread()
_depth = 0


def _timed(load: Callable[[Any], None], module: Any) -> None:
    """Execute a module; the outermost one of a chain of imports is counted, with all it brings."""
    global _depth
    wall, cpu = time.perf_counter(), time.process_time()
    _depth += 1
    try:
        load(module)
    finally:
        _depth -= 1
        if not _depth:
            _spent["import"] += time.perf_counter() - wall
            _spent["import_cpu"] += time.process_time() - cpu
    if module.__name__ == "evergreen.operators.stage":
        _watch_tasks(module.EvergreenOperator)
    elif module.__name__ == "requests.sessions":
        _watch_requests(module.Session)


class _Timer(MetaPathFinder):
    """Finds modules as usual and times their execution."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if threading.current_thread() is not _main:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None or not hasattr(spec.loader, "__dict__"):
            return None
        load = spec.loader.exec_module
        spec.loader.exec_module = functools.partial(_timed, load)  # type: ignore[method-assign]
        return spec


def _watch_tasks(operator: Any) -> None:
    execute = operator.execute

    @functools.wraps(execute)
    def watched(self: Any, *args: Any, **options: Any) -> Any:
        before, began, cpu = dict(_spent), time.time(), time.process_time()
        try:
            return execute(self, *args, **options)
        finally:
            line = {name: value - before[name] for name, value in _spent.items()}
            line |= {"began": began, "ended": time.time(), "cpu": time.process_time() - cpu}
            with Path(os.environ["EVERGREEN_BENCH_PROBE"]).open("a") as file:
                file.write(json.dumps({"dag_id": self.dag_id, "task_id": self.task_id, **line}))
                file.write("\n")

    operator.execute = watched


def _watch_requests(session: Any) -> None:
    send = session.send

    @functools.wraps(send)
    def watched(self: Any, *args: Any, **options: Any) -> Any:
        wall, cpu, imports = time.perf_counter(), time.process_time(), dict(_spent)
        try:
            return send(self, *args, **options)
        finally:
            late = _spent["import"] - imports["import"]
            late_cpu = _spent["import_cpu"] - imports["import_cpu"]
            _spent["mlflow"] += time.perf_counter() - wall - late
            _spent["mlflow_cpu"] += time.process_time() - cpu - late_cpu
            _spent["mlflow_calls"] += 1

    session.send = watched


if "EVERGREEN_BENCH_PROBE" in os.environ:
    sys.meta_path.insert(0, _Timer())
