"""The section of docs/benchmarks.md that holds a comparison, and its plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.serving_peers.report import BARE, FLOOR, MLFLOW, OURS, Line, Results, targets
from benchmarks.serving_peers.sides import Canary, Side

PLOT = Path("images") / "serving-benchmark.png"
_BEGIN, _END = "<!-- written by benchmarks/serving.py -->", "<!-- up to here -->"
_ROW = "| serving: "
_TITLES = {
    "hgb": "gradient boosting",
    "logistic": "logistic regression",
    "forest": "random forest",
}


def write(docs: Path, text: str, results: Results, sides: Sequence[Side]) -> None:
    """Renew the plot, the tables between the two marks in `benchmarks.md`, and the targets in the list at its top.

    Raises:
        ValueError: The marks or the list are not there.
    """
    page = docs / "benchmarks.md"
    said = page.read_text()
    before, begin, rest = said.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    above, row, list_end = before.rpartition(f"\n{_ROW}")
    if not (begin and end and row):
        raise ValueError(f"{page}: must hold {_BEGIN}, {_END} and a row {_ROW}, got other text.")
    kept = [line for line in above.splitlines() if not line.startswith(_ROW)]
    rows = [
        f"{_ROW}{target.text} | {target.found} | {'met' if target.met else '**not met**'} |"
        for target in targets(results, sides)
        if target.met is not None
    ]
    top = "\n".join([*kept, *rows, list_end.partition("\n")[2]])
    legend = "\n".join(f"* {side.name}: {side.legend}" for side in sides)
    image = f"![requests per second by server, model, rows and connections]({PLOT.as_posix()})"
    page.write_text(f"{top}{begin}\n\n{image}\n\n```text\n{text}\n```\n\n{legend}\n\n{end}{after}")
    plot(results, sides, docs / PLOT)


_STYLES: Mapping[str, dict[str, Any]] = {
    OURS: {"color": "#1a7f37", "linewidth": 3, "marker": "o", "zorder": 5},
    FLOOR: {"color": "#8c8c8c", "linestyle": "--", "marker": "", "linewidth": 1.5},
    BARE: {"color": "#9ccc65", "linestyle": "--", "marker": "v"},
    "fastapi": {"color": "#0072b2", "marker": "s"},
    "bentoml": {"color": "#d55e00", "marker": "^"},
    "mlserver": {"color": "#cc79a7", "marker": "D"},
    MLFLOW: {"color": "#000000", "marker": "x"},
}


def plot(results: Results, sides: Sequence[Side], path: Path) -> None:
    """Draw requests a second against connections: a panel for each model and number of rows."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, NullLocator

    lines = list(dict.fromkeys(line for line, _ in results))
    families = list(dict.fromkeys(line.family for line in lines))
    counts = sorted({line.rows for line in lines})
    figure, grid = plt.subplots(
        len(counts), len(families), figsize=(11, 7), sharex=True, sharey=True, squeeze=False
    )
    for rows, panels in zip(counts, grid, strict=True):
        for family, panel in zip(families, panels, strict=True):
            here = [line for line in lines if (line.family, line.rows) == (family, rows)]
            for side in sides:
                if isinstance(side, Canary):
                    continue
                _curve(panel, results, here, side)
            panel.set(xscale="log", yscale="log")
            panel.set_xticks([line.connections for line in here])
            panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
            panel.grid(visible=True, which="major", color="#e5e5e5")
            panel.spines[["top", "right"]].set_visible(False)
            panel.set_title(
                f"{_TITLES[family]}, {rows} row{'s' * (rows > 1)} a request", fontsize=11
            )
    for panel in grid[-1]:
        panel.set_xlabel("connections")
    for panels in grid:
        panels[0].set_ylabel("requests/s (log scale)")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    figure.suptitle(
        "Serving on one core: medians of the rounds, bars from the least to the most", fontsize=13
    )
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _curve(panel: Any, results: Results, lines: Sequence[Line], side: Side) -> None:
    rates = [[load.rate for load in results[line, side.name]] for line in lines]
    middles = [median(found) for found in rates]
    below = [m - min(found) for m, found in zip(middles, rates, strict=True)]
    above = [max(found) - m for m, found in zip(middles, rates, strict=True)]
    panel.errorbar(
        [line.connections for line in lines],
        middles,
        yerr=[below, above],
        label=side.name,
        capsize=2,
        elinewidth=1,
        **{"linewidth": 1.5, "markersize": 6, **_STYLES[side.name]},
    )
