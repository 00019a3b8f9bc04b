"""Triggers from outside, as `docs/triggering.md` describes them: its scripts against a real stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from include.settings import ROOT
from include.stack.credentials import read_credentials
from include.stack.layout import get_layout
from tests.e2e.stack import Stack, wait_until
from tests.models import DAYS, write_days

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
EXAMPLES = ROOT / "docs/examples"
MODEL, DAG, UPSTREAM = "churn", "churn__train", "example_announce_data"
EVENTS = 100
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
        it.add_model(MODEL, retrain={"schedule": "0 2 1 * *", "on": ["data"]})
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

    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(announce, range(EVENTS - 2)))
    print(f"{EVENTS - 2} events in {time.monotonic() - began:.1f} s")
    assert stack.airflow.wait(UPSTREAM, "storm", timeout=60).state == "success"
    all_events = stack.airflow.request(
        "GET", "/assets/events", "Events", params={"asset_id": asset["id"], "limit": 1}
    )
    assert all_events["total_entries"] == EVENTS

    def settled() -> bool:
        found = runs(stack, "asset_triggered")
        return bool(found) and all(run["state"] == "success" for run in found)

    wait_until("the first run", settled, 200)
    time.sleep(30)
    for run in runs(stack, "asset_triggered"):
        events = stack.airflow.request(
            "GET", f"/dags/{DAG}/dagRuns/{run['dag_run_id']}/upstreamAssetEvents", "Events"
        )
        print(
            run["dag_run_id"],
            run["queued_at"],
            run["start_date"],
            run["end_date"],
            run["state"],
            events["total_entries"],
        )
    print(decisions(stack, "data"))
    print(versions(stack), stack.registry.aliases(MODEL))
    assert versions(stack) == ["2", "1"]


def test_a_backfill_trains_and_registers_but_never_promotes(stack: Stack) -> None:
    write_days(stack.data(MODEL), first=DAYS + 12, days=12)
    before = stack.registry.aliases(MODEL)
    told = script(stack, "backfill.sh", MODEL, "2026-02-01", "2026-03-01")
    print(told.stdout, told.stderr)
    assert told.returncode == 0, told.stdout + told.stderr

    def done() -> bool:
        found = runs(stack, "backfill")
        return len(found) == 2 and all(run["state"] in ("success", "failed") for run in found)

    wait_until("the backfill", done, 200)
    for run in runs(stack, "backfill"):
        print(
            run["dag_run_id"],
            run["state"],
            [(t.name, t.state) for t in stack.airflow.task_instances(DAG, run["dag_run_id"])],
        )
    print(stack.registry.aliases(MODEL), before, versions(stack))
