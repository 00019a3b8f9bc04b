"""The tasks of `deploy` under live traffic: real MLflow, a real serving process, real evidence; no scheduler."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from airflow.sdk.exceptions import DownstreamTasksSkipped, TaskDeferred
from evergreen.operators.deploy import PromoteOperator, SmokeOperator
from evergreen.operators.deploy_step import StepOperator

from include.deploy.client import ServingClient
from include.ledger.ledger import Ledger
from include.registry.gateway import Registry
from include.registry.package import Package
from include.registry.rollouts import TAG_ROLLOUT, Standing, latest
from include.registry.trust import dump_model
from include.settings import ROOT, Settings
from include.spec.schema import Spec
from include.store.features import model_frame
from include.store.files import open_store
from tests import faulty
from tests.people import People
from tests.servers import free_port, run_process
from tests.unit.serving.registry import CHURN, EXAMPLE, FEATURES, TYPES, fit, rows, wait_for

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]
RULES = {
    "hold": "20s",
    "patience": "4m",
    "min_rows": 30,
    "max_latency_ratio": 5.0,  # the machine of the tests is busy with other things
    "timeout": "1m",
}
SHARE = 0.3
MODEL = "rolled"  # MLflow is shared with the tests of the shipped models


def people_of(values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return columns as JSON has them."""

    def plain(value: Any) -> Any:
        return None if value is None or (isinstance(value, float) and np.isnan(value)) else value

    return {name: [plain(v) for v in np.asarray(c).tolist()] for name, c in values.items()}


@dataclass
class World:
    """A model whose version 1 serves."""

    settings: Settings
    registry: Registry
    ledger: Ledger
    folder: Path

    def register(self, key: str, estimator: type | None = None) -> str:
        pipeline = fit(CHURN)
        if estimator is not None:
            bad = estimator()
            bad.__dict__.update(vars(pipeline.named_steps["estimator"]))
            pipeline.set_params(estimator=bad)
        path = self.folder / f"{key}.skops"
        package = Package(
            name=MODEL,
            model_path=path,
            sha256=dump_model(pipeline, path),
            features=FEATURES,
            types=TYPES,
            classes=CHURN["classes"],
            task="binary",
            target="churned",
            example=model_frame(EXAMPLE, FEATURES),
            meta={"snapshot_id": key},
        )
        self.run_id = self.registry.ensure_run("rollouts", key, key, {})
        made = self.registry.register(package, run_id=self.run_id, key=key, tags={})
        return made.version

    def roll(self, version: str, mode: str) -> tuple[list[str], Standing]:
        """Run the tasks as Airflow would; return how each ended."""
        self.registry.set_alias(MODEL, "challenger", version, expected=None)
        step = {"number": 0, "share": 1.0 if mode == "shadow" else SHARE}
        tasks: list[tuple[type, dict[str, Any]]] = [
            (SmokeOperator, {}),
            (StepOperator, step),
            (PromoteOperator, {}),
        ]
        ends = []
        for kind, options in tasks:
            ends.append(self._task(kind, version, mode, options))
            if ends[-1] == "stopped":
                break
        standing = latest(self.ledger, MODEL)
        assert standing is not None
        return ends, standing

    def _task(self, kind: type, version: str, mode: str, options: dict[str, Any]) -> str:
        run = SimpleNamespace(
            dag_id=f"{MODEL}__train", run_id=f"r{version}", run_type=SimpleNamespace(value="manual")
        )
        context = {
            "dag_run": run,
            "params": {},
            "ti": SimpleNamespace(
                xcom_push=lambda **_: None,
                try_number=1,
                get_task_states=lambda dag_id, run_ids: {each: {} for each in run_ids},
            ),
            "task": SimpleNamespace(get_direct_relatives=lambda **_: []),
        }
        event: Any = None
        while True:
            task = self._operator(kind, version, mode, options)
            try:
                task.execute(context) if event is None else task.resume(context, event)
            except TaskDeferred as parked:
                event = parked.trigger.until
                left = datetime.fromisoformat(event) - datetime.now(UTC)
                time.sleep(max(0.0, left.total_seconds()))
            except DownstreamTasksSkipped:
                return "stopped"
            else:
                return "done"

    def _operator(self, kind: type, version: str, mode: str, options: dict[str, Any]) -> Any:
        champion = self.registry.aliases(MODEL)["champion"]
        made = kind(
            task_id="task",
            model=MODEL,
            data={"run_id": self.run_id, "champion": {"version": champion}, "fingerprint": version},
            verdict={"verdict": "PROMOTE", "reason": "it is better"},
            version={"version": version, "verdict": "PROMOTE"},
            **options,
        )
        steps = {"steps": [SHARE * 100]} if mode == "canary" else {}
        spec = Spec.model_validate(
            {
                "model": MODEL,
                "task": "binary",
                "ingest": {"source": {"kind": "file", "path": "x.csv"}, "target": "churned"},
                "deploy": RULES | {"rollout": mode} | steps,
            }
        )
        store = open_store(self.settings.store_uri)
        made.__dict__["bench"] = SimpleNamespace(
            spec=spec,
            ledger=self.ledger,
            store=store,
            registry=self.registry,
            settings=self.settings,
        )
        made.link_run = lambda *_: None
        return made


@pytest.fixture(scope="module")
def world(mlflow_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("rollouts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVERGREEN_CODE_PREFIXES", "tests.faulty")
        settings = Settings(home=folder / "home", mlflow_url=mlflow_url, serving_port=free_port())
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "EVERGREEN_HOME": str(settings.home),
            "EVERGREEN_MLFLOW_URL": mlflow_url,
            "EVERGREEN_SERVING_PORT": str(settings.serving_port),
        }
        settings.home.mkdir()
        it = World(settings, Registry(mlflow_url), Ledger(settings.ledger_dsn), folder)
        it.registry.set_alias(MODEL, "champion", it.register("good"), expected=None)
        command = [sys.executable, "-m", "include.serving"]
        with (
            run_process(command, folder / "serving.log", environment),
            ServingClient(settings.serving) as client,
        ):
            wait_for(lambda: _serves(client), 90)
            yield it


def _serves(client: ServingClient) -> bool:
    try:
        return client.example(MODEL).ok
    except Exception:  # noqa: BLE001  not there yet
        return False


@pytest.fixture
def asking(world: World) -> Iterator[People]:
    it = People(world.settings.serving, MODEL, people_of(rows(60)), far="age")
    yield it
    it.stop()


def ended_at(world: World) -> float:
    ends = [e for e in world.ledger.events(MODEL, "rollout") if e.payload["action"] == "end"]
    return datetime.fromisoformat(ends[-1].at).timestamp()


@pytest.mark.parametrize(
    ("estimator", "reason", "mode"),
    [
        (faulty.Failing, "failed on", "canary"),
        (faulty.Collapsed, "differ by PSI", "canary"),
        (faulty.Slow, "p50|p95", "canary"),
        (faulty.Collapsed, "differ by PSI", "shadow"),
    ],
)
def test_a_bad_challenger_goes_home_by_itself(
    world: World, asking: People, estimator: type, reason: str, mode: str
) -> None:
    version = world.register(f"{estimator.__name__}-{mode}", estimator)
    ends, standing = world.roll(version, mode)
    time.sleep(5)  # of traffic after its end
    asking.stop()
    assert ends == ["done", "stopped"]
    assert (standing.outcome, standing.rollout.mode) == ("STOPPED", mode)
    assert re.search(reason, standing.reason), standing.reason
    assert world.registry.aliases(MODEL) == {"champion": "1"}
    assert TAG_ROLLOUT not in world.registry.model_tags(MODEL)
    assert {status for _, status, _ in asking.answers} == {200}, "nobody got an error"
    during = asking.between(standing.began.timestamp(), ended_at(world))
    theirs = sum(other == version for _, _, other in during)
    share = 0.0 if mode == "shadow" else SHARE
    slack = 3 * (share * (1 - share) / len(during)) ** 0.5
    assert theirs / len(during) <= share + slack
    print(  # shown with -rP: what people got of it
        f"\n{estimator.__name__}, {mode}: home after {ended_at(world) - standing.began.timestamp():.1f} s, "
        f"{theirs} of {len(during)} answers were its own: {standing.reason}"
    )
    later = {other for when, _, other in asking.answers if when > ended_at(world) + 4}
    assert later == {"1"}


def test_a_good_one_takes_over(world: World, asking: People) -> None:
    version = world.register("as good")
    ends, standing = world.roll(version, "canary")
    assert (ends, standing.outcome) == (["done", "done", "done"], "PROMOTED"), standing.reason
    asking.stop()
    assert world.registry.aliases(MODEL) == {"champion": version, "previous_champion": "1"}
    assert TAG_ROLLOUT not in world.registry.model_tags(MODEL)
    assert {status for _, status, _ in asking.answers} == {200}
    (judged,) = world.ledger.events(MODEL, "judgement")[-1:]
    assert judged.payload["verdict"] == "GO"
    assert judged.payload["numbers"]["challenger"]["rows"] >= RULES["min_rows"]
    print(f"\n{judged.payload['reason']}")
    assert asking.answers[-1][2] == version
