"""The whole loop under the real scheduler: calm weeks, a changed world, one retrain, a better version.

The simulator plays six weeks in some minutes. It asks the real endpoint, posts labels over HTTP and starts the monitor
over REST as of the end of each simulated week; everything else happens by itself.
"""

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from include.monitor.windows import latest_window
from tests.e2e.stack import Stack
from tests.models import small_spec, write_spec

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]
MODEL = "loop"
WEEK, WEEKS = timedelta(days=7), 6
START = latest_window(datetime.now(UTC), WEEK).end - WEEKS * WEEK
ONSET, FOUND = START + 2 * WEEK, START + 4 * WEEK  # a window, and a week for its labels


def play(stack: Stack) -> dict[str, Any]:
    """Run `./evergreen simulate` and return what it says."""
    arguments = [
        "--scenario",
        "concept_drift",
        "--days",
        str(7 * WEEKS),
        "--start",
        f"{START:%Y-%m-%d}",
    ]
    done = stack.command("simulate", MODEL, *arguments, "--json", timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def played(stack: Stack) -> tuple[Stack, dict[str, Any]]:
    """The stack after the play, and what the play came to."""
    spec = small_spec(
        MODEL,
        stack.data(MODEL),
        ingest={"window": "14d"},
        evaluate={"primary": {"metric": "roc_auc", "promote": "better", "margin": 0.002}},
        monitor={
            "schedule": "0 6 1 1 *",  # the simulator starts it
            "window": "7d",
            "labels": {"delay": "3d"},
            "performance": {"metric": "roc_auc", "max_drop": 0.05},
            "keep": "180d",
        },
        retrain={"on": ["drift", "decay"], "cooldown": "24h"},
    )
    write_spec(stack.models, spec)
    return stack, play(stack)


def told(found: dict[str, Any], kind: str) -> list[tuple[datetime, str, str]]:
    """Return time, verdict and text of the timeline's entries of a kind."""
    return [
        (datetime.fromisoformat(entry["at"]), entry["verdict"], entry["text"])
        for entry in found["timeline"]
        if entry["kind"] == kind
    ]


def test_calm_weeks_bring_no_retrain_and_the_changed_one_exactly_one(
    played: tuple[Stack, dict[str, Any]],
) -> None:
    stack, found = played
    passes = told(found, "monitor")
    assert [at for at, _, _ in passes] == [START + n * WEEK for n in range(1, WEEKS + 1)]
    assert [verdict for _, verdict, _ in passes].count("ALERT") == 1
    alarm = passes[3]
    assert (alarm[0], alarm[1]) == (FOUND, "ALERT")
    assert "roc_auc" in alarm[2]
    decisions = told(found, "decision")
    assert [(at, verdict) for at, verdict, _ in decisions] == [
        (START, "RETRAIN"),
        (FOUND, "RETRAIN"),
    ]
    assert "decay" in decisions[1][2]
    runs = [run["dag_run_id"] for run in stack.airflow.runs(f"{MODEL}__train")]
    assert sorted(run.split("__")[0] for run in runs) == ["retrain", "sim-train"]
    requests = stack.ledger.requests(MODEL, pending=False)
    assert [(r.source, r.run_key) for r in requests] == [
        ("decay", f"{MODEL}__train/{next(r for r in runs if r.startswith('retrain'))}")
    ]


def test_the_better_version_takes_over_and_the_live_metric_recovers(
    played: tuple[Stack, dict[str, Any]],
) -> None:
    stack, found = played
    moves = [(at, verdict) for at, verdict, _ in told(found, "promotion")]
    assert moves == [(START, "version 1"), (FOUND, "version 2")]
    assert stack.registry.aliases(MODEL)["champion"] == "2"
    assert stack.serves(MODEL) == "2"
    windows = found["windows"]
    assert [window["versions"] for window in windows] == [["1"]] * 4 + [["2"]] * 2
    assert all(window["rows"] == 2800 for window in windows)
    calm, changed, after = ([w["value"] for w in windows[n : n + 2]] for n in (0, 2, 4))
    assert min(calm) > 0.78
    assert max(changed) < min(calm) - 0.1
    assert min(after) > max(changed) + 0.08
    last = told(found, "monitor")[-1]
    assert last[1] != "ALERT", "the monitor sees that the new version holds its promise"
    assert stack.ledger.verify(MODEL).ok
    assert {run.info.status for run in stack.runs(MODEL)} == {"FINISHED"}
    seqs = [event.seq for event in stack.ledger.events(MODEL)]
    assert all(b == a + 1 for a, b in pairwise(seqs))


def test_a_play_that_is_over_is_only_told_again(played: tuple[Stack, dict[str, Any]]) -> None:
    stack, found = played
    before = stack.ledger.head(MODEL)
    assert play(stack) == found
    assert stack.ledger.head(MODEL) == before
    picture = Path(found["picture"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 10_000
    other = stack.command("simulate", MODEL, "--scenario", "calm")
    assert other.returncode == 1
    assert "must go on with concept_drift (seed 0, " in other.stderr
