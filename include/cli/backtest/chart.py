"""The picture of `evergreen drift --backtest`: the past, and what each threshold would have made of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from include.evaluate.canvas import (
    CHALLENGER,
    CHAMPION,
    INK,
    LIMIT,
    MUTED,
    dress,
    figure_of,
    name_axes,
    save,
)
from include.monitor.backtest import Row, level, outcomes
from include.monitor.decide import Outcome
from include.monitor.replay import Replayed
from include.spec.metrics import HIGHER_IS_BETTER
from include.spec.schema import Spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KINDS = {
    "no alarm": (CHALLENGER, "o"),
    "violates": (CHAMPION, "o"),
    "asks for a retrain": (LIMIT, "o"),
    "broken data": (INK, "x"),
}
_FLOOR = 0.003  # a level below is drawn here: on a logarithmic scale there is no 0


def draw_backtest(
    spec: Spec,
    replayed: Sequence[Replayed],
    rows: Sequence[Row],
    began: datetime | None,
    path: Path,
) -> Path:
    """Draw windows over time, and alarms over thresholds.

    Args:
        spec: The model's.
        replayed: At least one window.
        rows: What `table` returned for them.
        began: When the drift began; None where that is not known.
        path: The PNG file; its folder is made when missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    watched = any(one.performance and one.performance.interval for one in replayed)
    figure = figure_of(10.5, 8.6 if watched else 6.2)
    grid = figure.add_gridspec(3 if watched else 2, 2 if watched else 1)
    over_time = [figure.add_subplot(grid[n, :]) for n in range(1 + watched)]
    by_threshold = [figure.add_subplot(grid[-1, n]) for n in range(1 + watched)]
    for axes in (*over_time, *by_threshold):
        dress(axes)
    decided = outcomes(spec, replayed)
    _levels(over_time[0], spec, replayed, decided)
    if watched:
        _live(over_time[1], spec, replayed, decided)
    for axes in over_time:
        _time_axis(axes, replayed, began)
    _alarms(by_threshold[0], "drift.alert", [row for row in rows if row.kind == "drift"])
    if watched:
        mine = [row for row in rows if row.kind == "decay"]
        _alarms(by_threshold[1], "performance.max_drop", mine)
    return save(figure, path)


def _levels(
    axes: Axes, spec: Spec, replayed: Sequence[Replayed], decided: Sequence[Outcome]
) -> None:
    name_axes(axes, f"{spec.model}: drift of each window", "", "drift level (bottom: none proven)")
    axes.set_yscale("log")
    ends = [_middle(one) for one in replayed]
    heights = [max(_FLOOR, level(spec.monitor.drift, one.drift)) for one in replayed]
    axes.plot(ends, heights, color=MUTED, linewidth=1, zorder=1)
    kinds = [_kind(outcome) for outcome in decided]
    for name, (colour, marker) in _KINDS.items():
        here = [n for n, kind in enumerate(kinds) if kind == name]
        if here:
            at, high = [ends[n] for n in here], [heights[n] for n in here]
            axes.scatter(at, high, color=colour, marker=marker, s=26, label=name, zorder=2)
    alert = spec.monitor.drift.alert
    axes.axhline(alert, color=LIMIT, linewidth=1.2, linestyle="--", label=f"alert {alert:g}")


def _kind(outcome: Outcome) -> str:
    if outcome.broken:
        return "broken data"
    if any(wish.source == "drift" for wish in outcome.wishes):
        return "asks for a retrain"
    return "violates" if outcome.drifts else "no alarm"


@dataclass(frozen=True)
class _Live:
    """One point of the live metric: where, how much, and how far its interval reaches below and above."""

    at: float
    value: float
    holdout: float
    below: float
    above: float
    decays: bool


def _live(axes: Axes, spec: Spec, replayed: Sequence[Replayed], decided: Sequence[Outcome]) -> None:
    """Draw the live metric with its interval, the holdout's value and the limit below or above it."""
    watched = spec.monitor.performance
    if watched is None:
        return
    up = HIGHER_IS_BETTER[watched.metric]
    points = list(_points(replayed, decided, up))
    title = f"{watched.metric} of each window, once its labels are in"
    name_axes(axes, title, "", watched.metric)
    for colour, name, decays in ((CHALLENGER, "live", False), (LIMIT, "decayed", True)):
        mine = [point for point in points if point.decays == decays]
        if mine:
            axes.errorbar(
                [point.at for point in mine],
                [point.value for point in mine],
                yerr=[[point.below for point in mine], [point.above for point in mine]],
                color=colour,
                marker="o",
                markersize=4,
                linestyle="none",
                capsize=2,
                label=name,
            )
    ends, holdouts = [point.at for point in points], [point.holdout for point in points]
    limits = [value - watched.max_drop if up else value + watched.max_drop for value in holdouts]
    axes.step(ends, holdouts, where="mid", color=MUTED, linewidth=1.2, label="champion's holdout")
    axes.step(ends, limits, where="mid", color=LIMIT, linewidth=1.2, linestyle="--", label="limit")


def _points(replayed: Sequence[Replayed], decided: Sequence[Outcome], up: bool) -> Iterator[_Live]:
    for one, outcome in zip(replayed, decided, strict=True):
        found = one.performance
        if found and found.interval and found.live is not None and found.holdout is not None:
            middle = found.interval.improvement
            worse, better = middle - found.interval.low, found.interval.high - middle
            below, above = (worse, better) if up else (better, worse)
            at = _middle(one)
            yield _Live(at, found.live, found.holdout, below, above, outcome.decays)


def _middle(one: Replayed) -> float:
    return (_x(one.window.start) + _x(one.window.end)) / 2


def _x(moment: datetime) -> float:
    from matplotlib.dates import date2num

    return float(date2num(moment))


def _time_axis(axes: Axes, replayed: Sequence[Replayed], began: datetime | None) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    if began is not None:
        axes.axvline(_x(began), color=INK, linewidth=1.2, linestyle=":", label="drift began")
    axes.set_xlim(_x(replayed[0].window.start), _x(replayed[-1].window.end))
    ticks = AutoDateLocator()
    axes.xaxis.set_major_locator(ticks)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(ticks))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5, frameon=False)


def _alarms(axes: Axes, setting: str, rows: Sequence[Row]) -> None:
    """Draw alarms by threshold: false ones before the drift began and the delay after it, where that is known."""
    places = range(len(rows))
    split = any(row.false_per_100 is not None for row in rows)
    title = (
        "False alarms; above: windows until found" if split else "Windows that ask for a retrain"
    )
    unit = "false alarms per 100 windows" if split else "windows"
    name_axes(axes, title, f"monitor.{setting}, the spec's in red", unit)
    heights = [(row.false_per_100 or 0.0) if split else float(row.alarms) for row in rows]
    axes.bar(places, heights, color=[LIMIT if row.own else CHALLENGER for row in rows], width=0.6)
    axes.set_xticks(list(places), [f"{row.threshold:.3g}" for row in rows])
    for tick, row in zip(axes.get_xticklabels(), rows, strict=True):
        tick.set_color(LIMIT if row.own else MUTED)
    axes.set_ylim(0, 1.3 * max([1.0, *heights]))
    for place, row, height in zip(places, rows, heights, strict=True):
        text = f"{row.delay or '–'}" if split else f"{height:.3g}"
        axes.annotate(
            text, (place, height), ha="center", va="bottom", fontsize=8.5, color=INK,
            xytext=(0, 2), textcoords="offset points",
        )  # fmt: skip
