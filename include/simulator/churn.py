"""The customers of a small telephone company: daily batches drawn from a world whose truth is known.

Owns the columns, their distributions and the true probability of churn. A batch depends on nothing but
`(seed, day, rows, drift)`, so any day can be made on its own, on any machine. Missing values are drawn
before the target and are part of its true function: the best possible score of any model is known exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd

REGIONS = ("north", "south", "east", "west", "islands")
PLANS = ("basic", "plus", "premium", "family")
CONTRACTS = ("monthly", "one year", "two years")
PAYMENTS = ("card", "bank transfer", "electronic check", "invoice")

_PLAN_PRICE = {"basic": 25.0, "plus": 45.0, "premium": 75.0, "family": 95.0}
_CONTRACT_EFFECT = {"monthly": 0.95, "one year": -0.45, "two years": -1.25}
_PAYMENT_EFFECT = {"card": -0.2, "bank transfer": -0.25, "electronic check": 0.5, "invoice": 0.1}
_REGION_EFFECT = {"north": 0.0, "south": 0.15, "east": -0.1, "west": -0.15, "islands": 0.4}
_INTERCEPT = -2.1


@dataclass(frozen=True)
class Drift:
    """How a day's world differs from the usual one; the defaults change nothing.

    Args:
        charges: Factor on monthly charges; 1.2 is a price rise of 20 % (the inputs drift).
        calls: Factor on the rate of support calls (the inputs drift).
        concept: 0 to 1, how far the effect of the contract turns into its opposite (the truth drifts).
    """

    charges: float = 1.0
    calls: float = 1.0
    concept: float = 0.0


NO_DRIFT = Drift()


def daily_batch(
    day: date, *, rows: int = 200, seed: int = 0, drift: Drift = NO_DRIFT
) -> pd.DataFrame:
    """Draw the customers observed on one day.

    Args:
        day: Day in UTC; every `observed_at` lies within it, in rising order.
        rows: Number of customers, at least 1.
        seed: Number of the world; another seed gives other customers under the same truth.
        drift: How this day differs from the usual world.

    Returns:
        One row per customer: `customer_id` (unique over all days), `observed_at` (UTC), `email`, four
        categorical and seven numeric columns (`usage_gb` and `satisfaction` with missing values), a
        boolean one and the target `churned` (0 or 1).
    """
    rng = np.random.default_rng([seed, day.toordinal()])
    frame = _people(rng, day, rows, seed)
    _add_habits(rng, frame, drift)
    _add_missing(rng, frame)
    probability = true_probability(frame, drift)
    frame["churned"] = (rng.random(rows) < probability).astype("int64")
    return frame


def true_probability(frame: pd.DataFrame, drift: Drift = NO_DRIFT) -> np.ndarray:
    """Compute the exact P(churned = 1 | the row) of the simulated world.

    Args:
        frame: Rows as `daily_batch` returns them, any index, shape (n, columns).
        drift: The drift the rows were drawn with; only its `concept` matters.

    Returns:
        float64 array of shape (n,). Scoring with it gives the best score any model can reach.
    """
    tenure = frame["tenure"].to_numpy("float64")
    charges = frame["monthly_charges"].to_numpy("float64")
    calls = frame["support_calls"].to_numpy("float64")
    late = frame["late_payments"].to_numpy("float64")
    usage = frame["usage_gb"].to_numpy("float64")
    satisfaction = frame["satisfaction"].to_numpy("float64")
    monthly = (frame["contract"] == "monthly").to_numpy()

    logit = _INTERCEPT + _effect(frame["contract"], _CONTRACT_EFFECT) * (1 - 2 * drift.concept)
    logit += _effect(frame["payment_method"], _PAYMENT_EFFECT)
    logit += _effect(frame["region"], _REGION_EFFECT)
    logit += -0.025 * np.minimum(tenure, 48) + 0.016 * (charges - 55)
    logit += 0.35 * np.minimum(calls, 6) + 0.45 * late
    logit += np.where(np.isnan(satisfaction), 0.6, -0.28 * (satisfaction - 6.5))
    # People who hardly use it and people who outgrow it leave; an unknown usage counts as a usual one.
    logit += np.where(np.isnan(usage), 0.1, 0.8 * np.abs(np.log1p(usage) - 3.2) - 0.5)
    # Interactions a linear model cannot see.
    logit += np.where(monthly & (calls >= 3), 1.3, 0.0)
    logit += np.where((tenure < 12) & (charges > 70), 1.4, 0.0)
    logit += np.where((frame["plan"] == "family").to_numpy() & (tenure > 24), -1.4, 0.0)
    probability: np.ndarray = 1 / (1 + np.exp(-logit))
    return probability


def _effect(column: pd.Series, effects: dict[str, float]) -> np.ndarray:
    return column.map(effects).to_numpy("float64")


def _people(rng: np.random.Generator, day: date, rows: int, seed: int) -> pd.DataFrame:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    seconds = np.sort(rng.integers(0, 86_400, size=rows))
    ids = [f"C{seed}-{day:%Y%m%d}-{number:05d}" for number in range(rows)]
    return pd.DataFrame(
        {
            "customer_id": ids,
            "observed_at": pd.to_datetime(
                [midnight + timedelta(seconds=int(s)) for s in seconds], utc=True
            ).as_unit("us"),
            "email": [f"{name.lower()}@example.com" for name in ids],
            "region": rng.choice(REGIONS, size=rows, p=(0.3, 0.25, 0.2, 0.17, 0.08)),
            "plan": rng.choice(PLANS, size=rows, p=(0.35, 0.3, 0.2, 0.15)),
            "contract": rng.choice(CONTRACTS, size=rows, p=(0.55, 0.25, 0.2)),
            "payment_method": rng.choice(PAYMENTS, size=rows, p=(0.35, 0.25, 0.3, 0.1)),
            "paperless": rng.random(rows) < 0.6,
        }
    )


def _add_habits(rng: np.random.Generator, frame: pd.DataFrame, drift: Drift) -> None:
    rows = len(frame)
    # Contracts bind: customers on long ones have been here longer.
    loyal = _effect(frame["contract"], {"monthly": 14.0, "one year": 26.0, "two years": 40.0})
    tenure = np.minimum(rng.gamma(1.6, loyal / 1.6), 120).astype("int64")
    price = _effect(frame["plan"], _PLAN_PRICE) * drift.charges
    frame["tenure"] = tenure
    frame["monthly_charges"] = np.round(price * rng.normal(1.0, 0.12, size=rows).clip(0.6, 1.5), 2)
    frame["usage_gb"] = np.round(rng.lognormal(2.9, 0.9, size=rows) * np.sqrt(price / 50), 2)
    frame["support_calls"] = rng.poisson(
        (0.9 + 0.6 * (tenure < 6)) * drift.calls, size=rows
    ).astype("int64")
    frame["late_payments"] = rng.binomial(4, 0.12, size=rows).astype("int64")
    frame["satisfaction"] = np.clip(
        np.round(rng.normal(7.2 - 0.5 * frame["support_calls"].to_numpy(), 1.6)), 1, 10
    )


def _add_missing(rng: np.random.Generator, frame: pd.DataFrame) -> None:
    """Blank values: the meter fails at random, but who is unhappy answers the survey less often."""
    rows = len(frame)
    frame.loc[rng.random(rows) < 0.04, "usage_gb"] = np.nan
    silent = 0.05 + 0.05 * np.minimum(frame["support_calls"].to_numpy(), 5)
    frame.loc[rng.random(rows) < silent, "satisfaction"] = np.nan
