"""`evergreen drift --backtest`: the replay, its table and its picture."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.cli.display import get_console, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from include.cli.backtest.bench import Bench
    from include.monitor.backtest import Row
    from include.monitor.decide import Outcome
    from include.monitor.replay import Replayed

_SHOWN_BROKEN = 5


@dataclass(frozen=True)
class Replay:
    """What to replay: as of when, between which times, when the drift began, and where the picture goes."""

    now: datetime
    start: datetime | None = None
    end: datetime | None = None
    began: datetime | None = None
    plot: Path | None = None


def run_backtest(bench: Bench, asked: Replay, as_json: bool) -> None:
    """Replay the log, print the table and draw the picture."""
    from include.monitor.backtest import outcomes, table

    replayed = _replayed(bench, asked)
    rows = table(bench.spec, replayed, began=asked.began)
    decided = outcomes(bench.spec, replayed)
    if asked.plot:
        from include.cli.backtest.chart import draw_backtest

        draw_backtest(bench.spec, replayed, rows, asked.began, asked.plot)
    if as_json:
        print_json(_facts(bench, asked, replayed, decided, rows))
    else:
        _print(bench, asked, replayed, decided, rows)


def _replayed(bench: Bench, asked: Replay) -> list[Replayed]:
    from rich.progress import track

    from include.errors import DataError
    from include.monitor.replay import find_windows, replay

    windows = find_windows(bench.spec, bench.store, asked.now, asked.start, asked.end)
    bench.bring_labels(asked.now, windows[0].start)
    found = replay(bench.spec, bench.store, windows, bench.reference, now=asked.now)
    console = get_console(stderr=True)
    replayed = list(track(found, "Replaying", total=len(windows), console=console, transient=True))
    if not replayed:
        raise DataError(
            f"prediction log of {bench.spec.model}",
            f"must hold predictions in {len(windows)} windows, got none",
            "Choose other dates.",
        )
    return replayed


def _facts(
    bench: Bench,
    asked: Replay,
    replayed: Sequence[Replayed],
    decided: Sequence[Outcome],
    rows: Sequence[Row],
) -> dict[str, Any]:
    from include.monitor.backtest import level

    rules = bench.spec.monitor.drift
    return {
        "model": bench.spec.model,
        "drift_began": asked.began,
        "thresholds": [vars(row) for row in rows],
        "windows": [
            {
                "key": one.window.key,
                "version": one.version,
                "rows": one.rows,
                "level": level(rules, one.drift),
                "metric": one.performance.live if one.performance else None,
                "verdict": outcome.verdict,
                "reason": outcome.reason,
                "drifts": outcome.drifts,
                "decays": outcome.decays,
                "broken": outcome.broken,
                "wishes": [wish.source for wish in outcome.wishes],
            }
            for one, outcome in zip(replayed, decided, strict=True)
        ],
        "plot": asked.plot,
    }


def _print(
    bench: Bench,
    asked: Replay,
    replayed: Sequence[Replayed],
    decided: Sequence[Outcome],
    rows: Sequence[Row],
) -> None:
    from include.monitor.phrases import count

    console, rules = get_console(), bench.spec.monitor.drift
    first, last = replayed[0].window.start, replayed[-1].window.end
    versions = ", ".join(dict.fromkeys(one.version for one in replayed))
    console.print(
        f"[bold]{bench.spec.model}[/]: {count(len(replayed), 'window')}, {first:%Y-%m-%d} to {last:%Y-%m-%d}, "
        f"version {versions}; {rules.violations.k} of {rules.violations.of} windows, "
        f"share {rules.share:.0%}",
        soft_wrap=True,
    )
    titles = {"drift": "monitor.drift.alert", "decay": "monitor.performance.max_drop"}
    for kind, title in titles.items():
        mine = [row for row in rows if row.kind == kind]
        if mine:
            print_table(_columns(asked), [_cells(row, asked) for row in mine], title)
    broken = [o.reason for o in decided if o.broken]
    if broken:
        many = count(len(broken), "window")
        console.print(f"Broken data in {many}; none of them asks for a retrain:")
    for reason in broken[:_SHOWN_BROKEN]:
        console.print(f"  - {reason}", markup=False, soft_wrap=True)
    if asked.plot:
        console.print(f"Picture: {asked.plot}", markup=False, soft_wrap=True)


def _columns(asked: Replay) -> tuple[str, ...]:
    known = ("false per 100", "found after") if asked.began else ()
    return ("threshold", "windows that violate", "that ask for a retrain", *known)


def _cells(row: Row, asked: Replay) -> tuple[str, ...]:
    cells = [f"{row.threshold:.4g}", str(row.violations), str(row.alarms)]
    if asked.began:
        false = "-" if row.false_per_100 is None else f"{row.false_per_100:.3g}"
        cells += [false, "never" if row.delay is None else str(row.delay)]
    if row.own:
        cells[0] += " (spec)"
    return tuple(f"[bold]{cell}[/]" if row.own else cell for cell in cells)
