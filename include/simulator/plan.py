"""The plan of a play: which days of which world, and where the monitor's windows end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from include.errors import SpecError
from include.monitor.windows import latest_window
from include.simulator.scenarios import DEFAULT_ROWS, World
from include.spec.schema import Spec

_DAY = timedelta(days=1)
_DEFAULT_DELAY, _DEFAULT_HISTORY = timedelta(days=3), timedelta(days=28)


@dataclass(frozen=True)
class Plan:
    """What is played, and when.

    Attributes:
        model: The model.
        world: The world and its scenario.
        start: First day of live requests; the first training is as of its beginning.
        days: Number of days.
        window: Length of the monitor's windows.
        history: Time covered by the batches that are there at the start.
    """

    model: str
    world: World
    start: date
    days: int
    window: timedelta
    history: timedelta

    @property
    def end(self) -> date:
        """The day after the last."""
        return self.start + self.days * _DAY

    @property
    def past(self) -> list[date]:
        """The days before the start whose batches are there at the start."""
        last = self.start - self.world.delay
        count = -(-self.history // _DAY)
        return [last - n * _DAY for n in range(count, 0, -1)]

    @property
    def windows(self) -> list[tuple[datetime, datetime]]:
        """Start and end of each whole window of the play, in order."""
        found = []
        window = latest_window(midnight(self.end), self.window)
        while window.start >= midnight(self.start):
            found.append((window.start, window.end))
            window = latest_window(window.start, self.window)
        return found[::-1]

    def run_id(self, moment: datetime, kind: str = "sim") -> str:
        """Return the id of the run that is started at a simulated moment, the same every time."""
        return f"{kind}__{self.world.scenario}__{moment:%Y-%m-%d}"


def make_plan(
    spec: Spec,
    scenario: str,
    *,
    today: date,
    days: int,
    start: date | None = None,
    seed: int = 0,
    rows: int = DEFAULT_ROWS,
) -> Plan:
    """Plan a play that fits a model: its windows, its labels' delay, its training window.

    Things change at the beginning of the first window after a third of the play.

    Args:
        spec: The model; its data must be the simulated customers'.
        scenario: A name of `SCENARIOS`.
        today: No day of the play lies after yesterday.
        days: Number of days, at least two windows.
        start: First day; None: the play ends yesterday.
        seed: Number of the world.
        rows: Customers on a usual day.

    Raises:
        SpecError: The scenario is unknown, the days are too few, or the play would end in the future.
    """
    window = spec.monitor.window
    first = start if start is not None else today - days * _DAY
    if days * _DAY < 2 * window:
        raise SpecError(
            "--days", f"must cover two windows of {window.days} days, got {days}", "Play longer."
        )
    if first + days * _DAY > today:
        raise SpecError(
            "--start",
            f"must let the play end by {today - _DAY}, got {days} days from {first}",
            "Begin earlier, or play fewer days.",
        )
    third = midnight(first) + days * _DAY / 3
    onset = latest_window(third + window - timedelta(microseconds=1), window).end
    delay = spec.monitor.labels.delay if spec.monitor.labels else _DEFAULT_DELAY
    world = World(scenario, onset.date(), seed, rows, delay)
    history = spec.ingest.window or _DEFAULT_HISTORY
    return Plan(spec.model, world, first, days, window, history)


def midnight(day: date) -> datetime:
    """Return the beginning of a day in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
