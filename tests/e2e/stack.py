"""The embedded stack of the e2e tests, seen from outside: REST, MLflow, the ledger, serving, processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from include.deploy.client import ServingClient
from include.ledger.ledger import Ledger
from include.registry.gateway import Registry
from include.settings import ROOT, Settings
from include.stack.airflow_client import AirflowClient, RunResult, open_client
from include.stack.layout import get_layout
from include.stack.status import find_supervisor
from include.store.files import open_store
from include.store.snapshots import read_manifest, snapshot_paths
from tests.models import small_spec, write_days, write_spec
from tests.servers import free_port

TRIPWIRE = Path(__file__).with_name("tripwire.py")


def wait_until(what: str, ready: Callable[[], Any], deadline: float = 60.0) -> Any:
    """Poll until `ready` returns something true, and return it; fail after `deadline` seconds."""
    until = time.monotonic() + deadline
    while not (found := ready()):
        assert time.monotonic() < until, f"{what} did not come to be within {deadline:g} s"
        time.sleep(0.1)
    return found


def question(model: str, run_id: str) -> str:
    """Return the path of the question that a run's `approve` asks."""
    return f"/dags/{model}__train/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"


def asks(client: AirflowClient, model: str, run_id: str) -> str | None:
    """Return the state of a run's `approve`; `awaiting_input` while it asks."""
    tasks = client.task_instances(f"{model}__train", run_id)
    return next((t.state for t in tasks if t.task_id == "approve"), None)


def answer_question(client: AirflowClient, model: str, run_id: str, option: str) -> None:
    """Wait for a run's question and answer it, like a person: not before the scheduler went round once more.

    An answer that comes before the scheduler has read that the asking process ended makes Airflow take the
    task for lost and ask again, as often as it may be tried.
    """
    path = question(model, run_id)

    def heartbeat() -> datetime:
        health = client.request("GET", "/monitor/health", "Health")
        return datetime.fromisoformat(health["scheduler"]["latest_scheduler_heartbeat"])

    def taken() -> bool:
        state = asks(client, model, run_id)
        if state == "awaiting_input":
            seen = datetime.now(UTC) + timedelta(seconds=1)
            wait_until("the scheduler's next round", lambda: heartbeat() > seen, 60)
            if not client.request("GET", path, "Question")["response_received"]:
                body = {"chosen_options": [option], "params_input": {}}
                client.request("PATCH", path, "Answer", json=body)
        return state in ("success", "failed")

    wait_until(f"the answer to {run_id} to be taken", taken, 300)


@dataclass
class Stack:
    """One embedded stack in a folder of its own, on ports of its own.

    Attributes:
        code_prefixes: Code of the tests that specs may name.
    """

    home: Path
    code_prefixes: str = ""
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        ports = {f"{name}_port": free_port() for name in ("airflow", "mlflow", "serving")}
        self.settings = Settings(home=self.home, models=self.home / "models", **ports)  # type: ignore[arg-type]

    # --- starting and stopping --------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        own = {n: v for n, v in os.environ.items() if not n.startswith(("AIRFLOW", "EVERGREEN_"))}
        values = {
            "HOME": self.home,
            "MODELS": self.models,
            "AIRFLOW_PORT": self.settings.airflow_port,
            "MLFLOW_PORT": self.settings.mlflow_port,
            "SERVING_PORT": self.settings.serving_port,
            "TEST_WIRES": self.wires,
            "CODE_PREFIXES": self.code_prefixes,
        }
        return own | {f"EVERGREEN_{name}": str(value) for name, value in values.items()}

    def command(self, *arguments: str, timeout: float = 200.0) -> subprocess.CompletedProcess[str]:
        """Run `./evergreen` as a user would."""
        return subprocess.run(
            [str(ROOT / "evergreen"), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def up(self) -> None:
        """Start it, with the tripwires in place."""
        self.wires.mkdir(parents=True, exist_ok=True)
        self.models.mkdir(exist_ok=True)
        config = self.home / "airflow" / "config"
        config.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(TRIPWIRE, config / "airflow_local_settings.py")
        done = self.command("up")
        assert done.returncode == 0, done.stdout + done.stderr

    def down(self) -> None:
        """Stop it."""
        done = self.command("down")
        assert done.returncode == 0, done.stdout + done.stderr

    # --- its parts --------------------------------------------------------------------------------

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def wires(self) -> Path:
        return self.home / "wires"

    @cached_property
    def airflow(self) -> AirflowClient:
        return open_client(self.settings)

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.settings.mlflow)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.settings.ledger_dsn)

    @property
    def serving(self) -> str:
        return self.settings.serving

    def pid(self, component: str) -> int:
        """Return a component's process id; 0 while it does not run."""
        supervisor = find_supervisor(get_layout(self.home))
        assert supervisor is not None, "no supervisor"
        return supervisor.processes()[component].pid

    # --- models and runs --------------------------------------------------------------------------

    def data(self, model: str) -> Path:
        return self.home / "data" / model

    def add_model(self, name: str, **changes: Any) -> None:
        """Write a small model's data and spec."""
        write_days(self.data(name))
        write_spec(self.models, small_spec(name, self.data(name), **changes))

    def trigger(
        self,
        model: str,
        run_id: str,
        conf: Mapping[str, Any] | None = None,
        *,
        dag: str = "train",
    ) -> None:
        """Start a run of one of a model's Dags as soon as the Dag is there."""
        self.airflow.wait_for_dag(f"{model}__{dag}", timeout=120)
        self.airflow.trigger(f"{model}__{dag}", conf, run_id)

    def wait(
        self, model: str, run_id: str, timeout: float = 300.0, *, dag: str = "train"
    ) -> RunResult:
        """Wait for the end of a run."""
        return self.airflow.wait(f"{model}__{dag}", run_id, timeout=timeout, poll=0.3)

    def log(self, model: str, run_id: str, task: str, attempt: int = 1) -> list[dict[str, Any]]:
        """Return the structured lines of a task's log."""
        path = f"/dags/{model}__train/dagRuns/{run_id}/taskInstances/{task}/logs/{attempt}"
        content = self.airflow.request("GET", path, "Log", params={"full_content": True})["content"]
        return [line for line in content if isinstance(line, dict)]

    # --- tripwires --------------------------------------------------------------------------------

    def lay_wire(
        self,
        kind: str,
        model: str,
        task: str,
        point: str,
        when: str,
        n: int = 1,
        *,
        dag: str = "train",
    ) -> Path:
        """Lay a wire (see `tripwire`) and return the file that is there once it has tripped."""
        name = f"{model}__{dag}@{task}@{point}@{when}@{n}.{kind}"
        (self.wires / name).touch()
        return self.wires / f"{name}.tripped"

    @contextmanager
    def held(self, *wires: Path, deadline: float = 300.0) -> Iterator[None]:
        """Wait until all these wires hold a task; let them go on at the end."""
        for wire in wires:
            wait_until(wire.name, wire.exists, deadline)
        try:
            yield
        finally:
            for wire in wires:
                wire.unlink(missing_ok=True)

    # --- what there is to see ---------------------------------------------------------------------

    def runs(self, model: str) -> list[Any]:
        """Return all MLflow runs of a model, trials included."""
        experiment = self.registry.experiment_id(model)
        return list(self.registry.client.search_runs([experiment], max_results=1000))

    def kinds(self, model: str) -> list[str]:
        """Return the kinds of a model's ledger events, in order."""
        return [event.kind for event in self.ledger.events(model)]

    def predict(self, model: str, body: Mapping[str, Any], version: str = "") -> httpx.Response:
        """Ask the live endpoint."""
        where = f"/versions/{version}" if version else ""
        return httpx.post(f"{self.serving}/v2/models/{model}{where}/infer", json=body, timeout=30)

    def serves(self, model: str) -> str | None:
        """Return the version that answers a real request; None when none does."""
        with ServingClient(self.serving) as client:
            example = client.example(model)
            reply = client.infer(model, example.body) if example.ok else example
            return reply.body.get("model_version") if reply.ok else None

    def assert_one_of_everything(self, model: str, run_id: str) -> None:
        """Assert that a model's one training run left one of each thing, complete and closed."""
        runs = self.runs(model)
        assert {run.info.status for run in runs} == {"FINISHED"}
        parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
        assert [r.data.tags["evergreen.run_key"] for r in parents] == [f"{model}__train/{run_id}"]
        trials = sorted(r.info.run_name for r in runs if "mlflow.parentRunId" in r.data.tags)
        assert len(trials) == len(set(trials)) >= 4
        versions = self.registry.versions(model)
        assert [v.version for v in versions] == ["1"]
        assert self.registry.aliases(model) == {"champion": "1"}
        assert versions[0].run_id == parents[0].info.run_id
        kinds = self.kinds(model)
        for kind in ("verdict", "promotion", "applied"):
            assert kinds.count(kind) == 1, kinds
        decisions = [event.key for event in self.ledger.events(model, "decision")]
        assert decisions[0] == f"decision:{model}__train/{run_id}"
        assert len(decisions) == len(set(decisions))
        assert "rollback" not in kinds
        assert self.ledger.verify(model).ok
        self.assert_snapshot_whole(model, versions[0].tags["evergreen.snapshot_id"])
        wait_until(f"{model} serves", lambda: self.serves(model) == "1", 60)

    def assert_snapshot_whole(self, model: str, snapshot_id: str) -> None:
        """Assert that a model's only snapshot is complete, and that no file is there that belongs to none."""
        store = open_store(self.settings.store_uri)
        manifest = read_manifest(store, model, snapshot_id)
        snapshot_paths(store, manifest)
        names = {key.rpartition("/")[2] for key in store.list(f"snapshots/{model}/")}
        assert names == {"manifest.json", *(file.name for file in manifest.files)}
