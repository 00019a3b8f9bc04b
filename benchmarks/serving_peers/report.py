"""What a comparison says: tables of rates, latencies and processor time, and the targets."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

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
        *(target.line for target in targets(results, sides)),
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


@dataclass(frozen=True)
class Target:
    """Something to say about the comparison.

    Attributes:
        text: What was asked for.
        found: What was found.
        met: Whether that is enough; None where nothing was asked for.
    """

    text: str
    found: str
    met: bool | None = None

    @property
    def line(self) -> str:
        """As a line of text."""
        if self.met is None:
            return f"{'  ' + self.text:58}{self.found}"
        return f"{self.text:58}{self.found}: {'met' if self.met else 'NOT MET'}"


def targets(results: Results, sides: Sequence[Side]) -> list[Target]:
    """Return what was asked for and what was found."""
    lines = list(dict.fromkeys(line for line, _ in results))
    said = _headline(results)
    peers = [side.name for side in sides if side.peer]
    if peers:
        behind = [line for line in lines if not _ahead(results, line, peers)]
        found = f"{len(lines) - len(behind)} of {len(lines)}"
        if behind:
            found += "; not: " + ", ".join(" ".join(line.text.split()) for line in behind)
        said.append(Target("ahead of every peer on every line", found, not behind))
    errors = sum(load.errors for loads in results.values() for load in loads)
    said.append(Target("no failed request on any side", f"{errors} failed", not errors))
    return said


def _headline(results: Results) -> list[Target]:
    said = []
    if of_mlflow := ratios(results, HEADLINE, MLFLOW, rate):
        text = f"at least {MIN_OF_MLFLOW} x mlflow's requests/s (hgb, 1 row, 8 conn.)"
        enough = median(of_mlflow) >= MIN_OF_MLFLOW
        said.append(Target(text, _spread(of_mlflow, ".1f"), enough))
        said.append(Target("by processor time", _spread(savings(results, HEADLINE, MLFLOW), ".1f")))
        slow = ratios(results, HEADLINE, MLFLOW, p99)
        found = f"1/{1 / median(slow):.0f} (1/{1 / min(slow):.0f}..1/{1 / max(slow):.0f})"
        said.append(Target("p99 at most 1/15 of mlflow's (same)", found, median(slow) <= MAX_P99))
    if of_floor := ratios(results, HEADLINE, FLOOR, rate):
        enough = median(of_floor) >= MIN_OF_FLOOR
        text = "at least 30% of bare uvicorn's requests/s (same)"
        said.append(Target(text, _spread(of_floor, ".1%"), enough))
        said.append(Target("by processor time", _spread(savings(results, HEADLINE, FLOOR), ".1%")))
    if of_bare := ratios(results, HEADLINE, BARE, rate):
        said.append(Target("requests/s beside bare onnx (same)", _spread(of_bare, ".2f")))
    if canary := ratios(results, HEADLINE, Canary.name, rate):
        said.append(Target("requests/s without / with a canary (same)", _spread(canary, ".2f")))
    return said


def _ahead(results: Results, line: Line, peers: Sequence[str]) -> bool:
    return all(median(found) > 1 for peer in peers if (found := ratios(results, line, peer, rate)))
