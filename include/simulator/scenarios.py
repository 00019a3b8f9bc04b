"""Scenarios: what happens to the simulated world, and when.

Owns what upstream sends, what live requests look like and which labels arrive on which day: pure functions of the
seed and the day. The day on which things change is known, so that a monitor can be judged by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from include.errors import SpecError
from include.simulator.churn import NO_DRIFT, Drift, daily_batch

KEY, TIME, TARGET, PERSONAL = "customer_id", "observed_at", "churned", "email"
DEFAULT_ROWS = 400
_BROKEN_SHARE = 0.6
_BROKEN_COLUMNS = ("usage_gb", "satisfaction")
_CAMPAIGN, _CAMPAIGN_DAYS = 20.0, 2
_WAVE_DAYS = 56.0


@dataclass(frozen=True)
class Scenario:
    """What happens, in words and in days.

    Attributes:
        name: Its name.
        summary: One line for people.
        lasts: Days from the onset until all is as before; None: it stays.
        drifts: Whether the world really changes, so that a retrain is right.
    """

    name: str
    summary: str
    lasts: int | None = None
    drifts: bool = False


SCENARIOS: dict[str, Scenario] = {
    each.name: each
    for each in (
        Scenario("calm", "nothing happens"),
        Scenario(
            "covariate_shift",
            "a price rise of 30 % and twice the support calls; who leaves and why stays",
            drifts=True,
        ),
        Scenario(
            "concept_drift",
            "the inputs stay; long contracts turn from a reason to stay into one to leave",
            drifts=True,
        ),
        Scenario("seasonal", "weekly rhythm and a slow wave in inputs and volume, all year"),
        Scenario(
            "schema_break",
            "a feature is missing, renamed, retyped or recoded for two weeks",
            lasts=14,
        ),
        Scenario("null_burst", "two features lose most of their values for two weeks", lasts=14),
        Scenario("label_outage", "no labels for three weeks, then all of them at once", lasts=21),
        Scenario("spike", "twenty times the customers on two days", lasts=_CAMPAIGN_DAYS),
    )
}


@dataclass(frozen=True)
class World:
    """One simulated world under one scenario.

    Attributes:
        scenario: A name of `SCENARIOS`.
        onset: First day on which things are different.
        seed: Number of the world.
        rows: Customers on a usual day.
        delay: Time after which it is known who left.
    """

    scenario: str
    onset: date
    seed: int = 0
    rows: int = DEFAULT_ROWS
    delay: timedelta = timedelta(days=3)

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise SpecError(
                "scenario",
                f"must be one of {', '.join(SCENARIOS)}, got {self.scenario!r}",
                "Choose one.",
            )
        if self.rows < 1 or self.delay < timedelta(days=1) or self.delay % timedelta(days=1):
            raise SpecError(
                "simulator",
                f"needs at least 1 customer a day and labels after whole days, got {self.rows} "
                f"and {self.delay}",
                "Ask for more, and set monitor.labels.delay in days.",
            )

    def is_different(self, day: date) -> bool:
        """Tell whether `day` lies between the onset and its end."""
        lasts = SCENARIOS[self.scenario].lasts
        gone = (day - self.onset).days
        return gone >= 0 and (lasts is None or gone < lasts)

    def customers(self, day: date) -> pd.DataFrame:
        """Return the customers of one day as they really are, who left among them (`daily_batch`'s columns)."""
        return daily_batch(day, rows=self._volume(day), seed=self.seed, drift=self._drift(day))

    def requests(self, day: date) -> pd.DataFrame:
        """Return what is asked of the live endpoint on `day`: key, time and features, in rising time."""
        return self._as_sent(self.customers(day), day).drop(columns=[TARGET, PERSONAL])

    def batch(self, day: date) -> pd.DataFrame:
        """Return what upstream delivers about the customers of `day`, once their labels are known."""
        return self._as_sent(self.customers(day), day)

    def labels(self, day: date) -> pd.DataFrame:
        """Return the labels of the customers of `day`: key, the time at which it was known, target."""
        known = self.customers(day)[[KEY, TIME, TARGET]]
        known[TIME] += self.delay - timedelta(minutes=1)
        return known

    def arrivals(self, day: date) -> list[date]:
        """Return the days whose labels, and batches, arrive on `day`."""
        usual = day - self.delay
        if self.scenario != "label_outage":
            return [usual]
        if self.is_different(day):
            return []
        end = self.onset + timedelta(days=SCENARIOS[self.scenario].lasts or 0)
        missed = (end - self.onset).days if day == end else 0
        return [usual - timedelta(days=n) for n in range(missed, -1, -1)]

    def _volume(self, day: date) -> int:
        factor = 1.0
        if self.scenario == "seasonal":
            weekend = day.isoweekday() >= 6
            factor = (0.7 if weekend else 1.12) * (1 + 0.25 * self._wave(day))
        elif self.scenario == "spike" and self.is_different(day):
            factor = _CAMPAIGN
        return max(1, round(self.rows * factor))

    def _drift(self, day: date) -> Drift:
        if self.scenario == "seasonal":
            weekend = day.isoweekday() >= 6
            wave = self._wave(day)
            return Drift(charges=1 + 0.04 * wave, calls=(0.85 if weekend else 1.06) + 0.15 * wave)
        if not self.is_different(day):
            return NO_DRIFT
        if self.scenario == "covariate_shift":
            return Drift(charges=1.3, calls=2.0)
        return Drift(concept=1.0) if self.scenario == "concept_drift" else NO_DRIFT

    def _wave(self, day: date) -> float:
        """Return where the year stands, -1 to 1; each seed begins elsewhere."""
        start = np.random.default_rng([self.seed, 56]).random()
        return math.sin(2 * math.pi * (day.toordinal() / _WAVE_DAYS + start))

    def _as_sent(self, frame: pd.DataFrame, day: date) -> pd.DataFrame:
        """Return the customers as the systems in between pass them on: broken where the scenario breaks them."""
        if not self.is_different(day):
            return frame
        if self.scenario == "null_burst":
            rng = np.random.default_rng([self.seed, day.toordinal(), 1])
            for name in _BROKEN_COLUMNS:
                frame.loc[rng.random(len(frame)) < _BROKEN_SHARE, name] = np.nan
        elif self.scenario == "schema_break":
            frame = _BREAKS[self.seed % len(_BREAKS)](frame)
        return frame


def _without(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="usage_gb")


def _renamed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename(columns={"monthly_charges": "charges"})


def _retyped(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(tenure=frame["tenure"].map("{} months".format))


def _recoded(frame: pd.DataFrame) -> pd.DataFrame:
    # The endpoint cannot refuse this one: text stays text.
    return frame.assign(contract=frame["contract"].str.upper().str.replace(" ", "_"))


_BREAKS: tuple[Callable[[pd.DataFrame], pd.DataFrame], ...] = (
    _without,
    _renamed,
    _retyped,
    _recoded,
)
