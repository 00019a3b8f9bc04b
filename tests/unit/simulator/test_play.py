"""A play goes through its days in order, and goes on where it was killed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.errors import DataError, SpecError
from include.settings import ROOT
from include.simulator.plan import Plan, make_plan, midnight
from include.simulator.play import Asked, arrived, begin, play
from include.simulator.progress import Progress
from include.simulator.scenarios import KEY, World
from include.spec.loader import load_spec
from include.spec.schema import Spec

TODAY = date(2026, 11, 21)  # a Saturday; windows end on Thursdays
DAY = timedelta(days=1)
SPEC = load_spec(ROOT / "include" / "models" / "churn.yaml")


class Killed(BaseException):
    """As if by SIGKILL: nothing catches it."""


@dataclass
class Memory:
    """A stage that remembers what was done; it can be killed before or after any step."""

    kill_at: int = -1
    steps: int = 0
    log: list[str] = field(default_factory=list)
    delivered: dict[date, int] = field(default_factory=dict)
    asked: dict[date, list[str]] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    runs: dict[str, datetime] = field(default_factory=dict)
    settled: dict[datetime, int] = field(default_factory=dict)
    refuses: bool = False

    def step(self, what: str) -> None:
        self.steps += 1
        if self.steps == self.kill_at:
            raise Killed
        self.log.append(what)

    def deliver(self, day: date, batch: pd.DataFrame) -> None:
        self.delivered[day] = len(batch)
        self.step(f"deliver {day}")

    def ask(self, day: date, rows: pd.DataFrame) -> Asked:
        self.asked[day] = list(rows[KEY])
        self.step(f"ask {day}")
        return Asked(len(rows), len(rows) if self.refuses else 0)

    def tell(self, labels: pd.DataFrame) -> None:
        self.told |= dict(zip(labels[KEY], labels["churned"].astype(str), strict=True))
        self.step("tell")

    def settle(self, start: datetime, end: datetime, rows: int) -> None:
        self.settled[end] = rows
        self.step("settle")

    def train(self, run_id: str, as_of: datetime) -> None:
        self.runs[run_id] = as_of
        self.step(f"train {run_id}")

    def monitor(self, run_id: str, as_of: datetime) -> None:
        self.runs[run_id] = as_of
        self.step(f"monitor {run_id}")


@pytest.fixture(scope="module")
def spec() -> Spec:
    return SPEC


def small(spec: Spec, scenario: str = "calm", days: int = 23) -> Plan:
    return make_plan(spec, scenario, today=TODAY, days=days, rows=5)


def test_a_plan_ends_yesterday_and_changes_at_the_beginning_of_a_window(spec: Spec) -> None:
    plan = make_plan(spec, "concept_drift", today=TODAY, days=60)
    assert (plan.start, plan.end) == (date(2026, 9, 22), TODAY)
    assert [str(end.date()) for _, end in plan.windows][:2] == ["2026-10-01", "2026-10-08"]
    assert plan.windows[-1][1] == midnight(date(2026, 11, 19))
    assert plan.world.onset == date(2026, 10, 15)
    assert plan.world.onset.isoweekday() == 4
    assert plan.past[-1] == plan.start - 4 * DAY, "the newest batch whose labels are known"
    assert len(plan.past) == 14


@given(days=st.integers(14, 120), back=st.integers(0, 30))
@settings(max_examples=80, deadline=None)
def test_every_plan_is_whole(days: int, back: int) -> None:
    start = TODAY - (days + back) * DAY
    plan = make_plan(SPEC, "spike", today=TODAY, days=days, start=start)
    assert plan.end <= TODAY
    edges = [edge for window in plan.windows for edge in window]
    assert edges == sorted(edges)
    assert all(midnight(plan.start) <= edge <= midnight(plan.end) for edge in edges)
    assert days // 7 - 1 <= len(plan.windows) <= days // 7
    assert plan.start < plan.world.onset < plan.end
    assert midnight(plan.world.onset) in {start for start, _ in plan.windows} | {edges[-1]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"days": 13}, "--days: must cover two windows of 7 days, got 13"),
        ({"days": 20, "start": TODAY - 19 * DAY}, "--start: must let the play end by 2026-11-20"),
        ({"days": 20, "scenario": "storm"}, "must be one of calm"),
    ],
)
def test_refuses_a_play_that_cannot_be(
    spec: Spec, arguments: dict[str, object], message: str
) -> None:
    given = {"scenario": "calm", "today": TODAY, **arguments}
    with pytest.raises(SpecError, match=message):
        make_plan(spec, **given)  # type: ignore[arg-type]


def test_days_come_in_order_and_labels_late(spec: Spec, tmp_path: Path) -> None:
    plan, stage = small(spec), Memory()
    play(plan, Progress.begin(tmp_path / "p.json", plan), stage)
    days = [plan.start + n * DAY for n in range(23)]
    assert list(stage.asked) == days
    assert list(stage.delivered) == [*plan.past, *(day - 3 * DAY for day in days)] == arrived(plan)
    known = {key for day in days[:-3] for key in stage.asked[day]}
    assert set(stage.told) == known
    ends = [end for _, end in plan.windows]
    assert stage.runs == {
        "sim-train__calm__2026-10-29": midnight(plan.start),
        **{f"sim__calm__{end:%Y-%m-%d}": end for end in ends},
    }
    first = stage.log.index(f"monitor sim__calm__{ends[0]:%Y-%m-%d}")
    asked = [line for line in stage.log[:first] if line.startswith("ask ")]
    assert asked[-1] == f"ask {ends[0].date() - DAY}"
    assert not any(line.startswith("ask ") for line in stage.log[: len(plan.past) + 1])
    assert set(stage.settled.values()) == {35}


def test_rows_the_endpoint_refused_are_not_waited_for(spec: Spec, tmp_path: Path) -> None:
    plan, stage = small(spec), Memory(refuses=True)
    progress = Progress.begin(tmp_path / "p.json", plan)
    play(plan, progress, stage)
    assert set(stage.settled.values()) == {0}
    assert progress.days[plan.start.isoformat()] == (5, 5)


@cache
def unbroken() -> Memory:
    plan, stage = small(SPEC, days=16), Memory()
    with TemporaryDirectory() as folder:
        play(plan, Progress.begin(Path(folder) / "p.json", plan), stage)
    return stage


@given(kill_at=st.integers(1, 75))
@settings(max_examples=15, deadline=None)
def test_killed_anywhere_it_goes_on_to_the_same_end(
    kill_at: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("play")
    plan, broken = small(SPEC, days=16), Memory(kill_at)
    whole = unbroken()
    path = folder / "broken.json"
    try:
        play(plan, Progress.begin(path, plan), broken)
    except Killed:
        again = Progress.read(path)
        assert again is not None
        play(again.plan(plan), again, broken)
    for name in ("delivered", "asked", "told", "runs", "settled"):
        assert getattr(broken, name) == getattr(whole, name), name
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []
    assert len(broken.log) <= len(whole.log) + 3 + len(plan.past), "finished days are not replayed"


def test_a_play_grows_with_the_days(spec: Spec, tmp_path: Path) -> None:
    plan, stage, path = small(spec), Memory(), tmp_path / "p.json"
    play(plan, Progress.begin(path, plan), stage)
    tomorrow = make_plan(spec, "calm", today=TODAY + 6 * DAY, days=23, rows=7)
    progress = Progress.read(path)
    assert progress is not None
    longer = progress.plan(tomorrow)
    assert (longer.start, longer.end, longer.world) == (plan.start, TODAY + 6 * DAY, plan.world)
    before = len(stage.log)
    play(longer, progress, stage)
    assert stage.log[before] == f"ask {TODAY}"
    assert "sim__calm__2026-11-26" in stage.runs
    assert len(stage.asked) == 29


def test_a_shorter_plan_takes_nothing_back(spec: Spec, tmp_path: Path) -> None:
    plan = small(spec)
    progress = Progress.begin(tmp_path / "p.json", plan)
    play(plan, progress, Memory())
    shorter = make_plan(spec, "calm", today=TODAY, days=20, start=plan.start, rows=5)
    assert progress.plan(shorter).days == 23
    stage = Memory()
    play(progress.plan(shorter), progress, stage)
    assert stage.log == []


@pytest.mark.parametrize("changes", [{"scenario": "spike"}, {"seed": 1}])
def test_a_model_has_one_play(spec: Spec, tmp_path: Path, changes: dict[str, object]) -> None:
    progress = Progress.begin(tmp_path / "p.json", small(spec))
    other = make_plan(spec, **{"scenario": "calm", "today": TODAY, "days": 30, **changes})  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"must go on with calm \(seed 0, \d+ rows a day, from"):
        progress.plan(other)


def test_begin_trains_once(spec: Spec, tmp_path: Path) -> None:
    plan, stage = small(spec), Memory()
    progress = Progress.begin(tmp_path / "p.json", plan)
    begin(plan, progress, stage)
    begin(plan, progress, stage)
    assert len(stage.runs) == 1


@pytest.mark.parametrize("content", ["", "{}", '{"days": 3}', "[1]"])
def test_a_damaged_memory_is_said(tmp_path: Path, content: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(DataError, match="must say how far the play went"):
        Progress.read(path)
    assert Progress.read(tmp_path / "none.json") is None


def test_the_worlds_delay_and_history_are_the_specs(spec: Spec) -> None:
    bare = spec.model_copy(
        update={
            "monitor": spec.monitor.model_copy(update={"labels": None, "performance": None}),
            "ingest": spec.ingest.model_copy(update={"window": None}),
        }
    )
    plan = make_plan(bare, "calm", today=TODAY, days=20)
    assert plan.world == World("calm", plan.world.onset)
    assert len(plan.past) == 28
