"""`evergreen drift`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from include.cli.display import get_console, json_option, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from include.cli.backtest.bench import Bench
    from include.ledger.arbiter import Decision
    from include.monitor.findings import Finding
    from include.monitor.look import Look

_COLOURS = {"alert": "red", "warn": "yellow", "insufficient_data": "dim", "ok": "green"}
_VERDICTS = {"ALERT": "red", "WARN": "yellow", "OK": "green", "INSUFFICIENT_DATA": "dim"}
_SEVERITY = ("alert", "warn", "insufficient_data", "ok")


class Moment(click.ParamType[datetime]):
    """A date or a time in ISO form; without a zone it is UTC."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Parse it."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"must be a date or an ISO time such as 2026-03-01, got {value!r}", param, ctx
            )
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)


@click.command(short_help="Compare live predictions with the training data once.")
@click.argument("name")
@click.option("--as-of", type=Moment(), help="Act as if it were then (ISO time, UTC).")
@click.option("--html", type=click.Path(path_type=Path), help="Write the report's page here.")
@click.option("--backtest", is_flag=True, help="Replay the log for a grid of thresholds.")
@click.option("--from", "start", type=Moment(), help="Backtest: first day of the replay.")
@click.option("--to", "end", type=Moment(), help="Backtest: day before which it ends.")
@click.option(
    "--drift-began",
    "began",
    type=Moment(),
    help="Backtest: when the world changed; tells false alarms from right ones.",
)
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Backtest: write a picture (PNG) here."
)
@json_option
def command(
    name: str,
    as_of: datetime | None,
    html: Path | None,
    backtest: bool,
    start: datetime | None,
    end: datetime | None,
    began: datetime | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Compare the live predictions of the model NAME with what its champion learned from, once, in this process.

    Checks the newest window as the monitor's Dag would and says what it would come to. Nothing is recorded in the
    ledger and nothing is retrained.

    With --backtest the whole log is replayed window by window, and a table shows what other thresholds would
    have done.
    """
    from include.cli.backtest.bench import open_bench
    from include.cli.backtest.run import Replay, run_backtest

    _check_options(
        backtest, html, {"--from": start, "--to": end, "--drift-began": began, "--plot": plot}
    )
    now = _past(as_of)
    bench = open_bench(name)
    if backtest:
        run_backtest(bench, Replay(now, start, end, began, plot), as_json)
    else:
        _look_once(bench, now, as_of, html, as_json)


def _check_options(backtest: bool, html: Path | None, of_backtest: dict[str, Any]) -> None:
    if backtest and html:
        raise click.UsageError("--html belongs to a single pass, not to --backtest.")
    given = [option for option, value in of_backtest.items() if value is not None]
    if given and not backtest:
        raise click.UsageError(f"{given[0]} needs --backtest.")


def _past(as_of: datetime | None) -> datetime:
    now = datetime.now(UTC)
    if as_of is not None and as_of > now:
        raise click.UsageError(f"--as-of must not lie in the future, got {as_of.isoformat()}.")
    return as_of or now


def _look_once(
    bench: Bench, now: datetime, as_of: datetime | None, html: Path | None, as_json: bool
) -> None:
    import tempfile

    from include.monitor.look import look

    version = bench.champion.version
    events = bench.ledger.events(bench.spec.model, "monitor")
    mine = {e.payload["window"]: e.payload for e in events if e.payload.get("version") == version}
    history = [mine[window] for window in sorted(mine)]
    with (
        tempfile.TemporaryDirectory(prefix="evergreen-drift-") as name,
        get_console(stderr=True).status("Looking at the newest window"),
    ):
        folder = Path(name)
        bench.bring_labels(now)
        reference = bench.reference(version)
        found = look(bench.spec, bench.store, reference, history, now=now, folder=folder)
        page = _write_page(bench, found, html, folder) if html else None
    wishes = found.outcome.wishes
    decision = bench.preview(wishes[0], now, as_of) if wishes else None
    if as_json:
        print_json(_facts(bench, found, decision, page))
    else:
        _print(bench, found, decision, page)


def _write_page(bench: Bench, found: Look, html: Path, folder: Path) -> Path:
    import shutil

    from include.monitor.report import write_report

    files = write_report(
        bench.spec,
        folder / "report",
        version=bench.champion.version,
        window=found.collected.window,
        findings=found.findings,
        html=True,
        path=found.collected.path,
        reference=bench.reference(bench.champion.version),
    )
    html.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(next(file for file in files if file.suffix == ".html"), html)
    return html


def _facts(
    bench: Bench, found: Look, decision: Decision | None, page: Path | None
) -> dict[str, Any]:
    window, outcome = found.collected.window, found.outcome
    return {
        "model": bench.spec.model,
        "version": bench.champion.version,
        "window": {"key": window.key, "start": window.start, "end": window.end},
        "matured": found.matured.key if found.matured else None,
        "rows": found.collected.rows,
        "verdict": outcome.verdict,
        "reason": outcome.reason,
        "drifts": outcome.drifts,
        "decays": outcome.decays,
        "broken": outcome.broken,
        "wishes": [vars(wish) for wish in outcome.wishes],
        "arbiter": {"verdict": decision.verdict, "reason": decision.reason} if decision else None,
        "findings": [vars(finding) for finding in found.findings],
        "html": page,
    }


def _print(bench: Bench, found: Look, decision: Decision | None, page: Path | None) -> None:
    console, outcome, collected = get_console(), found.outcome, found.collected
    console.print(
        f"[bold]{bench.spec.model} version {bench.champion.version}[/], {collected.window}, "
        f"{collected.rows:,} predictions",
        soft_wrap=True,
    )
    if found.matured:
        console.print(f"labels judged of {found.matured}", style="dim", soft_wrap=True)
    print_table(("check", "column", "status", "finding"), _rows(found.findings))
    colour = _VERDICTS[outcome.verdict]
    verdict = outcome.verdict.replace("_", " ")
    console.print(f"[{colour}]{verdict}[/]", end=": ")
    console.print(outcome.reason, markup=False, soft_wrap=True)
    for wish in outcome.wishes:
        text = f"The monitor would ask for a retrain ({wish.source})."
        console.print(text, markup=False, soft_wrap=True)
    if decision:
        text = f"The arbiter would answer {decision.verdict}: {decision.reason}"
        console.print(text, markup=False, soft_wrap=True)
    if page:
        console.print(f"Report: {page}", markup=False, soft_wrap=True)


def _rows(findings: Sequence[Finding]) -> list[tuple[str, str, str, str]]:
    from rich.markup import escape

    return [
        (
            finding.check.replace("_", " "),
            escape(finding.column or ""),
            f"[{_COLOURS[finding.status]}]{finding.status.replace('_', ' ')}[/]",
            escape(finding.message),
        )
        for finding in sorted(findings, key=lambda f: _SEVERITY.index(f.status))
    ]
