"""What `evergreen drift` works with, and its replay of the past."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.cli.display import get_console, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from include.ledger.arbiter import Decision
    from include.ledger.ledger import Ledger
    from include.monitor.backtest import Row
    from include.monitor.decide import Outcome, Wish
    from include.monitor.reference import Reference
    from include.monitor.replay import Replayed
    from include.registry.gateway import Registry
    from include.registry.package import Version
    from include.settings import Settings
    from include.spec.schema import Spec
    from include.store.files import Store

_SHOWN_BROKEN = 5


@dataclass(frozen=True)
class Replay:
    """What to replay: as of when, between which times, when the drift began, and where the picture goes."""

    now: datetime
    start: datetime | None = None
    end: datetime | None = None
    began: datetime | None = None
    plot: Path | None = None


@dataclass
class Bench:
    """The parts a pass works with.

    Attributes:
        spec: The model's spec as it is now.
        settings: This process's settings.
        registry: The model registry.
        champion: The version looked at.
    """

    spec: Spec
    settings: Settings
    registry: Registry
    champion: Version

    @cached_property
    def store(self) -> Store:
        """Where log, labels and snapshots are."""
        from include.store.files import open_store

        return open_store(self.settings.store_uri, cache=self.settings.home / "cache")

    @cached_property
    def ledger(self) -> Ledger:
        """The record; only read here."""
        from include.ledger.ledger import Ledger

        return Ledger(self.settings.ledger_dsn)

    def preview(self, wish: Wish, now: datetime) -> Decision:
        """Return what the arbiter would answer to a wish filed now."""
        retrain = self.spec.retrain
        return self.ledger.would(self.spec.model, wish.source, retrain, now, wish=wish.reason)

    def reference(self, version: str) -> Reference:
        """Return what a version learned from; made once and kept."""
        from include.monitor.opening import open_reference
        from include.registry.lookup import choose_version

        found = self.champion
        if version != found.version:
            found = choose_version(self.registry, self.spec.model, version)
        return open_reference(self.spec, self.store, self.registry, found, self.settings.home)

    def bring_labels(self, now: datetime, start: datetime | None = None) -> None:
        """Read the labels that are due from the spec's source, where it needs no Airflow connection."""
        from include.ingest.labels import ingest_labels
        from include.monitor.windows import latest_window

        labels, length = self.spec.monitor.labels, self.spec.monitor.window
        if labels is None or labels.source is None or getattr(labels.source, "connection", None):
            return
        first = start or latest_window(now, length, delay=labels.delay).start
        ingest_labels(self.spec, self.store, first, now, now=datetime.now(UTC))


def open_bench(name: str) -> Bench:
    """Find the model and its champion, else its newest version.

    Raises:
        SpecError: There is no such model.
        ModelError: It has no version yet.
        ServiceError: MLflow is away.
    """
    from include.registry.gateway import Registry
    from include.registry.lookup import choose_version
    from include.settings import get_settings
    from include.spec.loader import find_spec, load_spec
    from include.stack.status import running_settings

    settings = running_settings(get_settings())
    spec = load_spec(find_spec(name, settings), settings)
    registry = Registry(settings.mlflow)
    return Bench(spec, settings, registry, choose_version(registry, name))


def run_backtest(bench: Bench, asked: Replay, as_json: bool) -> None:
    """Replay the log, print the table and draw the picture."""
    from include.monitor.backtest import outcomes, table

    replayed = _replayed(bench, asked)
    rows = table(bench.spec, replayed, began=asked.began)
    decided = outcomes(bench.spec, replayed)
    if asked.plot:
        from include.cli.drift_chart import draw_backtest

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
            print_table(_columns(title, asked), [_cells(row, asked) for row in mine])
    broken = [o.reason for o in decided if o.broken]
    if broken:
        many = count(len(broken), "window")
        console.print(f"Broken data in {many}; none of them asks for a retrain:")
    for reason in broken[:_SHOWN_BROKEN]:
        console.print(f"  - {reason}", markup=False, soft_wrap=True)
    if asked.plot:
        console.print(f"Picture: {asked.plot}", markup=False, soft_wrap=True)


def _columns(title: str, asked: Replay) -> tuple[str, ...]:
    known = ("false alarms per 100 windows", "windows until detected") if asked.began else ()
    return (title, "windows that violate", "would ask for a retrain", *known)


def _cells(row: Row, asked: Replay) -> tuple[str, ...]:
    cells = [f"{row.threshold:.4g}", str(row.violations), str(row.alarms)]
    if asked.began:
        false = "-" if row.false_per_100 is None else f"{row.false_per_100:.3g}"
        cells += [false, "never" if row.delay is None else str(row.delay)]
    if row.own:
        cells[0] += " (spec)"
    return tuple(f"[bold]{cell}[/]" if row.own else cell for cell in cells)
