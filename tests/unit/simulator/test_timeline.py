"""The ledger in simulated dates, the live metric from log and truth, and their picture."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from include.ledger.ledger import Ledger
from include.settings import ROOT
from include.simulator.picture import draw
from include.simulator.plan import Plan, make_plan, midnight
from include.simulator.scenarios import KEY, TIME
from include.simulator.timeline import Entry, measure, timeline, watched_metric
from include.spec.loader import load_spec
from include.store.files import open_store
from include.store.predictions import prediction_schema, write_part

TODAY, TRUE = date(2026, 11, 19), datetime(2026, 11, 21, 9, tzinfo=UTC)
SPEC = load_spec(ROOT / "include" / "models" / "churn.yaml")
RUN = "churn__train/retrain__1__w"
AS_OF = "2026-10-15T00:00:00+00:00"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(SPEC, "concept_drift", today=TODAY, days=28, rows=60)


def test_events_are_told_in_simulated_time(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    wrote = [
        ("monitor", {"verdict": "ALERT", "reason": "worse", "as_of": AS_OF}, "churn__monitor/m"),
        (
            "decision",
            {"verdict": "RETRAIN", "reason": "decay", "wish": "please", "run": RUN, "as_of": AS_OF},
            "service",
        ),
        ("verdict", {"verdict": "PROMOTE", "reason": "better"}, RUN),
        ("promotion", {"from": "1", "to": "2", "reason": "better"}, RUN),
        ("applied", {"head": 3}, RUN),
        ("freeze", {"reason": "holidays"}, "ann"),
    ]
    for number, (kind, payload, actor) in enumerate(wrote):
        ledger.record("churn", kind, f"{kind}/{number}", payload, actor, TRUE)
    entries = timeline(ledger.events("churn"))
    simulated = datetime.fromisoformat(AS_OF)
    assert entries == [
        Entry(simulated, "monitor", "ALERT", "worse"),
        Entry(simulated, "decision", "RETRAIN", "decay (please)"),
        Entry(simulated, "verdict", "PROMOTE", "better"),
        Entry(simulated, "promotion", "version 2", "better"),
        Entry(TRUE, "freeze", "", "holidays"),
    ]


def log(store_path: Path, plan: Plan, truthful: dict[date, bool]) -> None:
    """Log answers of days: right ones, or wrong ones."""
    store, schema = open_store(str(store_path)), prediction_schema((), ())
    for day, right in truthful.items():
        people = plan.world.customers(day)
        score = np.where((people["churned"] == 1) == right, 0.9, 0.1)
        n = len(people)
        columns = {
            "_request_id": [f"{day}-{i}" for i in range(n)],
            "_row": [0] * n,
            "_key": list(people[KEY]),
            "_time": list(people[TIME]),
            "_logged_at": list(people[TIME]),
            "_version": ["1" if right else "10"] * n,
            "_score": score,
        }
        rows = [columns.get(f.name, [None] * n) for f in schema]
        arrays = [pa.array(values, f.type) for values, f in zip(rows, schema, strict=True)]
        write_part(store, "churn", pa.Table.from_arrays(arrays, schema=schema))


def test_the_live_metric_is_that_of_log_and_truth(plan: Plan, tmp_path: Path) -> None:
    first, second = (start.date() for start, _ in plan.windows[:2])
    log(tmp_path, plan, {first: True, second: False})
    lives = measure(SPEC, open_store(str(tmp_path)), plan)
    assert [(live.start, live.end) for live in lives] == plan.windows
    assert [live.value for live in lives] == [1.0, 0.0, None, None]
    assert [live.versions for live in lives] == [("1",), ("10",), (), ()]
    assert [live.rows for live in lives] == [60, 60, 0, 0]
    assert (lives[0].low, lives[0].high) == (1.0, 1.0)
    assert np.isnan(lives[2].low)


def test_the_picture_shows_every_mark(plan: Plan, tmp_path: Path) -> None:
    days = {start.date(): n < 2 for n, (start, _) in enumerate(plan.windows)}
    log(tmp_path / "store", plan, days)
    lives = measure(SPEC, open_store(str(tmp_path / "store")), plan)
    at = plan.windows[2][1]
    bare = draw(SPEC, plan, lives, [], tmp_path / "bare.png")
    entries = [
        Entry(at, "monitor", "ALERT", "worse"),
        Entry(at, "decision", "RETRAIN", ""),
        Entry(at, "promotion", "version 2", ""),
    ]
    full = draw(SPEC, plan, lives, entries, tmp_path / "new" / "full.png")
    pictures = [Image.open(path).convert("RGB") for path in (bare, full)]
    assert all(picture.width > 900 for picture in pictures)
    colours = [{c for _, c in picture.getcolors(100_000) or []} for picture in pictures]
    assert len(colours[1] - colours[0]) > 5, "marks in colours of their own"
    assert full.stat().st_size < 100_000


def test_a_play_without_answers_has_a_picture_too(plan: Plan, tmp_path: Path) -> None:
    lives = measure(SPEC, open_store(str(tmp_path)), plan)
    path = draw(SPEC, plan, lives, [], tmp_path / "empty.png")
    assert Image.open(path).width > 900
    assert watched_metric(SPEC) == "roc_auc"
    assert plan.windows[-1][1] == midnight(TODAY)
