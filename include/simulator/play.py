"""A play: simulated days, one after the other, under a clock that lies in the past.

Owns the order of things within a day, what is remembered between days, and that a play which was killed goes on
where it stopped: every step may be done twice. What the steps do is somebody else's: `Stage`.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, Self

import pandas as pd

from include.errors import DataError, SpecError
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


# --- what is remembered ---------------------------------------------------------------------------------


@dataclass
class Progress:
    """What has been played, kept in a file.

    Attributes:
        path: The file.
        scenario: What is played; with `seed`, `start`, `rows` and `onset` it makes the play.
        seed: Number of the world.
        start: First day, ISO.
        rows: Customers on a usual day.
        onset: First different day, ISO.
        trained: Whether the first training is over.
        days: Rows asked for and refused on each day that is over, by ISO date.
        judged: Ends of the windows the monitor has looked at, ISO.
    """

    path: Path
    scenario: str
    seed: int
    start: str
    rows: int
    onset: str
    trained: bool = False
    days: dict[str, tuple[int, int]] = field(default_factory=dict)
    judged: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read what a play left; None where there was none.

        Raises:
            DataError: The file is damaged.
        """
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            days = {
                day: (int(sent), int(refused)) for day, (sent, refused) in found["days"].items()
            }
            return cls(path, **{**found, "days": days})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                str(path),
                f"must say how far the play went, got {type(error).__name__}: {error}",
                "Delete it; the play then begins anew.",
            ) from error

    @classmethod
    def begin(cls, path: Path, plan: Plan) -> Self:
        """Remember a new play."""
        world = plan.world
        first, onset = plan.start.isoformat(), world.onset.isoformat()
        made = cls(path, world.scenario, world.seed, first, world.rows, onset)
        made.save()
        return made

    def save(self) -> None:
        """Write it in one step."""
        content = {k: v for k, v in asdict(self).items() if k != "path"}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
        draft.write_text(json.dumps(content, indent=1), encoding="utf-8")
        draft.replace(self.path)

    def plan(self, plan: Plan) -> Plan:
        """Return how this play goes on: its own start and onset, and the end that `plan` has.

        Raises:
            SpecError: `plan` is of another play.
        """
        mine, other = (self.scenario, self.seed), (plan.world.scenario, plan.world.seed)
        if mine != other:
            raise SpecError(
                f"simulate {plan.model}",
                f"must go on with {mine[0]} (seed {mine[1]}) that began on {self.start}, "
                f"got {other[0]} (seed {other[1]})",
                "What was predicted cannot be unpredicted: play it on a copy of the spec with another "
                "`model` and another folder of data.",
            )
        start = date.fromisoformat(self.start)
        world = World(
            self.scenario,
            date.fromisoformat(self.onset),
            self.seed,
            self.rows,
            plan.world.delay,
        )
        days = max((plan.end - start).days, len(self.days))
        return Plan(plan.model, world, start, days, plan.window, plan.history)

    def sent(self, start: datetime, end: datetime) -> int:
        """Return how many rows were asked for and answered in `start <= day < end`."""
        within = (
            (sent, refused)
            for day, (sent, refused) in self.days.items()
            if start <= midnight(date.fromisoformat(day)) < end
        )
        return sum(sent - refused for sent, refused in within)


# --- playing --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What the live endpoint made of some rows."""

    rows: int
    refused: int


class Stage(Protocol):
    """Where a play takes place. Every method may be called again with the same arguments."""

    def deliver(self, day: date, batch: pd.DataFrame) -> None:
        """Put the batch about `day` where the model's source is."""

    def ask(self, day: date, rows: pd.DataFrame) -> Asked:
        """Send live requests."""

    def tell(self, labels: pd.DataFrame) -> None:
        """Post labels: key, time, target."""

    def settle(self, start: datetime, end: datetime, rows: int) -> None:
        """Wait until the prediction log holds that many rows of a time."""

    def train(self, run_id: str, as_of: datetime) -> None:
        """Train as of a moment, and wait for the end."""

    def monitor(self, run_id: str, as_of: datetime) -> None:
        """Let the monitor look as of a moment; wait for it, and for the training it asks for."""


def play(
    plan: Plan,
    progress: Progress,
    stage: Stage,
    said: Callable[[date, str], None] = lambda _day, _what: None,
) -> None:
    """Play what is left of a plan.

    Args:
        plan: The whole play.
        progress: What has been played of it; kept up to date.
        stage: Where it takes place.
        said: Called with the day and what is being done.
    """
    begin(plan, progress, stage, said)
    starts = {end: start for start, end in plan.windows}
    for number in range(plan.days):
        day = plan.start + number * _DAY
        if day.isoformat() not in progress.days:
            said(day, "requests")
            progress.days[day.isoformat()] = _play_day(plan.world, day, stage, plan.start)
            progress.save()
        evening = midnight(day + _DAY)
        if evening in starts and evening.isoformat() not in progress.judged:
            said(day, "monitor")
            stage.settle(starts[evening], evening, progress.sent(starts[evening], evening))
            stage.monitor(plan.run_id(evening), evening)
            progress.judged.append(evening.isoformat())
            progress.save()
    said(plan.end, "done")


def _play_day(world: World, day: date, stage: Stage, start: date) -> tuple[int, int]:
    """Play a day without its end; return the rows asked for and refused."""
    asked = stage.ask(day, world.requests(day))
    for known in world.arrivals(day):
        stage.deliver(known, world.batch(known))
        if known >= start:
            stage.tell(world.labels(known))
    return asked.rows, asked.refused


def begin(
    plan: Plan,
    progress: Progress,
    stage: Stage,
    said: Callable[[date, str], None] = lambda _day, _what: None,
) -> None:
    """Deliver the batches of the time before, and train for the first time; nothing where that was done."""
    if progress.trained:
        return
    for day in plan.past:
        said(plan.start, "history")
        stage.deliver(day, plan.world.batch(day))
    said(plan.start, "training")
    moment = midnight(plan.start)
    stage.train(plan.run_id(moment, "sim-train"), moment)
    progress.trained = True
    progress.save()


def arrived(plan: Plan) -> list[date]:
    """Return the days whose batches have arrived by the end of the play."""
    days = plan.past
    for number in range(plan.days):
        days += plan.world.arrivals(plan.start + number * _DAY)
    return days
