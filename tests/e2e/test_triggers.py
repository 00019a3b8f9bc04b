"""Triggers from outside, as `docs/triggering.md` describes them: its scripts against a real stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from include.settings import ROOT
from include.stack.credentials import read_credentials
from include.stack.layout import get_layout
from include.store.files import open_store
from include.store.snapshots import read_manifest, snapshot_paths
from tests.e2e.stack import Stack, wait_until
from tests.models import DAYS, write_days

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
EXAMPLES = ROOT / "docs/examples"
MODEL, DAG, UPSTREAM = "churn", "churn__train", "example_announce_data"
EVENTS = 100
CANDIDATE = {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 300}}
_LOCAL = "airflow.dag_processing.bundles.local.LocalDagBundle"


class StackWithExamples(Stack):
    """A stack whose Airflow also runs the upstream Dag of the examples."""

    @property
    def environment(self) -> dict[str, str]:
        folder = self.home / "upstream"
        folder.mkdir(exist_ok=True)
        (folder / "announce_data.py").write_bytes((EXAMPLES / "announce_data.py").read_bytes())
        bundles = [
            {"name": "dags-folder", "classpath": _LOCAL, "kwargs": {}},
            {"name": "upstream", "classpath": _LOCAL, "kwargs": {"path": str(folder)}},
        ]
        ours = {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles)}
        return super().environment | ours


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    it = StackWithExamples(tmp_path_factory.mktemp("triggers"))
    try:
        it.up()
        # A schedule that does not come round today: backfills need one.
        it.add_model(
            MODEL,
            train={"candidates": [CANDIDATE]},
            retrain={"schedule": "0 2 1 * *", "on": ["data"]},
        )
        it.airflow.wait_for_dag(DAG, timeout=60)
        it.airflow.wait_for_dag(UPSTREAM, timeout=60)
        yield it
    finally:
        it.down()


def script(stack: Stack, name: str, *arguments: str, **extra: str) -> subprocess.CompletedProcess:
    """Run a script of the examples as an upstream job would."""
    credentials = read_credentials(get_layout(stack.home))
    environment = {
        "PATH": os.environ["PATH"],
        "AIRFLOW_URL": stack.settings.airflow,
        "AIRFLOW_USER": "service",
        "AIRFLOW_PASSWORD": credentials.service,
    } | extra
    program = [sys.executable] if name.endswith(".py") else ["sh"]
    return subprocess.run(
        [*program, str(EXAMPLES / name), *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def runs(stack: Stack, run_type: str) -> list[dict[str, Any]]:
    """Return the training runs of a type, oldest first."""
    found = [run for run in stack.airflow.runs(DAG, 100) if run["run_type"] == run_type]
    return found[::-1]


def decisions(stack: Stack, trigger: str) -> list[dict[str, Any]]:
    events = stack.ledger.events(MODEL, "decision")
    return [event.payload for event in events if event.payload["trigger"] == trigger]


def versions(stack: Stack) -> list[str]:
    return [version.version for version in stack.registry.versions(MODEL)]


def test_a_run_is_started_once_and_its_result_is_read(stack: Stack) -> None:
    first = script(stack, "start_training.sh", MODEL, "2026-03-01", REASON="first batch")
    assert first.returncode == 0, first.stdout + first.stderr
    (verdict,) = stack.ledger.events(MODEL, "verdict")
    said = f"churn-2026-03-01 success PROMOTE version 1: {verdict.payload['reason']}\n"
    assert (first.stdout, first.stderr) == (said, "")

    again = script(stack, "start_training.sh", MODEL, "2026-03-01")
    assert (again.returncode, again.stdout) == (0, said)
    assert again.stderr.endswith("churn-2026-03-01 was started before\n")
    where = ("--url", stack.settings.airflow, "--user", "service")
    python = script(stack, "start_training.py", MODEL, "2026-03-01", *where)
    assert (python.returncode, python.stdout) == (0, said), python.stderr
    assert [run["dag_run_id"] for run in runs(stack, "manual")] == ["churn-2026-03-01"]
    (decision,) = decisions(stack, "api")
    assert (decision["verdict"], decision["wish"]) == ("RETRAIN", "first batch")

    same = script(stack, "start_training.sh", MODEL, "the-same-again")
    assert same.returncode == 0
    assert same.stdout.startswith("churn-the-same-again success SKIP: no new data: version 1, ")
    assert versions(stack) == ["1"]


@pytest.mark.parametrize(
    ("arguments", "extra", "said"),
    [
        ((MODEL, "refused"), {"REASON": "x" * 501}, "is too long"),
        ((MODEL, "no such/name"), {}, "does not match"),
        (("nobody", "refused"), {}, "nobody__train"),
        ((MODEL, "refused"), {"AIRFLOW_PASSWORD": "guessed"}, "401"),
    ],
)
def test_a_refusal_says_why_and_starts_nothing(
    stack: Stack, arguments: tuple[str, str], extra: dict[str, str], said: str
) -> None:
    before = len(stack.airflow.runs(DAG, 100))
    refused = script(stack, "start_training.sh", *arguments, **extra)
    assert refused.returncode != 0
    assert said in refused.stdout + refused.stderr
    assert len(stack.airflow.runs(DAG, 100)) == before


def test_a_storm_of_announcements_is_one_retrain(stack: Stack) -> None:
    write_days(stack.data(MODEL), first=DAYS, days=12)
    told = script(stack, "announce_data.sh", MODEL, '{"rows": 720}')
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.startswith("event ")
    stack.airflow.trigger(UPSTREAM, {}, "storm")  # an upstream Dag, in the midst of it
    assets = stack.airflow.request("GET", "/assets", "Assets", params={"uri_pattern": MODEL})
    (asset,) = (a for a in assets["assets"] if a["uri"] == f"x-evergreen://data/{MODEL}")

    def announce(number: int) -> None:
        body = {"asset_id": asset["id"], "extra": {"number": number}}
        stack.airflow.request("POST", "/assets/events", "Event", json=body)

    for number in range(EVENTS - 2):
        announce(number)
    assert stack.airflow.wait(UPSTREAM, "storm", timeout=60).state == "success"

    def answered() -> bool:
        found = runs(stack, "asset_triggered")
        return len(found) > 1 and all(run["state"] in ("success", "failed") for run in found)

    # The second run is that of the announcements made during the first: they do not wait for another one.
    wait_until("an answer to all", answered, 240)
    assert {run["state"] for run in runs(stack, "asset_triggered")} == {"success"}
    asked = decisions(stack, "data")
    assert len(asked) == len(runs(stack, "asset_triggered"))
    assert [decision["verdict"] for decision in asked] == ["RETRAIN"] + ["SKIP"] * (len(asked) - 1)
    assert all(d["reason"].startswith("cooling down until ") for d in asked[1:])
    assert versions(stack) == ["2", "1"]
    assert stack.registry.aliases(MODEL)["champion"] == "2"
    events = stack.airflow.request(
        "GET", "/assets/events", "Events", params={"asset_id": asset["id"], "limit": 100}
    )
    assert events["total_entries"] == EVENTS
    assert UPSTREAM in {event["source_dag_id"] for event in events["asset_events"]}


def test_a_backfill_trains_and_registers_but_never_promotes(stack: Stack) -> None:
    write_days(stack.data(MODEL), first=DAYS + 12, days=12)
    before = stack.registry.aliases(MODEL)
    told = script(stack, "backfill.sh", MODEL, "2026-02-15", "2026-03-01")
    assert told.returncode == 0, told.stdout + told.stderr
    (run,) = wait_until("its run", lambda: runs(stack, "backfill"))
    result = stack.wait(MODEL, run["dag_run_id"], 240)
    assert result.state == "success"
    states = {task.name: task.state for task in result.tasks}
    assert (states["register"], states["deploy.promote"]) == ("success", "skipped")
    log = stack.log(MODEL, run["dag_run_id"], "deploy.smoke")
    assert "a backfill never moves the champion" in [line.get("reason") for line in log]
    assert versions(stack) == ["3", "2", "1"]
    assert stack.registry.aliases(MODEL) == before
    assert stack.serves(MODEL) == before["champion"] == "2"


def test_the_clean_up_by_hand_looks_and_then_acts(stack: Stack) -> None:
    store = open_store(stack.settings.store_uri)
    before = list(store.list("snapshots/"))
    store.write_bytes(f"snapshots/{MODEL}/{'0' * 32}/rows.parquet", b"left by a killed run")
    left = stack.home / "store" / "snapshots" / MODEL / ("0" * 32) / "rows.parquet"
    os.utime(left, (1, 1))
    looked = stack.command("trigger", "evergreen__reap")
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert left.exists()
    acted = stack.command("trigger", "evergreen__reap", "-p", "dry_run=false")
    assert acted.returncode == 0, acted.stdout + acted.stderr
    assert list(store.list("snapshots/")) == before
    for version in stack.registry.versions(MODEL):
        snapshot_id = version.tags["evergreen.snapshot_id"]
        snapshot_paths(store, read_manifest(store, MODEL, snapshot_id))
    (event,) = stack.ledger.events(MODEL, "pruned")
    assert event.payload["reason"] == "nothing needs them: 1 snapshot, 20 B"
