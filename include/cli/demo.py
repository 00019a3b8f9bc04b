"""`evergreen demo`: the whole way from upstream data to live predictions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from include.settings import Settings
    from include.simulator.plan import Plan
    from include.simulator.progress import Progress
    from include.spec.schema import Spec

MODEL, SCENARIO, WINDOWS = "churn", "concept_drift", 6
_SHOWN = 5


@click.command(short_help="Show a model trained, judged, deployed and answering.")
@click.option("--down", is_flag=True, help="Stop the stack at the end.")
@click.pass_context
def command(ctx: click.Context, down: bool) -> None:
    """Start the stack, train `churn` over the REST API, and let six simulated weeks pass.

    After two of them the world changes: the monitor finds that the model got worse, asks for a retrain, and the
    better version takes over. The stack is left running; `evergreen down` stops it. Run it again tomorrow: the
    world goes on where it was, and the gate decides whether a model of today's data takes over.
    """
    from include.cli.display import get_console
    from include.cli.simulate import look_back, play_live, print_timeline, resume
    from include.cli.up import start_stack
    from include.settings import get_settings
    from include.simulator.live import source_folder
    from include.spec.loader import find_spec, load_spec
    from include.stack.status import running_settings

    console, settings = get_console(), get_settings()
    spec = load_spec(find_spec(MODEL, settings), settings)
    source_folder(spec, settings)  # says at once where the demo cannot be played
    try:
        console.rule("1  Start Airflow, MLflow and serving", align="left")
        start_stack()
        settings = running_settings(settings)  # the ports of a stack that ran before
        plan, progress = resume(make_demo_plan(spec), settings)
        again = progress.trained
        if not again:
            train_first(spec, plan, progress, settings)
        console.rule(f"{'2' if again else '4'}  {_weeks(plan, progress)}", align="left")
        plan, progress = play_live(spec, plan, settings)
        print_timeline(spec, progress, *look_back(spec, plan, settings))
        if again:
            console.rule("3  The upstream job asks for a training run", align="left")
            train_again(ctx, settings)
        console.rule(f"{'4' if again else '5'}  The live endpoint answers", align="left")
        show_predictions(settings.serving, _newest_batch(spec, settings), key=settings.client_key)
        console.rule(f"{'5' if again else '6'}  What there is now", align="left")
        _closing(_summary(settings), settings)
    finally:
        if down:
            from include.stack.lifecycle import down as stop_stack

            stop_stack(settings)
            console.print("The stack is stopped.")


def make_demo_plan(spec: Spec, now: datetime | None = None) -> Plan:
    """Plan six whole windows and what is left until yesterday.

    Args:
        spec: The model.
        now: The time, aware; None for the present.
    """
    from include.monitor.windows import latest_window
    from include.simulator.plan import make_plan, midnight

    today = (now or datetime.now(UTC)).date()
    newest = latest_window(midnight(today), spec.monitor.window)
    start = (newest.end - WINDOWS * spec.monitor.window).date()
    days = (newest.end.date() - start).days
    plan = make_plan(spec, SCENARIO, today=today, days=days, start=start)
    return replace(plan, days=(today - start).days)


def train_first(spec: Spec, plan: Plan, progress: Progress, settings: Settings) -> None:
    """Deliver the batches of the time before, and train on them as of the play's first day."""
    from include.cli.display import get_console
    from include.cli.simulate import open_stage
    from include.simulator.play import begin

    console = get_console()

    def said(day: date, what: str) -> None:
        if what == "training":
            console.print(f"{len(plan.past)} files, {plan.past[0]} to {plan.past[-1]}")
            console.rule(f"3  The upstream job asks for a training run, as of {day}", align="left")

    console.rule("2  Upstream delivers its daily batches", align="left")
    with open_stage(spec, settings, follow=True) as stage:
        begin(plan, progress, stage, said)


def train_again(ctx: click.Context, settings: Settings) -> None:
    """Train on what is there now, over REST."""
    from include.cli.trigger import follow
    from include.stack.airflow_client import open_client

    dag_id = f"{MODEL}__train"
    with open_client(settings) as airflow:
        airflow.wait_for_dag(dag_id, timeout=60)
        run = airflow.trigger(dag_id, {"reason": "demo: new batches", "trigger": "api"}, _run_id())
        if follow(airflow, dag_id, run["dag_run_id"]).state != "success":
            ctx.exit(1)


def _weeks(plan: Plan, progress: Progress) -> str:
    left = plan.days - len(progress.days)
    if progress.days:
        return f"{left} days pass since last time" if left else "No day has passed since last time"
    return f"{plan.days} days pass; on {plan.world.onset} the world changes"


def _run_id() -> str:
    return f"upstream__{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}"


def _newest_batch(spec: Spec, settings: Settings) -> Path:
    from include.simulator.live import source_folder

    return max(source_folder(spec, settings).glob("*.parquet"))


def _summary(settings: Settings) -> dict[str, Any]:
    """Collect what the tasks of the newest training run said; a skipped run says nothing."""
    from include.errors import SpecError
    from include.stack.airflow_client import open_client

    found: dict[str, Any] = {}
    dag_id = f"{MODEL}__train"
    with open_client(settings) as airflow:
        run_id = airflow.runs(dag_id, limit=1)[0]["dag_run_id"]
        for task in ("admit", "ingest", "evaluate", "register", "deploy.promote"):
            try:
                found[task] = airflow.xcom(dag_id, run_id, task)
            except SpecError:
                continue
        found["run"] = f"{airflow.url}/dags/{dag_id}/runs/{run_id}"
    return found


def show_predictions(serving: str, batch: Path, *, key: str = "") -> None:
    """Ask the endpoint about a few customers of a batch and print its answers.

    Args:
        serving: Base URL.
        batch: Parquet file of customers.
        key: API key of serving; empty for none.
    """
    import uuid

    import pyarrow.parquet as pq

    from include.cli.display import get_console, print_table
    from include.deploy.client import ServingClient
    from include.errors import ServiceError

    rows = pq.read_table(batch).slice(0, _SHOWN).to_pydict()
    with ServingClient(serving, key=key) as client:
        described = client.metadata(MODEL)
        body = {
            "id": f"demo-{uuid.uuid4().hex[:8]}",
            "inputs": _inputs(described.body.get("inputs", []), rows),
        }
        reply = client.infer(MODEL, body)
    if not reply.ok:
        raise ServiceError(
            f"serving ({serving})",
            f"must predict, got {reply.said}",
            "See `./evergreen logs serving`.",
        )
    outputs = {item["name"]: item for item in reply.body["outputs"]}
    risk = outputs["probability"]["data"]
    get_console().print(
        f"POST {serving}/v2/models/{MODEL}/infer -> version {reply.body['model_version']}, {reply.ms:.0f} ms"
    )
    shown = ("tenure", "plan", "contract", "support_calls")
    print_table(
        ("customer", *shown, "churn risk", "left in truth"),
        [
            (
                str(rows["customer_id"][n]),
                *(str(rows[name][n]) for name in shown),
                f"{(risk[n][1] if isinstance(risk[n], list) else risk[2 * n + 1]):.1%}",
                "yes" if rows["churned"][n] else "no",
            )
            for n in range(len(rows["customer_id"]))
        ],
    )


def _inputs(
    described: Sequence[Mapping[str, Any]], rows: Mapping[str, list[Any]]
) -> list[dict[str, Any]]:
    return [
        {
            "name": item["name"],
            "datatype": item["datatype"],
            "shape": [len(rows[item["name"]]), 1],
            "data": [_plain(value) for value in rows[item["name"]]],
        }
        for item in described
    ]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _closing(summary: Mapping[str, Any], settings: Settings) -> None:
    from include.cli.display import print_table

    verdict = summary.get("evaluate", {})
    metrics = verdict.get("metrics", {})
    rows = [
        ("model", MODEL),
        ("snapshot", f"{summary['ingest']['snapshot_id'][:12]}, {summary['ingest']['rows']:,} rows")
        if "ingest" in summary
        else ("run", "skipped: nothing new since the last run"),
        ("verdict", f"{verdict['verdict']}: {verdict['reason']}")
        if verdict
        else ("verdict", "unchanged"),
        (
            "holdout",
            ", ".join(f"{name} {value:.3f}" for name, value in sorted(metrics.items())) or "-",
        ),
        ("version", str(summary.get("deploy.promote", {}).get("version", "unchanged"))),
        ("Airflow run", summary["run"]),
        ("MLflow", f"{settings.mlflow}/#/models/{MODEL}"),
        ("predictions", f"{settings.serving}/v2/models/{MODEL}/infer"),
        ("login", "./evergreen password"),
        ("stop", "./evergreen down"),
    ]
    print_table(("", ""), rows)
