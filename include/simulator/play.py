"""A play: simulated days, one after the other, under a clock that lies in the past.

Owns the order of things within a day, and that every step may be done twice. What the steps do is somebody else's:
`Stage`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol

import pandas as pd

from include.simulator.plan import Plan, midnight
from include.simulator.progress import Progress
from include.simulator.scenarios import World

_DAY = timedelta(days=1)


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
