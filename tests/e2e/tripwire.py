"""Ends or holds a task's process at a named call; for the crash tests only.

A test copies this file into Airflow's configuration folder as `airflow_local_settings.py`, which Airflow
imports in each of its processes. A wire is an empty file in the folder that EVERGREEN_TEST_WIRES names:

    <dag_id>@<task_id>@<module>:<function>@<enter|leave>@<n>.<kill|hold>

When that task enters or leaves that function for the n-th time in one process, the file gets the ending
`.tripped` (so it trips once), and the process kills itself, or waits until the tripped file is removed.
"""

import functools
import os
import signal
import sys
import time
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from pathlib import Path

__all__: list[str] = []  # Airflow copies what is listed here into its own settings

_HOLD_SECONDS = 600.0
_calls: dict[str, int] = {}
_armed: set[str] = set()


def _folder() -> Path:
    return Path(os.environ["EVERGREEN_TEST_WIRES"])


def _trip(point: str, when: str) -> None:
    task = f"{os.environ.get('AIRFLOW_CTX_DAG_ID')}@{os.environ.get('AIRFLOW_CTX_TASK_ID')}"
    count = _calls[f"{task}@{point}@{when}"] = _calls.get(f"{task}@{point}@{when}", 0) + 1
    for kind in ("kill", "hold"):
        wire = _folder() / f"{task}@{point}@{when}@{count}.{kind}"
        tripped = wire.with_name(f"{wire.name}.tripped")
        try:
            wire.rename(tripped)
        except FileNotFoundError:
            continue
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        deadline = time.monotonic() + _HOLD_SECONDS
        while tripped.exists() and time.monotonic() < deadline:
            time.sleep(0.05)


def _arm(module, function: str) -> None:
    if f"{module.__name__}:{function}" in _armed:
        return
    _armed.add(f"{module.__name__}:{function}")
    *outer, name = function.split(".")
    owner = functools.reduce(getattr, outer, module)
    original, point = getattr(owner, name), f"{module.__name__}:{function}"

    @functools.wraps(original)
    def wired(*args, **options):
        _trip(point, "enter")
        result = original(*args, **options)
        _trip(point, "leave")
        return result

    setattr(owner, name, wired)


def _functions(module: str) -> set[str]:
    points = (path.name.split("@")[2].partition(":") for path in _folder().glob("*@*@*@*@*"))
    return {function for found, _, function in points if found == module}


def _arm_airflow() -> None:
    """Arm Airflow's own functions, whose modules were there before us."""
    for wire in _folder().glob("*@*@airflow.*@*@*"):
        module, _, function = wire.name.split("@")[2].partition(":")
        if module in sys.modules:
            _arm(sys.modules[module], function)


class _Armer(MetaPathFinder):
    """Arms the functions of a module when it is imported."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.startswith("include."):
            _arm_airflow()
        functions = _functions(fullname) if fullname.startswith(("include.", "mlflow.")) else ()
        spec = PathFinder.find_spec(fullname, path, target) if functions else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module) -> None:
            load(module)
            for function in functions:
                _arm(module, function)

        spec.loader.exec_module = exec_module
        return spec


if "EVERGREEN_TEST_WIRES" in os.environ:
    sys.meta_path.insert(0, _Armer())
