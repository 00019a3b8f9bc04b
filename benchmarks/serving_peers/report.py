"""What a comparison says: two tables, the targets, a plot, and the section of docs/benchmarks.md that holds them."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.serving_peers.load import Load
from benchmarks.serving_peers.sides import (
    Canary,
    Constant,
    Evergreen,
    MlflowServe,
    Side,
    StarletteOnnx,
)

OURS, MLFLOW, FLOOR, BARE = Evergreen.name, MlflowServe.name, Constant.name, StarletteOnnx.name
MIN_OF_MLFLOW, MIN_OF_FLOOR, MAX_P99 = 50, 0.30, 1 / 15
PLOT = Path("images") / "serving-benchmark.png"
_BEGIN, _END = "<!-- written by benchmarks/serving.py -->", "<!-- up to here -->"
_TITLES = {
    "hgb": "gradient boosting",
    "logistic": "logistic regression",
    "forest": "random forest",
}


@dataclass(frozen=True)
class Line:
    """One line of the tables.

    Attributes:
        family: The model.
        rows: Rows of a request.
        connections: Requests under way at any time.
    """

    family: str
    rows: int
    connections: int

    @property
    def text(self) -> str:
        """The line's name."""
        return f"{self.family:<10}{self.rows:>4} {'row ' if self.rows == 1 else 'rows'}{self.connections:>4} conn."


HEADLINE = Line("hgb", 1, 8)
#: Measurements by line and name of the server, in the order of the rounds.
Results = dict[tuple[Line, str], list[Load]]
Pick = Callable[[Load], float]


def rate(load: Load) -> float:
    """Pick requests a second."""
    return load.rate


def p99(load: Load) -> float:
    """Pick the 99th percentile of latency."""
    return load.p99_ms


def cpu(load: Load) -> float:
    """Pick the server's processor time a request."""
    return max(load.cpu_us, 1.0)  # its clock ticks only a hundred times a second


def middle(results: Results, line: Line, side: str, pick: Pick) -> float | None:
    """Return the median over the rounds; None where it was not measured."""
    loads = results.get((line, side))
    return median(map(pick, loads)) if loads else None


def ratios(results: Results, line: Line, side: str, pick: Pick) -> list[float]:
    """Return Evergreen's figure over another server's, one a round."""
    pairs = zip(results.get((line, OURS), []), results.get((line, side), []), strict=False)
    return [pick(one) / pick(other) for one, other in pairs]


def savings(results: Results, line: Line, side: str) -> list[float]:
    """Return another server's processor time a request over Evergreen's, one a round."""
    return [1 / spent for spent in ratios(results, line, side, cpu)]


def caption(seconds: float, before: float, after: float) -> str:
    """Say when, where and how the figures came about."""
    now = datetime.now(UTC)
    return (
        f"{now.day} {now:%B %Y}, {os.cpu_count()} cores, Python {platform.python_version()}, load average {before:.1f} at the start and "
        f"{after:.1f} at the end (the benchmark itself is about 1); {seconds / 60:.0f} minutes"
    )


def tables(results: Results, sides: Sequence[Side], noted: str) -> str:
    """Return everything as text."""
    lines = list(dict.fromkeys(line for line, _ in results))
    names = [side.name for side in sides if not isinstance(side, Canary)]
    parts = [
        noted,
        _rounds(results),
        "",
        "requests/s, medians; ratios are medians of the rounds (min..max)",
        _head(names, 10) + _ratio_heads(names),
        *(_rate_line(results, line, names) for line in lines),
        "",
        "latency in ms, medians of p50 / p99",
        _head(names, 14),
        *(_latency_line(results, line, names) for line in lines),
        "",
        "processor time of the server a request in microseconds, medians: less moved by what else runs",
        _head(names, 10) + _ratio_heads(names),
        *(_cpu_line(results, line, names) for line in lines),
        "",
        *targets(results, lines, sides),
    ]
    return "\n".join(part.rstrip() for part in parts)


def _rounds(results: Results) -> str:
    counts = [len(loads) for loads in results.values()]
    most = len(results.get((HEADLINE, OURS), [])) or max(counts)
    return f"rounds: {min(counts)}, and {most} of the line that the targets name"


def _head(names: Sequence[str], width: int) -> str:
    return f"{'':28}" + "".join(f"{name:>{width}}" for name in names)


def _ratio_heads(names: Sequence[str]) -> str:
    wanted = [(MLFLOW, "x mlflow"), (FLOOR, "of uvicorn")]
    return "".join(f"{head:>22}" for name, head in wanted if name in names)


def _rate_line(results: Results, line: Line, names: Sequence[str]) -> str:
    cells = [middle(results, line, name, rate) for name in names]
    text = f"{line.text:28}" + "".join(f"{cell:>10,.0f}" for cell in cells if cell is not None)
    if MLFLOW in names:
        text += f"{_spread(ratios(results, line, MLFLOW, rate), '.0f'):>22}"
    if FLOOR in names:
        text += f"{_spread(ratios(results, line, FLOOR, rate), '.0%'):>22}"
    return text


def _latency_line(results: Results, line: Line, names: Sequence[str]) -> str:
    cells = []
    for name in names:
        half = middle(results, line, name, lambda load: load.p50_ms)
        most = middle(results, line, name, p99)
        cells.append(f"{_ms(half)} / {_ms(most)}")
    return f"{line.text:28}" + "".join(f"{cell:>14}" for cell in cells)


def _cpu_line(results: Results, line: Line, names: Sequence[str]) -> str:
    cells = [middle(results, line, name, cpu) for name in names]
    text = f"{line.text:28}" + "".join(f"{cell:>10,.0f}" for cell in cells if cell is not None)
    for name, form in ((MLFLOW, ".0f"), (FLOOR, ".0%")):
        if name in names:
            text += f"{_spread(savings(results, line, name), form):>22}"
    return text


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return "-"
    return f"{median(values):{form}} ({min(values):{form}}..{max(values):{form}})"


# --- targets --------------------------------------------------------------------------------------------


def targets(results: Results, lines: Sequence[Line], sides: Sequence[Side]) -> list[str]:
    """Return a line for each target: what was found, and whether it is met."""
    said = []
    if HEADLINE in lines:
        said += list(_headline(results))
    peers = [side.name for side in sides if side.peer]
    if peers:
        behind = [
            f"{line.text.strip()} ({_best(results, line, peers)})"
            for line in lines
            if not _ahead(results, line, peers)
        ]
        found = f"{len(lines) - len(behind)} of {len(lines)}"
        rest = (
            "" if not behind else "; not: " + ", ".join(" ".join(text.split()) for text in behind)
        )
        said.append(_target("ahead of every peer on every line", found + rest, not behind))
    errors = sum(load.errors for loads in results.values() for load in loads)
    said.append(_target("no request without a right answer", f"{errors} errors", not errors))
    return said


def _headline(results: Results) -> list[str]:
    said = []
    where = "hgb, 1 row, 8 connections"
    if of_mlflow := ratios(results, HEADLINE, MLFLOW, rate):
        text = f">= {MIN_OF_MLFLOW} x mlflow's requests/s ({where})"
        said.append(_target(text, _spread(of_mlflow, ".1f"), median(of_mlflow) >= MIN_OF_MLFLOW))
        said.append(_note("by processor time", _spread(savings(results, HEADLINE, MLFLOW), ".1f")))
        slow = ratios(results, HEADLINE, MLFLOW, p99)
        found = f"1/{1 / median(slow):.0f} (1/{1 / min(slow):.0f}..1/{1 / max(slow):.0f})"
        said.append(_target("p99 <= 1/15 of mlflow's (same)", found, median(slow) <= MAX_P99))
    if of_floor := ratios(results, HEADLINE, FLOOR, rate):
        text = ">= 30% of bare uvicorn (same)"
        said.append(_target(text, _spread(of_floor, ".1%"), median(of_floor) >= MIN_OF_FLOOR))
        said.append(_note("by processor time", _spread(savings(results, HEADLINE, FLOOR), ".1%")))
    if of_bare := ratios(results, HEADLINE, BARE, rate):
        said.append(_note("requests/s beside bare onnx (same)", _spread(of_bare, ".2f")))
    if canary := ratios(results, HEADLINE, Canary.name, rate):
        said.append(_note("requests/s without / with a canary (same)", _spread(canary, ".2f")))
    return said


def _target(text: str, found: str, met: bool) -> str:
    return f"{text:58}{found}: {'met' if met else 'NOT MET'}"


def _note(text: str, found: str) -> str:
    return f"{'  ' + text:58}{found}"


def _ahead(results: Results, line: Line, peers: Sequence[str]) -> bool:
    return all(median(found) > 1 for peer in peers if (found := ratios(results, line, peer, rate)))


def _best(results: Results, line: Line, peers: Sequence[str]) -> str:
    def key(peer: str) -> float:
        return middle(results, line, peer, rate) or 0.0

    return max(peers, key=key)


# --- docs -----------------------------------------------------------------------------------------------


def write(docs: Path, text: str, results: Results, sides: Sequence[Side]) -> None:
    """Renew the plot, and the table between the two marks in `benchmarks.md`.

    Raises:
        ValueError: The marks are not there.
    """
    page = docs / "benchmarks.md"
    before, begin, rest = page.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{page}: must hold {_BEGIN} and {_END}, got other text. Put them back.")
    plot(results, sides, docs / PLOT)
    legend = "\n".join(f"* {side.name}: {side.legend}" for side in sides)
    block = f"\n![requests per second by server, model, rows and connections]({PLOT.as_posix()})\n\n```text\n{text}\n```\n\n{legend}\n"
    page.write_text(f"{before}{begin}\n{block}\n{end}{after}")


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
