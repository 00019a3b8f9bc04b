"""Every night: when the scheduler would start a run, by Airflow's own timetables, without waiting for a night."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import TimeRestriction
from evergreen.factory.training import training_dag
from hypothesis import example, given, settings
from hypothesis import strategies as st

from include.ledger.arbiter import arbitrate
from include.settings import ROOT, Settings
from include.spec.schema import Retrain, Spec
from include.stack.credentials import Credentials
from include.stack.environment import airflow_environment
from include.stack.layout import get_layout


@dataclass
class Clock:
    """The scheduler's clock, and what the scheduler does with a timetable while it goes on."""

    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def ticks(self, dag: Any, start: str, count: int, down: timedelta = timedelta(0)) -> list[Any]:
        """Return when runs start for a Dag first seen at `start`; after the first, the scheduler is `down`."""
        self.now = datetime.fromisoformat(start).astimezone(UTC)
        limits = TimeRestriction(earliest=None, latest=None, catchup=dag.catchup)
        found: list[Any] = []
        last = None
        for _ in range(count):
            info = dag.timetable.next_dagrun_info(
                last_automated_data_interval=last, restriction=limits
            )
            found.append(info.run_after)
            self.now = info.run_after + (down if len(found) == 1 else timedelta(seconds=1))
            last = info.data_interval
        return found


def nightly(cron: str = "30 2 * * *", timezone: str = "Europe/Berlin", **retrain: Any) -> Any:
    """Return a training Dag as the scheduler has it, read back from the database's form."""
    spec = Spec.model_validate(
        {
            "model": "small",
            "task": "binary",
            "ingest": {"source": {"kind": "file", "path": "data/*.csv"}, "target": "y"},
            "retrain": {"schedule": cron, "timezone": timezone, **retrain},
        }
    )
    return DagSerialization.from_dict(DagSerialization.to_dict(training_dag(spec)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("airflow.timetables.trigger.utcnow", lambda: clock.now)
    return clock


@pytest.mark.parametrize(
    ("timezone", "start", "expected"),
    [
        # 02:30 does not exist on 29 March: the run comes when the clock has jumped over it.
        ("Europe/Berlin", "2026-03-27", ["28 01:30", "29 01:30", "30 00:30", "31 00:30"]),
        # 02:30 comes twice on 25 October: one run, the second time.
        ("Europe/Berlin", "2026-10-23", ["24 00:30", "25 01:30", "26 01:30", "27 01:30"]),
        ("America/New_York", "2026-03-06", ["07 07:30", "08 07:30", "09 06:30", "10 06:30"]),
        ("UTC", "2026-03-27", ["28 02:30", "29 02:30", "30 02:30", "31 02:30"]),
    ],
)
def test_a_night_is_a_night_of_the_specs_time_zone(
    clock: Clock, timezone: str, start: str, expected: list[str]
) -> None:
    found = clock.ticks(nightly(timezone=timezone), f"{start}T12:00+00:00", 4)
    assert [tick.strftime("%d %H:%M") for tick in found] == expected


ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Kolkata"]


@example(zone="Europe/Berlin", hour=3, minute=0, day=80)  # 29 March is 23 hours long
@example(zone="Europe/Berlin", hour=2, minute=30, day=80)
@settings(max_examples=60, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
    day=st.integers(0, 730),
)
def test_every_night_has_one_run_and_the_arbiter_lets_it_through(
    zone: str, hour: int, minute: int, day: int
) -> None:
    """Whatever the zone does with its clocks: the defaults of cool-down and weekly budget skip no night."""
    clock = Clock()
    dag = nightly(f"{minute} {hour} * * *", zone)
    begin = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow.timetables.trigger.utcnow", lambda: clock.now)
        found = clock.ticks(dag, begin.isoformat(), 12)
    nights = [tick.astimezone(ZoneInfo(zone)).date() for tick in found]
    assert nights == [nights[0] + timedelta(days=n) for n in range(12)]
    for number, now in enumerate(found):
        decision = arbitrate(
            trigger="schedule",
            pending=[],
            retrains=found[:number],
            frozen=None,
            retrain=Retrain(),
            now=now,
        )
        assert decision.verdict == "RETRAIN", f"{now}: {decision.reason}"


def test_missed_nights_are_not_caught_up(clock: Clock) -> None:
    """After five days down there is one run for the newest night missed, then the next night's."""
    dag = nightly(timezone="UTC")
    found = clock.ticks(dag, "2026-01-01T12:00+00:00", 3, down=timedelta(days=5, hours=3))
    assert [tick.strftime("%d %H:%M") for tick in found] == ["02 02:30", "07 02:30", "08 02:30"]
    assert dag.catchup is False


@pytest.mark.parametrize("since", ["02:31", "03:00", "12:00"])
def test_a_new_model_waits_for_its_first_night(clock: Clock, since: str) -> None:
    (first,) = clock.ticks(nightly(timezone="UTC"), f"2026-01-01T{since}+00:00", 1)
    assert first == datetime(2026, 1, 2, 2, 30, tzinfo=UTC)


def test_asset_and_night_go_together(clock: Clock) -> None:
    dag = nightly(timezone="UTC", on=["data"])
    found = clock.ticks(dag, "2026-01-01T12:00+00:00", 2)
    assert [tick.strftime("%d %H:%M") for tick in found] == ["02 02:30", "03 02:30"]


@pytest.mark.parametrize(
    ("more", "shown"), [({}, "30 2 * * *"), ({"on": ["data"]}, "Asset or 30 2 * * *")]
)
def test_the_night_can_be_seen_as_the_dags_schedule(more: dict[str, Any], shown: str) -> None:
    timetable = nightly(**more).timetable
    assert timetable.summary == shown
    assert "At 02:30" in timetable.description


def test_a_dag_is_active_when_it_appears(tmp_path: Path) -> None:
    """A spec with a schedule is a wish to have it run: nobody has to find a switch first."""
    name = "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"
    layout = get_layout(tmp_path)
    embedded = airflow_environment(Settings(home=tmp_path), layout, Credentials(), tmp_path)
    compose = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
    services = [s.get("environment", {}) for s in compose["services"].values()]
    assert embedded[name] == "False"
    assert {s[name] for s in services if name in s} == {"False"}
    assert nightly().is_paused_upon_creation is None  # the setting decides
