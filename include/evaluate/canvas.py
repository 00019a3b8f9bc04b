"""The look of the gate's pictures: colours, axes, bounded numbers of points, files.

Figures use Matplotlib's object API on the Agg canvas: no global state, no display, safe in any thread.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from include.scoring.metrics import Floats

CHALLENGER, CHAMPION, LIMIT = "#0f766e", "#d97706", "#b91c1c"
INK, MUTED, _GRID = "#1f2937", "#6b7280", "#e5e7eb"
_DPI = 110
_CURVE_POINTS = 400
_SCATTER_POINTS = 2000


def figure_of(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")


def canvas(width: float, height: float, panels: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels side by side, dressed."""
    figure = figure_of(width, height)
    axes = list(np.atleast_1d(figure.subplots(1, panels)))
    for each in axes:
        dress(each)
    return figure, axes


def dress(axes: Axes) -> None:
    """Give axes the look of all pictures."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=8.5)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def name_axes(axes: Axes, title: str, x: str, y: str) -> None:
    """Set title and axis labels."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel(x, color=INK, fontsize=9.5)
    axes.set_ylabel(y, color=INK, fontsize=9.5)


def spread(points: int) -> NDArray[np.intp]:
    """Choose at most `_CURVE_POINTS` of a curve's points, both ends included."""
    return np.unique(np.linspace(0, points - 1, min(points, _CURVE_POINTS)).astype(np.intp))


def sample(rows: int) -> NDArray[np.intp]:
    """Choose at most `_SCATTER_POINTS` rows, the same ones for every model."""
    if rows <= _SCATTER_POINTS:
        return np.arange(rows)
    chosen: NDArray[np.intp] = np.random.default_rng(0).choice(rows, _SCATTER_POINTS, replace=False)
    return chosen


def ends_of(*values: Floats) -> tuple[float, float]:
    """Return limits that hold 99% of the values, so that one outlier does not flatten the rest."""
    low, high = np.quantile(np.concatenate(values), [0.005, 0.995])
    room = 0.06 * (high - low) or 1.0
    return float(low - room), float(high + room)


def short(value: Any) -> str:
    """Write a class so that it fits on an axis."""
    text = str(value)
    text = text if len(text) <= 12 else f"{text[:11]}…"
    return text.replace("$", r"\$")  # Matplotlib would read a formula


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG of at most 128 colours, which keeps clouds of dots small; complete or absent."""
    sheet = FigureCanvasAgg(figure)
    sheet.draw()
    picture = Image.fromarray(np.asarray(sheet.buffer_rgba())).convert("RGB")
    part = path.with_name(f".{path.name}.{os.getpid()}")
    picture.quantize(128, dither=Image.Dither.NONE).save(part, format="png", optimize=True)
    part.replace(path)
    return path
