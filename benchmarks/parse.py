"""What many models cost whoever parses the Dag file, and what one model's task pays for the others.

    python benchmarks/parse.py                  # 10, 100 and 1,000 models
    python benchmarks/parse.py --models 50

Each figure comes from a process of its own, which parses copies of the churn example. Imports are timed apart: a Dag
processor pays them once a parse, in a child that has Airflow loaded. `plain` runs the Dag file, `dagbag` adds
Airflow's checks, `serialize` adds the JSON for Airflow's database. Targets: `dagbag` takes at most 5 ms a model, and a
task that starts among a thousand models pays for its own only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "include" / "models" / "churn.yaml"
DAG_FILE = ROOT / "dags" / "training.py"
TASK_CONTEXT = "_AIRFLOW_PARSING_CONTEXT_DAG_ID"  # Airflow sets it in a task's process
WAYS = ("plain", "dagbag", "serialize")
TARGET_MS = 5.0


def generate(folder: Path, models: int) -> None:
    """Write so many specs, each a copy of the example under a name of its own."""
    text = EXAMPLE.read_text(encoding="utf-8")
    for number in range(models):
        name = f"model_{number:04d}"
        spec = text.replace("model: churn\n", f"model: {name}\n")
        (folder / f"{name}.yaml").write_text(spec, encoding="utf-8")


def memory_mb() -> float:
    """Return the process's peak memory so far."""
    unit = 1024 if sys.platform != "darwin" else 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def build_plain() -> int:
    """Run the Dag file as Python does."""
    found = runpy.run_path(str(DAG_FILE))
    return sum(name.endswith("__train") for name in found)


def build_dagbag() -> Any:
    """Load the Dag file as Airflow does, its checks included."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(DAG_FILE))
    if bag.import_errors:
        sys.exit(str(bag.import_errors))
    return bag


def build_serialized() -> int:
    """Load the Dag file and turn every Dag into the JSON that goes to Airflow's database."""
    from airflow.serialization.serialized_objects import DagSerialization

    return sum(bool(DagSerialization.to_dict(dag)) for dag in build_dagbag().dags.values())


def parse(way: str) -> dict[str, float]:
    """Import everything, then parse; the child's half of this benchmark."""
    before = time.perf_counter()
    from airflow.dag_processing.dagbag import DagBag  # noqa: F401
    from airflow.serialization.serialized_objects import DagSerialization  # noqa: F401
    from evergreen.factory import training  # noqa: F401

    from include.spec import loader  # noqa: F401

    imported, idle, cpu = time.perf_counter(), memory_mb(), time.process_time()
    if way == "plain":
        dags = build_plain()
    elif way == "dagbag":
        dags = len(build_dagbag().dags)
    else:
        dags = build_serialized()
    return {
        "imports": imported - before,
        "seconds": time.perf_counter() - imported,
        "cpu": time.process_time() - cpu,
        "mb": memory_mb() - idle,
        "dags": dags,
    }


def measure(way: str, specs: Path, home: Path, rounds: int, only: str = "") -> dict[str, float]:
    """Return the medians over `rounds` processes."""
    environment = {
        **{n: v for n, v in os.environ.items() if not n.startswith(("AIRFLOW", "EVERGREEN"))},
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "EVERGREEN_MODELS": str(specs),
    }
    if only:
        environment[TASK_CONTEXT] = only
    found = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), "--way", way],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(done.stderr or done.stdout)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return {name: statistics.median(r[name] for r in found) for name in found[0]}


def report(models: int, specs: Path, home: Path, rounds: int) -> None:
    """Measure and print one number of models."""
    for way in WAYS:
        result = measure(way, specs, home, rounds)
        if result["dags"] != models:
            sys.exit(f"{models} models must give as many Dags, got {result['dags']:.0f}")
        each = result["seconds"] / models * 1000, result["cpu"] / models * 1000
        missed = way == "dagbag" and each[1] > TARGET_MS
        mark = f"  target <= {TARGET_MS:g} ms of cpu missed" if missed else ""
        print(
            f"{models:>7,} {way:<12}{result['imports']:>10.2f}{result['seconds']:>10.3f}"
            f"{result['cpu']:>9.3f}{each[0]:>11.2f}{each[1]:>10.2f}{result['mb']:>8.1f}{mark}",
            flush=True,
        )
    one = measure("dagbag", specs, home, rounds, only=f"model_{models // 2:04d}__train")
    if one["dags"] != 1:
        sys.exit(f"a task must build its own Dag only, got {one['dags']:.0f}")
    print(
        f"{models:>7,} {'one task':<12}{one['imports']:>10.2f}{one['seconds']:>10.3f}"
        f"{one['cpu']:>9.3f}{'':>21}{one['mb']:>8.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=3, help="processes a figure; the median")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(parse(args.way)))
        return
    print(f"medians of {args.rounds} processes; ms a model leave the imports out\n")
    print(
        f"{'models':>7} {'parsed':<12}{'imports s':>10}{'parse s':>10}{'cpu s':>9}"
        f"{'ms/model':>11}{'cpu ms':>10}{'+MB':>8}"
    )
    for models in args.models:
        with tempfile.TemporaryDirectory() as folder:
            specs, home = Path(folder) / "models", Path(folder) / "airflow"
            specs.mkdir()
            generate(specs, models)
            report(models, specs, home, args.rounds)


if __name__ == "__main__":
    main()
