"""What a play came to: the ledger told in simulated dates, and the live metric window by window.

Owns the reading of both. The truth is the simulator's own, so that the metric is there for every window at once, while
the monitor has to wait for its labels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from include.ledger.chain import Event
from include.scoring.bootstrap import resample
from include.scoring.metrics import statistic
from include.simulator.plan import Plan
from include.simulator.scenarios import KEY, TARGET
from include.spec.schema import Spec
from include.store.files import Store
from include.store.predictions import copy_window

_KINDS = (
    "monitor",
    "request",
    "decision",
    "verdict",
    "approval",
    "promotion",
    "rollback",
    "skip",
    "request_expired",
    "freeze",
    "unfreeze",
)
_RESAMPLES = 200


@dataclass(frozen=True)
class Entry:
    """One line of the timeline.

    Attributes:
        at: When, in simulated time; the true time where the event knows no other.
        kind: The event's kind.
        verdict: Its verdict, or the version moved to; empty where it has neither.
        text: The reason, for people.
    """

    at: datetime
    kind: str
    verdict: str
    text: str


@dataclass(frozen=True)
class Live:
    """How good the live answers of one window were.

    Attributes:
        start: Start of the window.
        end: Its end.
        rows: Answers with a known truth.
        value: The metric; None where it is undefined.
        low: Lower end of its 95 % interval.
        high: Upper end.
        versions: The versions that answered, oldest first.
    """

    start: datetime
    end: datetime
    rows: int
    value: float | None
    low: float
    high: float
    versions: tuple[str, ...]


def timeline(events: Sequence[Event]) -> list[Entry]:
    """Return what was found, asked, decided and done, in simulated time."""
    acted = _act_times(events)
    return [_entry(event, _time_of(event, acted)) for event in events if event.kind in _KINDS]


def _act_times(events: Sequence[Event]) -> dict[str, str]:
    """Return the simulated time of each run, by its key."""
    return {
        str(event.payload["run"]): str(event.payload["as_of"])
        for event in events
        if event.kind == "decision" and event.payload.get("as_of")
    }


def _time_of(event: Event, acted: Mapping[str, str]) -> datetime:
    details = event.payload.get("details") or {}
    said = event.payload.get("as_of") or details.get("as_of") or acted.get(event.actor)
    return datetime.fromisoformat(str(said or event.at))


def _entry(event: Event, at: datetime) -> Entry:
    payload = event.payload
    if "to" in payload:
        verdict = f"version {payload['to']}" if payload["to"] else "none"
    else:
        verdict = str(payload.get("verdict") or payload.get("source") or "")
    text = str(payload.get("reason") or "")
    if event.kind == "decision" and payload.get("wish"):
        text = f"{text} ({payload['wish']})"
    return Entry(at, event.kind, verdict, text)


# --- the live metric ------------------------------------------------------------------------------------


def watched_metric(spec: Spec) -> str:
    """Return the metric the monitor watches; the deciding one where it watches none."""
    return spec.monitor.performance.metric if spec.monitor.performance else spec.primary.metric


def measure(spec: Spec, store: Store, plan: Plan) -> list[Live]:
    """Compute the metric of each window from the prediction log and the simulated truth."""
    with tempfile.TemporaryDirectory(prefix="evergreen-simulator-") as folder:
        path = Path(folder) / "window.parquet"
        found = []
        for start, end in plan.windows:
            copy_window(store, plan.model, start, end, path)
            names = ["_key", "_version", "_score"]
            found.append(_live(spec, plan, (start, end), pq.read_table(path, columns=names)))
        return found


def _live(spec: Spec, plan: Plan, window: tuple[datetime, datetime], logged: Any) -> Live:
    start, end = window
    answered = logged.to_pandas().dropna(subset=["_key", "_score"])
    truth = pd.concat([plan.world.customers(day) for day in _days(start, end)])[[KEY, TARGET]]
    # The log has no order, and resamples depend on it.
    joined = answered.merge(truth, left_on="_key", right_on=KEY).sort_values(KEY, kind="stable")
    versions = tuple(sorted(joined["_version"].unique(), key=lambda v: (len(v), v)))
    y, scores = joined[TARGET].to_numpy(np.int64), joined["_score"].to_numpy(np.float64)
    metric = watched_metric(spec)
    value = statistic(spec.task, metric, y, scores)(np.ones(len(y), dtype=np.int64))
    if not np.isfinite(value):
        return Live(start, end, len(y), None, np.nan, np.nan, versions)
    draws = resample(spec.task, metric, y, [scores], resamples=_RESAMPLES)[:, 0]
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Live(start, end, len(y), float(value), float(low), float(high), versions)


def _days(start: datetime, end: datetime) -> list[Any]:
    return [day.date() for day in pd.date_range(start, end, freq="D", inclusive="left")]
