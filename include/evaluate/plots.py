"""The pictures of a verdict, challenger and champion on the same axes.

Owns which pictures a task gets and what each shows; `include.evaluate.canvas` has the look they share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from include.evaluate.canvas import (
    CHALLENGER,
    CHAMPION,
    INK,
    LIMIT,
    MUTED,
    canvas,
    dress,
    ends_of,
    figure_of,
    name_axes,
    sample,
    save,
    short,
    spread,
)
from include.scoring.metrics import Codes, Floats, class_count, labels
from include.spec.metrics import Task
from include.spec.schema import Primary

_BINS = 10
_MOST_CLASSES = 12


@dataclass(frozen=True)
class Drawing:
    """What there is to draw.

    Attributes:
        task: Kind of prediction.
        primary: The deciding metric and its margin.
        y: True codes or values, shape (n,).
        classes: Classes by code.
        challenger: Its predictions, as in `include.scoring.metrics`.
        champion: The champion's; None without one.
        improvements: Resampled improvements in the primary metric, over the champion or else over the
            trivial baseline; None where there are none.
    """

    task: Task
    primary: Primary
    y: NDArray[Any]
    classes: list[Any]
    challenger: Floats
    champion: Floats | None
    improvements: Floats | None

    @property
    def models(self) -> list[tuple[str, str, Floats]]:
        """Name, colour and predictions of each model, the one to be drawn last at the end."""
        both = [("champion", CHAMPION, self.champion), ("challenger", CHALLENGER, self.challenger)]
        return [(n, c, p) for n, c, p in both if p is not None and np.isfinite(p).all()]


def draw(drawing: Drawing, folder: Path) -> tuple[Path, ...]:
    """Draw every picture of the task that can be drawn.

    Args:
        drawing: What there is.
        folder: Where the PNG files go, each under 100 kB; pictures of an earlier attempt are replaced.

    Returns:
        The files; none where there are no rows or the challenger's predictions are not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    if not len(drawing.y) or not np.isfinite(drawing.challenger).all():
        return ()
    return tuple(save(figure, folder / f"{name}.png") for name, figure in _figures(drawing))


def _figures(drawing: Drawing) -> Iterator[tuple[str, Figure]]:
    if drawing.task == "regression":
        yield "predicted", _predicted(drawing)
        yield "residuals", _residuals(drawing)
    else:
        if drawing.task == "binary" and 0 < drawing.y.sum() < len(drawing.y):
            yield "curves", _curves(drawing)
        yield "calibration", _calibration(drawing)
        yield "confusion", _confusion(drawing)
    if drawing.improvements is not None and np.isfinite(drawing.improvements).any():
        yield "difference", _difference(drawing, drawing.improvements)


# --- classification -------------------------------------------------------------------------------------


def _curves(drawing: Drawing) -> Figure:
    figure, (roc, pr) = canvas(9.2, 4.4, 2)
    for name, colour, predicted in drawing.models:
        found, wrong = _thresholds(drawing.y, predicted)
        recall, fall_out = found / found[-1], wrong / wrong[-1]
        precision = found / np.maximum(found + wrong, 1)
        keep = spread(len(recall))
        area = np.trapezoid(recall, fall_out)
        roc.plot(fall_out[keep], recall[keep], color=colour, label=f"{name}  {area:.3f}")
        average = float((np.diff(recall) * precision[1:]).sum())
        keep = keep[found[keep] > 0]
        pr.step(
            recall[keep], precision[keep], color=colour, where="pre", label=f"{name}  {average:.3f}"
        )
    roc.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
    share = float(np.mean(drawing.y))
    pr.axhline(share, color=MUTED, linewidth=1, linestyle=":")
    name_axes(roc, "ROC curve", "false positive rate", "true positive rate")
    name_axes(pr, "Precision and recall", "recall", "precision")
    for axes, where in ((roc, "lower right"), (pr, "upper right" if share < 0.5 else "lower left")):
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        title = "area" if axes is roc else "average precision"
        axes.legend(loc=where, title=title, fontsize=9, title_fontsize=9)
    return figure


def _thresholds(y: Codes, predicted: Floats) -> tuple[Floats, Floats]:
    """Count right and wrong alarms at each distinct threshold, falling, from none to all."""
    order = np.argsort(-predicted, kind="stable")
    last = np.flatnonzero(np.append(np.diff(predicted[order]) != 0, True))
    found = np.cumsum(y[order] == 1)[last]
    return np.append(0, found), np.append(0, last + 1 - found)


def _calibration(drawing: Drawing) -> Figure:
    """Draw how often predictions come true against how sure they were; below, how many there are."""
    figure = figure_of(5.2, 5.2)
    top, below = figure.subplots(2, 1, height_ratios=(3.2, 1), sharex=True)
    edges = np.linspace(0, 1, _BINS + 1)
    width = 0.8 / _BINS / len(drawing.models)
    for place, (name, colour, predicted) in enumerate(drawing.models):
        sure, right = _confidence(drawing, predicted)
        bins = np.clip((sure * _BINS).astype(int), 0, _BINS - 1)
        count = np.bincount(bins, minlength=_BINS)
        seen = count > 0
        mean = np.bincount(bins, sure, _BINS)[seen] / count[seen]
        true = np.bincount(bins, right, _BINS)[seen] / count[seen]
        top.plot(mean, true, color=colour, marker="o", markersize=4.5, label=name)
        left = edges[:-1] + 0.1 / _BINS + place * width
        below.bar(left, count, width=width, align="edge", color=colour)
    top.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
    top.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    top.legend(loc="upper left")
    what = (
        "probability of the event"
        if drawing.task == "binary"
        else "probability of the chosen class"
    )
    happened = "share of events" if drawing.task == "binary" else "share chosen rightly"
    name_axes(top, "Calibration", "", happened)
    name_axes(below, "", f"predicted {what}", "rows")
    dress(top)
    dress(below)
    return figure


def _confidence(drawing: Drawing, predicted: Floats) -> tuple[Floats, Floats]:
    if drawing.task == "binary":
        return predicted, (drawing.y == 1).astype(float)
    return predicted.max(axis=1), (labels(drawing.task, predicted) == drawing.y).astype(float)


def _confusion(drawing: Drawing) -> Figure:
    """Draw rows by truth and label, shaded by their share of the truth; rare classes share one cell."""
    models = drawing.models[::-1]  # read from left to right: the challenger first
    size = class_count(drawing.task, drawing.challenger)
    often = np.argsort(-np.bincount(drawing.y, minlength=size), kind="stable")
    shown = np.sort(often[:_MOST_CLASSES]) if size > _MOST_CLASSES else np.arange(size)
    place = np.full(size, len(shown))
    place[shown] = np.arange(len(shown))
    ticks = [short(drawing.classes[code]) for code in shown]
    ticks += ["others"] if len(shown) < size else []
    cells = len(ticks)
    side = max(3.4, 0.55 * cells + 1.6)
    figure, panels = canvas(side * len(models) + 0.4, side + 0.4, len(models))
    for axes, (name, colour, predicted) in zip(panels, models, strict=True):
        said = labels(drawing.task, predicted)
        table = np.zeros((cells, cells), dtype=int)
        np.add.at(table, (place[drawing.y], place[said]), 1)
        _shade(axes, table, colour)
        name_axes(axes, name, "predicted", "true")
        axes.set_xticks(range(cells), ticks, rotation=0 if cells < 6 else 60)
        axes.set_yticks(range(cells), ticks)
        axes.grid(visible=False)
    return figure


def _shade(axes: Axes, table: NDArray[np.int_], colour: str) -> None:
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    ink = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    shades = 1 - share[..., None] * (1 - ink)
    bright = shades @ np.array([0.299, 0.587, 0.114])
    axes.imshow(shades, aspect="equal")
    small = 10 if len(table) < 6 else 6.5
    for (row, column), rows in np.ndenumerate(table):
        text = f"{rows:,}\n{share[row, column]:.0%}" if len(table) < 9 else f"{rows:,}"
        axes.text(
            column, row, text, ha="center", va="center", fontsize=small,
            color="white" if bright[row, column] < 0.55 else INK,
        )  # fmt: skip
    axes.spines[:].set_visible(False)


# --- regression -----------------------------------------------------------------------------------------


def _predicted(drawing: Drawing) -> Figure:
    models = drawing.models[::-1]
    figure, panels = canvas(4.6 * len(models), 4.6, len(models))
    rows = sample(len(drawing.y))
    ends = ends_of(drawing.y, *(p for _, _, p in models))
    for axes, (name, colour, predicted) in zip(panels, models, strict=True):
        _dots(axes, drawing.y[rows], predicted[rows], colour)
        axes.plot(ends, ends, color=INK, linewidth=1, linestyle=":")
        axes.set(xlim=ends, ylim=ends)
        name_axes(axes, name, "true", "predicted")
    return figure


def _residuals(drawing: Drawing) -> Figure:
    figure, (scatter, bars) = canvas(9.2, 4.2, 2)
    rows = sample(len(drawing.y))
    ends = ends_of(*(p - drawing.y for _, _, p in drawing.models))
    edges = np.linspace(*ends, 41).tolist()
    for name, colour, predicted in drawing.models:
        residual = predicted - drawing.y
        _dots(scatter, predicted[rows], residual[rows], colour)
        bars.hist(np.clip(residual, *ends), bins=edges, color=colour, alpha=0.55, label=name)
    scatter.axhline(0, color=INK, linewidth=1, linestyle=":")
    bars.axvline(0, color=INK, linewidth=1, linestyle=":")
    scatter.set_ylim(ends)
    bars.legend(loc="upper right")
    name_axes(scatter, "Residuals", "predicted", "predicted - true")
    name_axes(bars, "How often", "predicted - true", "rows")
    return figure


def _dots(axes: Axes, x: Floats, y: Floats, colour: str) -> None:
    faint = 0.5 if len(x) < 500 else 0.25
    axes.scatter(x, y, s=9, color=colour, alpha=faint, linewidths=0)


# --- the bootstrap --------------------------------------------------------------------------------------


def _difference(drawing: Drawing, improvements: Floats) -> Figure:
    figure, (axes,) = canvas(6.4, 3.6, 1)
    primary = drawing.primary
    known = improvements[np.isfinite(improvements)]
    other = "champion" if drawing.champion is not None else "trivial baseline"
    bound = primary.margin
    if primary.promote == "not_worse":
        bound = 0.0 if drawing.champion is None else -primary.margin
    tail = (1 - primary.confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    bins = 1 if np.ptp(known) == 0 else 45
    axes.hist(known, bins=bins, color=CHALLENGER, alpha=0.35)
    axes.axvspan(low, high, color=CHALLENGER, alpha=0.10, linewidth=0)
    axes.axvline(float(np.mean(known)), color=CHALLENGER, label="mean of the resamples")
    for end in (low, high):
        axes.axvline(end, color=CHALLENGER, linewidth=1, linestyle="--")
    axes.axvline(bound, color=LIMIT, label=f"must lie above {bound:g}")
    handle = axes.axvspan(low, low, color=CHALLENGER, alpha=0.2, linewidth=0)
    handle.set_label(f"{primary.confidence * 100:g}% interval")
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    name_axes(
        axes, f"Improvement over the {other}", f"{primary.metric}, right is better", "resamples"
    )
    return figure
