"""Where a training run's seconds go, beside a plain script that does the same work.

    python benchmarks/pipeline.py                              # 100,000 rows: script, `run`, scheduler
    python benchmarks/pipeline.py --rows 5000 --no-scheduler
    python benchmarks/pipeline.py --stages --rows 1000000      # the stages alone, without Airflow and MLflow

The same 20-column CSV goes through `plain_pipeline.py`, through the Dag in one process (`evergreen run`) and through
the Dag under the real scheduler, all against one MLflow server in a temporary EVERGREEN_HOME on free ports. All sides
try the same five settings on the same folds, one thread each. `work` is what a task did besides first imports of
modules; Airflow's share is the time from the start of a task's process to its first line of ours and after its last.

Targets: the Dag's work at most 1.3 times the script's; ingest, validate and the gate together less than 15% of
training at a million rows (`--stages`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))
CHUNK = 250_000
NUMERIC, CATEGORICAL = 14, 3
STAGES = ("ingest", "validate", "train.tune", "train.fit", "evaluate", "register")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
MAX_RATIO, MAX_SHARE = 1.3, 0.15


def generate(path: Path, rows: int) -> None:
    """Write 20 columns: key, time, 14 numbers (one with gaps), 3 categories, a 0/1 target."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv as pacsv

    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, rows, CHUNK):
            n = min(CHUNK, rows - start)
            columns: dict[str, Any] = {"id": [f"K{i:08d}" for i in range(start, start + n)]}
            seconds = start + np.arange(n)
            columns["at"] = (np.datetime64("2026-01-01", "s") + seconds).astype("datetime64[s]")
            x = np.round(rng.normal(size=(NUMERIC, n)), 4)
            c = rng.integers(0, 12, (CATEGORICAL, n))
            signal = x[1] * x[2] + x[3] + (c[0] < 3) * 1.5
            columns["x0"] = pa.array(x[0], mask=rng.random(n) < 0.1)
            columns |= {f"x{i}": x[i] for i in range(1, NUMERIC)}
            columns |= {f"c{i}": [f"k{v}" for v in c[i]] for i in range(CATEGORICAL)}
            columns["y"] = (rng.random(n) < 1 / (1 + np.exp(-signal))).astype(int)
            pacsv.write_csv(pa.table(columns), file, pacsv.WriteOptions(include_header=start == 0))


def make_spec(model: str, source: Path) -> dict[str, Any]:
    """Return the spec of the same work as `plain_pipeline.py`."""
    in_set = {"column": "c0", "value_set": [f"k{n}" for n in range(12)]}
    between = {"column": "x0", "min_value": -100, "max_value": 100, "mostly": 0.8}
    learning_rate = {"choices": [0.03, 0.06, 0.1, 0.15, 0.25]}  # as many as trials: all are tried
    return {
        "model": model,
        "task": "binary",
        "ingest": {
            "source": {"kind": "file", "path": str(source)},
            "key": "id",
            "time": "at",
            "target": "y",
        },
        "validate": {
            "min_rows": 1000,
            "expectations": [
                {"expect_column_values_to_be_between": between},
                {"expect_column_values_to_be_in_set": in_set},
            ],
        },
        "train": {
            "candidates": [
                {
                    "estimator": "sklearn.ensemble.HistGradientBoostingClassifier",
                    "search": {"learning_rate": learning_rate},
                }
            ],
            "tune": {"trials": 5, "folds": 3, "timeout": "2h"},
        },
        "evaluate": {"holdout": "20%", "minimum": {"roc_auc": 0.6}},
    }


# --- the stages alone -----------------------------------------------------------------------------------


def stages(source: Path, folder: Path) -> dict[str, Any]:
    """Run the stage functions one after the other in this process; the child's half of `--stages`."""
    from threadpoolctl import threadpool_limits

    from include.evaluate.evaluate import evaluate
    from include.ingest.ingest import ingest
    from include.registry.trust import load_model
    from include.scoring.model import LoadedModel
    from include.spec.schema import Spec
    from include.store.features import resolve_features
    from include.store.files import open_store
    from include.store.split import plan_split
    from include.train.fit import fit
    from include.train.tune import tune
    from include.validate import expectations  # noqa: F401  # imported by `validate` when wanted
    from include.validate.stage import validate

    spec = Spec.model_validate(make_spec("bench", source))
    store, now = open_store(str(folder / "store")), datetime.now(UTC)
    laps: dict[str, dict[str, float]] = {}
    wall, cpu = time.perf_counter(), time.process_time()

    def lap(stage: str) -> None:
        nonlocal wall, cpu
        then = time.perf_counter(), time.process_time()
        laps[stage] = {"wall": then[0] - wall, "cpu": then[1] - cpu}
        wall, cpu = then

    manifest = ingest(spec, store, now=now, workdir=folder / "work").manifest
    lap("ingest")
    if not validate(spec, store, manifest, now=now, out=folder / "validate").ok:
        sys.exit("the generated data must be valid")
    split = plan_split(spec, store, manifest)
    lap("validate")
    storage = f"sqlite:///{folder / 'optuna.db'}"
    tuned = tune(spec, store, manifest, split, 0, storage=storage, study="bench")
    lap("train.tune")
    fitted = fit(spec, store, manifest, split, 0, tuned.best_params, folder / "fit")
    lap("train.fit")
    challenger = LoadedModel(
        load_model(fitted.model_path, fitted.sha256),
        resolve_features(spec, manifest),
        fitted.classes,
        "new",
        fitted.cutoff,
    )
    with threadpool_limits(1):
        result = evaluate(spec, store, manifest, split, challenger, None, out=folder / "evaluate")
    lap("evaluate")
    return {"laps": laps, "verdict": result.verdict, "rows": manifest.rows}


def report_stages(source: Path, folder: Path) -> None:
    """Print what ingest, validate and the gate cost beside training."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", str(source), str(folder)]
    done = last_json(command, one_thread(os.environ))
    laps = done["laps"]
    training = {k: laps["train.tune"][k] + laps["train.fit"][k] for k in ("wall", "cpu")}
    print(f"{'stage':<14}{'seconds':>9}{'cpu s':>9}{'of training':>13}{'by cpu':>9}")
    total = {"wall": 0.0, "cpu": 0.0}
    for stage, lap in laps.items():
        rest = ""
        if not stage.startswith("train"):
            total = {k: total[k] + lap[k] for k in total}
            rest = f"{lap['wall'] / training['wall']:13.1%}{lap['cpu'] / training['cpu']:9.1%}"
        print(f"{stage:<14}{lap['wall']:9.2f}{lap['cpu']:9.2f}{rest}")
    share = {k: total[k] / training[k] for k in total}
    verdict = "met" if share["cpu"] < MAX_SHARE else "MISSED"
    print(
        f"{'the three':<14}{total['wall']:9.2f}{total['cpu']:9.2f}"
        f"{share['wall']:13.1%}{share['cpu']:9.1%}   target < {MAX_SHARE:.0%} of cpu: {verdict}"
    )


# --- the script and the Dag -----------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskTime:
    """Where the seconds of one task went.

    Attributes:
        name: Task id.
        wait: From the end of the task before to the start of this one's process.
        start: From there to the first line of ours.
        imports: First imports of modules.
        work: The rest of what the task did.
        mlflow: Part of `work` that waited for MLflow.
        calls: How often MLflow was asked.
        end: From the last line of ours to the end of the task.
        cpu: Processor seconds of `work`.
        imports_cpu: Processor seconds of `imports`.
    """

    name: str
    wait: float
    start: float
    imports: float
    work: float
    mlflow: float
    calls: float
    end: float
    cpu: float
    imports_cpu: float


@dataclass
class Home:
    """A stack of the benchmark's own: a folder, free ports, and the probe in both of Airflow's folders."""

    folder: Path
    environment: dict[str, str]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line; exit with what it says when it fails."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "include.cli", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"evergreen {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done

    def probes(self, dag_id: str) -> dict[str, dict[str, float]]:
        """Return what the probe saw of a Dag's tasks."""
        lines = map(json.loads, (self.folder / "probe.jsonl").read_text().splitlines())
        return {line["task_id"]: line for line in lines if line["dag_id"] == dag_id}


@contextmanager
def open_home(folder: Path) -> Iterator[Home]:
    """Prepare a home, and stop whatever was started in it at the end."""
    from tests.servers import free_port

    home = folder / "home"
    (home / "models").mkdir(parents=True)
    for airflow in ("airflow", "airflow-run"):
        config = home / airflow / "config"
        config.mkdir(parents=True)
        shutil.copyfile(HERE / "probe.py", config / "airflow_local_settings.py")
    own = {n: v for n, v in os.environ.items() if not n.startswith(("AIRFLOW", "EVERGREEN_"))}
    ports = {f"EVERGREEN_{n}_PORT": str(free_port()) for n in ("AIRFLOW", "MLFLOW", "SERVING")}
    paths = {
        "PYTHONPATH": str(ROOT),
        "EVERGREEN_HOME": str(home),
        "EVERGREEN_MODELS": str(home / "models"),
        "EVERGREEN_BENCH_PROBE": str(home / "probe.jsonl"),
    }
    it = Home(home, one_thread({**own, **ports, **paths}))
    try:
        yield it
    finally:
        it.command("down")


def one_thread(environment: Any) -> dict[str, str]:
    """Return an environment that holds numerical libraries to one thread."""
    return {**environment, **dict.fromkeys(THREADS, "1"), "MLFLOW_DISABLE_TELEMETRY": "true"}


def last_json(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run a command and return its last line."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_script(source: Path, folder: Path, home: Home, threads: int = 1) -> dict[str, Any]:
    """Run the plain script."""
    url = f"http://127.0.0.1:{home.environment['EVERGREEN_MLFLOW_PORT']}"
    environment = {**home.environment, **dict.fromkeys(THREADS, str(threads))}
    command = [sys.executable, str(HERE / "plain_pipeline.py"), str(source), str(folder), url]
    begun = time.perf_counter()
    done = last_json(command, environment)
    return {**done, "process": time.perf_counter() - begun}


def run_in_process(home: Home, model: str) -> tuple[list[TaskTime], float]:
    """Run the Dag without a scheduler; the times between tasks are not known here."""
    begun = time.perf_counter()
    answer = json.loads(home.command("run", model, "--json").stdout)
    seconds = time.perf_counter() - begun
    if answer["state"] != "success":
        sys.exit(f"the run of {model} must succeed; see {answer['log']}")
    probes = home.probes(f"{model}__train")
    times = []
    for task in answer["tasks"]:
        seen = probes[task["task_id"]]
        spent = seen["ended"] - seen["began"]
        times.append(make_time(task["task_id"], seen, 0.0, 0.0, task["seconds"] - spent))
    return times, seconds


def make_time(name: str, seen: dict[str, float], wait: float, start: float, end: float) -> TaskTime:
    """Put together what the probe and Airflow say."""
    spent = seen["ended"] - seen["began"]
    work, cpu = spent - seen["import"], seen["cpu"] - seen["import_cpu"]
    return TaskTime(
        name=name,
        wait=wait,
        start=start,
        imports=seen["import"],
        work=work,
        mlflow=seen["mlflow"],
        calls=seen["mlflow_calls"],
        end=end,
        cpu=cpu,
        imports_cpu=seen["import_cpu"],
    )


def run_scheduled(home: Home, model: str) -> tuple[list[TaskTime], float]:
    """Run the Dag under the scheduler, its tasks as processes of their own."""
    from include.settings import Settings
    from include.stack.airflow_client import open_client

    names = ("home", "models", "airflow_port", "mlflow_port", "serving_port")
    values = {n: home.environment[f"EVERGREEN_{n.upper()}"] for n in names}
    dag_id, run_id = f"{model}__train", "bench"
    with open_client(Settings(**values)) as airflow:  # type: ignore[arg-type]
        airflow.wait_for_dag(dag_id, timeout=120)
        airflow.trigger(dag_id, {}, run_id)
        result = airflow.wait(dag_id, run_id, timeout=7200, poll=0.5)
        if result.state != "success":
            sys.exit(f"the scheduled run of {model} must succeed, got {result}")
        run = airflow.run(dag_id, run_id)
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        tasks = airflow.request("GET", path, "tasks")["task_instances"]
    begun, ended = moment(run["queued_at"]), moment(run["end_date"])
    before, times, probes = begun, [], home.probes(dag_id)
    for task in sorted(tasks, key=lambda t: t["start_date"]):
        seen = probes[task["task_id"]]
        start, end = moment(task["start_date"]), moment(task["end_date"])
        times.append(
            make_time(
                task["task_id"], seen, start - before, seen["began"] - start, end - seen["ended"]
            )
        )
        before = end
    return times, ended - begun


def moment(text: str) -> float:
    """Return seconds since the epoch."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def print_times(title: str, times: list[TaskTime], whole: float) -> None:
    """Print a Dag's seconds by task."""
    print(f"\n{title}: {whole:.1f} s from request to end\n")
    columns = ("wait", "start", "imports", "work", "mlflow", "calls", "end", "cpu", "imports_cpu")
    heads = ("wait", "start", "imports", "work", "of it MLflow", "calls", "end", "work cpu")
    print(f"{'task':<14}" + "".join(f"{head:>13}" for head in (*heads, "import cpu")))
    every = [(t.name, {c: getattr(t, c) for c in columns}) for t in times]
    every.append(("all", {c: sum(row[c] for _, row in every) for c in columns}))
    for name, row in every:
        cells = (f"{row[c]:13.0f}" if c == "calls" else f"{row[c]:13.2f}" for c in columns)
        print(f"{name:<14}{''.join(cells)}", flush=True)


def print_comparison(script: dict[str, Any], dags: dict[str, list[TaskTime]]) -> None:
    """Print the stages of the script beside those of the Dag."""
    print(f"\n{'seconds (cpu s)':<18}{'script':>16}", end="")
    print("".join(f"{name:>18}{'ratio (cpu)':>16}" for name in dags))
    laps = script["laps"]
    sums: dict[str, list[float]] = {name: [0.0, 0.0] for name in dags}
    for stage in STAGES:
        lap = laps[stage]
        print(f"{stage:<18}{pair(lap['wall'], lap['cpu']):>16}", end="")
        for name, times in dags.items():
            found = next(t for t in times if t.name == stage)
            sums[name][0] += found.work
            sums[name][1] += found.cpu
            print(ratios(found.work, found.cpu, lap), end="")
        print()
    whole = {k: sum(laps[stage][k] for stage in STAGES) for k in ("wall", "cpu")}
    print(f"{'work':<18}{pair(whole['wall'], whole['cpu']):>16}", end="")
    print("".join(ratios(*sums[name], whole) for name in dags))
    imports = laps["imports"]
    print(f"{'imports':<18}{pair(imports['wall'], imports['cpu']):>16}", end="")
    for times in dags.values():
        found = sum(t.imports for t in times), sum(t.imports_cpu for t in times)
        print(ratios(*found, imports), end="")
    others = {name: [t for t in times if t.name not in STAGES] for name, times in dags.items()}
    print(f"\n{'admit, deploy, finish':<34}", end="")
    for times in others.values():
        print(f"{pair(sum(t.work for t in times), sum(t.cpu for t in times)):>18}{'':16}", end="")
    print()
    for name, (wall, cpu) in sums.items():
        ratio = cpu / whole["cpu"]
        verdict = "met" if ratio <= MAX_RATIO else "MISSED"
        print(
            f"{name}: work {wall / whole['wall']:.2f} by the clock, {ratio:.2f} by cpu; "
            f"target <= {MAX_RATIO} by cpu: {verdict}"
        )


def pair(wall: float, cpu: float) -> str:
    return f"{wall:.2f} ({cpu:.2f})"


def ratios(wall: float, cpu: float, base: dict[str, float]) -> str:
    ratio = f"{wall / base['wall']:.2f} ({cpu / base['cpu']:.2f})"
    return f"{pair(wall, cpu):>18}{ratio:>16}"


def compare(source: Path, folder: Path, *, scheduler: bool, threads: int) -> None:
    """Run all sides and print them."""
    import yaml

    with open_home(folder) as home:
        for model in ("bench_run", "bench_scheduled"):
            text = yaml.safe_dump(make_spec(model, source), sort_keys=False)
            (home.folder / "models" / f"{model}.yaml").write_text(text)
        dags: dict[str, list[TaskTime]] = {}
        home.command("run", "bench_run", "--help")  # compiles what was never run before
        times, whole = run_in_process(home, "bench_run")
        dags["run"] = times
        script = run_script(source, folder, home)
        print(f"script: {script['process']:.1f} s, its roc_auc {script['roc_auc']:.4f}")
        if threads > 1:
            wide = run_script(source, folder, home, threads)
            print(f"script with {threads} threads: {wide['process']:.1f} s")
        print_times("the Dag in one process (`evergreen run`)", times, whole)
        if scheduler:
            home.command("up")
            times, whole = run_scheduled(home, "bench_scheduled")
            dags["scheduled"] = times
            print_times("the Dag under the scheduler", times, whole)
        print_comparison(script, dags)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--stages", action="store_true", help="the stages alone")
    parser.add_argument("--no-scheduler", action="store_true", help="script and `run` only")
    parser.add_argument("--threads", type=int, default=1, help="also run the script with so many")
    parser.add_argument("--folder", type=Path, help="where to put temporary files (the system's)")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(stages(*args.child)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        source = folder / "rows.csv"
        generate(source, args.rows)
        megabytes = source.stat().st_size / 2**20
        print(f"{args.rows:,} rows x 20 columns, {megabytes:,.0f} MB of CSV, one thread\n")
        if args.stages:
            report_stages(source, folder)
        else:
            compare(source, folder, scheduler=not args.no_scheduler, threads=args.threads)


if __name__ == "__main__":
    main()
