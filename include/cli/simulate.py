"""`evergreen simulate`."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import click

from include.cli.display import get_console, json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from include.settings import Settings
    from include.simulator.live import LiveStage
    from include.simulator.plan import Plan
    from include.simulator.progress import Progress
    from include.simulator.timeline import Entry, Live
    from include.spec.schema import Spec

_SHOWN = {"monitor": {"OK": "green", "WARN": "yellow", "ALERT": "red"}}


#: The scenarios; a test compares them with the simulator's, which is slow to import.
SCENARIOS = (
    "calm",
    "covariate_shift",
    "concept_drift",
    "seasonal",
    "schema_break",
    "null_burst",
    "label_outage",
    "spike",
)


@click.command(short_help="Play days of the simulated world.")
@click.argument("name", default="churn")
@click.option("--days", type=click.IntRange(min=1), default=60, show_default=True, help="How many.")
@click.option(
    "--scenario", type=click.Choice(SCENARIOS), default="concept_drift", show_default=True
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    help="Customers on a usual day.  [default: 400]",
)
@click.option(
    "--start",
    type=click.DateTime(["%Y-%m-%d"]),
    help="First day.  [default: so that the play ends yesterday]",
)
@click.option("--batches-only", is_flag=True, help="Write upstream's files and nothing else.")
@json_option
def command(
    name: str,
    days: int,
    scenario: str,
    seed: int,
    rows: int | None,
    start: datetime | None,
    batches_only: bool,
    as_json: bool,
) -> None:
    """Play days of the simulated world on the running stack, against the model NAME (churn).

    Each day upstream delivers a batch, the live endpoint is asked, and labels of earlier days arrive. At the end
    of each window the monitor looks, as of that day; what it asks for happens. Then the ledger is shown in
    simulated dates, and a picture of the live metric is written.

    A play that was stopped goes on where it was. NAME may be a copy of the example spec with another `model`
    and another folder of data; a model has one play.

    Scenarios: calm, seasonal (nothing to find), covariate_shift, concept_drift (the world changes), schema_break,
    null_burst (the data is broken), label_outage, spike.
    """
    from include.settings import get_settings
    from include.simulator.plan import make_plan
    from include.simulator.scenarios import DEFAULT_ROWS
    from include.spec.loader import find_spec, load_spec

    settings = get_settings()
    spec = load_spec(find_spec(name, settings), settings)
    plan = make_plan(
        spec,
        scenario,
        today=datetime.now(UTC).date(),
        days=days,
        start=start.date() if start else None,
        seed=seed,
        rows=rows or DEFAULT_ROWS,
    )
    if batches_only:
        _write_batches(spec, plan, settings)
        return
    first = start.date() if start else None
    plan, progress = play_live(spec, plan, settings, quiet=as_json, rows=rows, start=first)
    lives, entries, picture = look_back(spec, plan, settings)
    if as_json:
        print_json(_as_dict(plan, progress, lives, entries, picture))
    else:
        print_timeline(spec, progress, lives, entries, picture)


def resume(
    plan: Plan, settings: Settings, *, rows: int | None = None, start: date | None = None
) -> tuple[Plan, Progress]:
    """Return the play to go on with: the one begun on this model, else a new one.

    Args:
        plan: What is asked for.
        settings: Where things are.
        rows: As in `Progress.plan`.
        start: As in `Progress.plan`.

    Raises:
        SpecError: Another play was begun.
    """
    from include.simulator.progress import Progress

    path = settings.home / "simulator" / f"{plan.model}.json"
    known = Progress.read(path)
    if known is None:
        return plan, Progress.begin(path, plan)
    return known.plan(plan, rows=rows, start=start), known


def only_player(model: str, settings: Settings) -> AbstractContextManager[None]:
    """Keep a second player of the same model out.

    Raises:
        ConflictError: There is one; on entering.
    """
    from include.errors import ConflictError
    from include.stack.layout import only_one

    refusal = ConflictError(
        f"simulate {model}",
        "must be the only play of the model, got another at work",
        "Wait for its end, or stop it; it goes on where it was.",
    )
    return only_one(settings.home / "simulator" / f"{model}.lock", refusal)


@contextmanager
def open_stage(spec: Spec, settings: Settings, *, follow: bool = False) -> Iterator[LiveStage]:
    """Give the running stack as the stage of a play.

    Args:
        spec: The model.
        settings: Where things are.
        follow: Show the tasks of training runs.
    """
    from include.cli.trigger import follow as follow_run
    from include.simulator.live import LiveStage, source_folder
    from include.stack.airflow_client import open_client
    from include.stack.status import running_settings
    from include.store.files import open_store

    settings = running_settings(settings)
    console = get_console(stderr=True)
    folder = source_folder(spec, settings)
    with open_client(settings) as airflow:
        stage = LiveStage(
            spec,
            folder,
            open_store(settings.store_uri),
            settings.serving,
            airflow,
            follow=(lambda dag, run: follow_run(airflow, dag, run)) if follow else None,
            warn=lambda text: console.print(f"! {text}", style="yellow", markup=False),
            key=lambda: settings.client_key,
        )
        with stage:
            yield stage


def play_live(
    spec: Spec,
    plan: Plan,
    settings: Settings,
    *,
    quiet: bool = False,
    rows: int | None = None,
    start: date | None = None,
) -> tuple[Plan, Progress]:
    """Play what is left of a plan on the running stack.

    Args:
        spec: The model.
        plan: The play; one that is under way goes on to the end of this one.
        settings: Where things are.
        quiet: Show no progress.
        rows: As in `Progress.plan`.
        start: As in `Progress.plan`.

    Returns:
        The whole play, and what was played.

    Raises:
        ConflictError: Somebody plays it right now.
        SpecError: Another play was begun, or the model's data is not the simulator's.
        ServiceError: The stack does not run, or something of it failed; the next call goes on.
    """
    from include.simulator.play import play

    with open_stage(spec, settings) as stage, only_player(plan.model, settings):
        plan, progress = resume(plan, settings, rows=rows, start=start)
        with _bar(plan, progress, quiet) as said:
            play(plan, progress, stage, said)
    return plan, progress


@contextmanager
def _bar(plan: Plan, progress: Progress, quiet: bool) -> Iterator[Callable[[date, str], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("days"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    console = get_console(stderr=True)
    if not console.is_terminal and not quiet:  # a log: a line a week, not a bar

        def line(day: date, what: str) -> None:
            if what != "requests":
                console.print(f"{day}  {what} ({len(progress.days)} of {plan.days} days)")

        yield line
        return
    with Bar(*columns, console=console, disable=quiet) as bar:
        task = bar.add_task("", total=plan.days, completed=len(progress.days))

        def said(day: date, what: str) -> None:
            bar.update(task, completed=len(progress.days), description=f"{day}  {what}")

        yield said


def look_back(
    spec: Spec, plan: Plan, settings: Settings
) -> tuple[list[Live], list[Entry], Path]:  # fmt: skip
    """Return what a play came to: windows, timeline, and the path of the picture of them."""
    from include.ledger.ledger import Ledger
    from include.simulator.picture import draw
    from include.simulator.timeline import measure, timeline
    from include.store.files import open_store

    entries = timeline(Ledger(settings.ledger_dsn).events(plan.model))
    lives = measure(spec, open_store(settings.store_uri), plan)
    path = settings.home / "simulator" / f"{plan.model}-{plan.world.scenario}.png"
    return lives, entries, draw(spec, plan, lives, entries, path)


def print_timeline(
    spec: Spec, progress: Progress, lives: Sequence[Live], entries: Sequence[Entry], picture: Path
) -> None:
    """Print the ledger in simulated dates, the live metric window by window, and where the picture is."""
    from rich.markup import escape

    from include.cli.display import print_table
    from include.simulator.timeline import watched_metric

    told = [entry for entry in entries if entry.kind != "request"]
    print_table(
        ("simulated", "what", "verdict", "why"),
        [
            (f"{e.at:%Y-%m-%d}", e.kind, _coloured(e), escape(_short(e.text))) for e in told
        ],
    )  # fmt: skip
    print_table(
        ("window", "answers", "version", watched_metric(spec), "95 %"),
        [
            (
                f"{live.start:%Y-%m-%d} to {live.end:%Y-%m-%d}",
                f"{live.rows:,}",
                ", ".join(live.versions) or "-",
                "-" if live.value is None else f"{live.value:.3f}",
                "-" if live.value is None else f"{live.low:.3f} to {live.high:.3f}",
            )
            for live in lives
        ],
    )
    sent = sum(rows for rows, _ in progress.days.values())
    refused = sum(refused for _, refused in progress.days.values())
    note = f", {refused:,} of them refused" if refused else ""
    get_console().print(f"{sent:,} live rows{note}. Picture: {picture}", soft_wrap=True)


def _coloured(entry: Entry) -> str:
    colour = _SHOWN.get(entry.kind, {}).get(entry.verdict)
    return f"[{colour}]{entry.verdict}[/]" if colour else entry.verdict


def _short(text: str, limit: int = 160) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _write_batches(spec: Spec, plan: Plan, settings: Settings) -> None:
    from include.simulator.batches import write_batch
    from include.simulator.live import source_folder
    from include.simulator.play import arrived

    folder = source_folder(spec, settings)
    days = arrived(plan)
    for day in days:
        write_batch(folder, day, plan.world.batch(day))
    click.echo(f"{len(days)} files in {folder}, {min(days)} to {max(days)}")


def _as_dict(
    plan: Plan,
    progress: Progress,
    lives: Sequence[Live],
    entries: Sequence[Entry],
    picture: Path,
) -> dict[str, Any]:
    return {
        "model": plan.model,
        "scenario": plan.world.scenario,
        "seed": plan.world.seed,
        "start": plan.start,
        "end": plan.end,
        "onset": plan.world.onset,
        "rows": sum(rows for rows, _ in progress.days.values()),
        "refused": sum(refused for _, refused in progress.days.values()),
        "windows": [vars(live) for live in lives],
        "timeline": [vars(entry) for entry in entries],
        "picture": picture,
    }
