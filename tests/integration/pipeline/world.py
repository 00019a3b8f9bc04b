"""A world for training Dags without a scheduler: a real MLflow, a real serving process, `dag.test()`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from include.deploy.client import ServingClient
from include.ledger.ledger import Ledger
from include.registry.gateway import Registry
from include.settings import ROOT, Settings
from include.stack import databases
from include.stack.credentials import ensure_credentials
from include.stack.environment import stack_environment
from include.stack.layout import get_layout, prepare
from include.stack.local_run import LocalTask, read_events
from include.store.files import Store, open_store
from include.store.snapshots import read_manifest, snapshot_paths
from tests.models import small_spec, write_days, write_spec
from tests.servers import free_port, run_process, start_mlflow, wait_for


@dataclass(frozen=True)
class Run:
    """How a run ended: its state, its tasks' states, and what they failed with."""

    state: str
    run_id: str
    tasks: Mapping[str, str]
    errors: Mapping[str, str]

    @property
    def failure(self) -> tuple[str, str]:
        """The one task that failed, and its last error; `finish`, which cannot close a run either, aside."""
        failed = [n for n, state in self.tasks.items() if state == "failed" and n != "finish"]
        assert len(failed) == 1, self.tasks
        return failed[0], self.errors[failed[0]]


@dataclass
class World:
    """Everything a training Dag works with."""

    settings: Settings
    environment: dict[str, str]
    runner: subprocess.Popen[str]
    log: Path

    @property
    def home(self) -> Path:
        return self.settings.home

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.settings.mlflow)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.settings.ledger_dsn)

    @cached_property
    def store(self) -> Store:
        return open_store(self.settings.store_uri)

    def data(self, model: str) -> Path:
        return self.home / "data" / model

    def add_model(self, name: str, **changes: Any) -> None:
        write_days(self.data(name))
        self.write_spec(name, **changes)

    def write_spec(self, name: str, **changes: Any) -> Path:
        return write_spec(self.settings.models, small_spec(name, self.data(name), **changes))

    def run(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Run:
        """Run a Dag to its end, with these variables on top of the environment."""
        assert self.runner.stdin is not None
        assert self.runner.stdout is not None
        request = {"dag_id": dag_id, "conf": conf or {}, "environment": environment or {}}
        self.runner.stdin.write(json.dumps(request) + "\n")
        self.runner.stdin.flush()
        lines = []
        with self.log.open("a") as file:
            for line in self.runner.stdout:
                file.write(line)
                lines.append(line)
                if '"RUN ENDED"' in line:
                    break
        assert lines, "the runner ended"
        end = json.loads(lines[-1])
        assert end.get("state"), end or lines[-30:]
        tasks: dict[str, LocalTask] = {task.name: task for task in read_events(lines)}
        errors = {name: task.error for name, task in tasks.items()}
        return Run(end["state"], end["run_id"], end["tasks"], errors)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `./evergreen` as a user would, beside this world's servers."""
        own = {n: v for n, v in os.environ.items() if not n.startswith(("AIRFLOW", "EVERGREEN_"))}
        values = self.settings.model_dump(mode="json") | {"mlflow_url": self.settings.mlflow}
        own |= {f"EVERGREEN_{name.upper()}": str(value) for name, value in values.items()}
        return subprocess.run(
            [str(ROOT / "evergreen"), *arguments],
            env=own,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def serves(self, model: str) -> str | None:
        """Return the version that answers a real request; None when none does."""
        with ServingClient(self.settings.serving) as client:
            example = client.example(model)
            reply = client.infer(model, example.body) if example.ok else example
            return reply.body.get("model_version") if reply.ok else None

    def standing(self, model: str) -> dict[str, Any]:
        """Return what a failed run must not change."""
        moves = [e.key for e in self.ledger.events(model) if e.kind in ("promotion", "rollback")]
        return {
            "aliases": self.registry.aliases(model),
            "versions": [v.version for v in self.registry.versions(model)],
            "moves": moves,
            "intact": self.ledger.verify(model).ok,
            "serves": self.serves(model),
        }

    def open_runs(self, model: str) -> list[str]:
        """Return the names of a model's MLflow runs that are still RUNNING."""
        experiment = self.registry.experiment_id(model)
        found = self.registry.client.search_runs([experiment], "attributes.status = 'RUNNING'")
        return [run.info.run_name for run in found]

    def assert_nothing_half_written(self, model: str) -> None:
        """Assert that every snapshot is whole, and that there are no files of an unfinished write."""
        hidden = [path for path in (self.home / "store").rglob(".*") if path.is_file()]
        assert hidden == []
        ids = {key.split("/")[2] for key in self.store.list(f"snapshots/{model}/")}
        for snapshot_id in ids:
            manifest = read_manifest(self.store, model, snapshot_id)
            snapshot_paths(self.store, manifest)


@contextmanager
def start_world(home: Path) -> Iterator[World]:
    """Start MLflow, serving and a process that runs Dags, with their state in `home`."""
    mlflow_port, serving_port = free_port(), free_port()
    settings = Settings(
        home=home, models=home / "models", mlflow_port=mlflow_port, serving_port=serving_port
    )
    settings.models.mkdir(parents=True)
    layout = get_layout(home)
    prepare(layout)
    airflow_home = layout.home / "airflow-run"
    environment = stack_environment(
        settings, layout, ensure_credentials(layout), os.environ, airflow_home=airflow_home
    )
    environment["AIRFLOW__LOGGING__JSON_LOGS"] = "True"
    # This checkout's, wherever the project is installed from.
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
    databases.migrate([databases.airflow_database(airflow_home)], environment, layout)
    command = [sys.executable, "-m", "include.serving"]
    with (
        start_mlflow(home / "mlflow", port=mlflow_port),
        run_process(command, layout.log("serving"), environment) as serving,
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("runner.py"))],
            env=environment,
            cwd=layout.run,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as runner,
    ):
        try:
            wait_for(f"{settings.serving}/v2/health/live", serving, layout.log("serving"))
            yield World(settings, environment, runner, layout.log("runs"))
        finally:
            runner.terminate()
