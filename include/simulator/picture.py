"""The picture of a play: the live metric over time, and what was done about it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

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
from include.simulator.plan import Plan, midnight
from include.simulator.scenarios import SCENARIOS
from include.simulator.timeline import Entry, Live, watched_metric
from include.spec.schema import Spec

_CALM = "calm", "seasonal"
_MARGIN = 1.5  # days


def draw(
    spec: Spec, plan: Plan, lives: Sequence[Live], entries: Sequence[Entry], out: Path
) -> Path:
    """Draw the live metric per window with onset, alarms, retrains and promotions marked.

    Args:
        spec: The model.
        plan: The play.
        lives: Its windows.
        entries: Its timeline.
        out: The PNG file; its folder is made when missing.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    figure = figure_of(10.5, 4.8)
    axes = figure.subplots()
    dress(axes)
    title = f"{spec.model}, live, scenario {plan.world.scenario}, seed {plan.world.seed}"
    name_axes(axes, title, "", f"{watched_metric(spec)} of each window")
    _versions(axes, lives)
    known = [live for live in lives if live.value is not None]
    if known:
        values = np.array([live.value for live in known], dtype=np.float64)
        spans = np.array([[v - e.low, e.high - v] for v, e in zip(values, known, strict=True)]).T
        starts, ends = ([_x(at) for at in edge] for edge in zip(*map(_edges, known), strict=True))
        middle = [(start + end) / 2 for start, end in zip(starts, ends, strict=True)]
        axes.hlines(values, starts, ends, color=INK, linewidth=2.2)
        axes.errorbar(
            middle, values, yerr=spans, color=INK, fmt="o", markersize=5, capsize=3, linewidth=1.4
        )
    _marks(axes, plan, entries)
    axes.set_xlim(_x(midnight(plan.start)) - _MARGIN, _x(midnight(plan.end)) + _MARGIN)
    ticks = AutoDateLocator()
    axes.xaxis.set_major_locator(ticks)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(ticks))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, -0.22), ncols=4, fontsize=8.5, frameon=False
        )
    return save(figure, out)


def _edges(live: Live) -> tuple[datetime, datetime]:
    return live.start, live.end


def _x(moment: datetime) -> float:
    return float(date2num(moment))


def _versions(axes: Axes, lives: Sequence[Live]) -> None:
    """Shade every other version's time, and write its number above."""
    spans: list[tuple[str, datetime, datetime]] = []
    for live in lives:
        version = live.versions[-1] if live.versions else ""
        if spans and spans[-1][0] == version:
            spans[-1] = (version, spans[-1][1], live.end)
        else:
            spans.append((version, live.start, live.end))
    for number, (version, start, end) in enumerate(spans):
        if number % 2:
            axes.axvspan(_x(start), _x(end), color=CHALLENGER, alpha=0.07, linewidth=0)
        label = f"version {version}" if version else "no answers"
        axes.annotate(
            label,
            (_x(start), 1),
            xycoords=("data", "axes fraction"),
            xytext=(5, -12),
            textcoords="offset points",
            color=MUTED,
            fontsize=8.5,
        )


def _marks(axes: Axes, plan: Plan, entries: Sequence[Entry]) -> None:
    if plan.world.scenario not in _CALM:
        onset = _x(midnight(plan.world.onset))
        lasts = SCENARIOS[plan.world.scenario].lasts
        axes.axvline(onset, color=LIMIT, linestyle="--", linewidth=1.4, label="the world changes")
        if lasts is not None:
            axes.axvspan(onset, onset + lasts, color=LIMIT, alpha=0.07, linewidth=0)
    after = midnight(plan.start)
    alarms = [e.at for e in entries if e.kind == "monitor" and e.verdict == "ALERT"]
    retrains = [
        e.at for e in entries if e.kind == "decision" and e.verdict == "RETRAIN" and e.at > after
    ]
    moves = [e.at for e in entries if e.kind == "promotion" and e.at > after]
    for number, (times, marker, colour, name) in enumerate(
        (
            (alarms, "v", LIMIT, "the monitor's alarm"),
            (retrains, "D", CHAMPION, "retrain"),
            (moves, "^", CHALLENGER, "promotion"),
        )
    ):
        if times:
            axes.plot(
                [_x(at) for at in times],
                [0.05 + 0.055 * number] * len(times),
                marker,
                color=colour,
                markersize=8,
                label=name,
                transform=axes.get_xaxis_transform(),
                clip_on=False,
            )
            if name == "promotion":
                for at in times:
                    axes.axvline(_x(at), color=colour, linewidth=1.2, alpha=0.7)
