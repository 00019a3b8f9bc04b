"""`evergreen demo`: the whole way from upstream data to live predictions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from include.settings import Settings
    from include.stack.airflow_client import AirflowClient, RunResult

MODEL = "churn"
DAYS = 90
_SHOWN = 5


@click.command(short_help="Show a model trained, judged, deployed and answering.")
@click.option("--down", is_flag=True, help="Stop the stack at the end.")
@click.pass_context
def command(ctx: click.Context, down: bool) -> None:
    """Start the stack, play three months of upstream data, train `churn` over the REST API, and predict.

    The stack is left running; `evergreen down` stops it. Run it again tomorrow: there is a new day of
    data, and the gate decides whether the new model takes over.
    """
    from include.cli.display import get_console
    from include.cli.trigger import follow
    from include.cli.up import start_stack
    from include.settings import get_settings
    from include.stack.airflow_client import open_client
    from include.stack.status import running_settings

    console, settings = get_console(), get_settings()
    try:
        console.rule("1  Start Airflow, MLflow and serving", align="left")
        start_stack()
        console.rule("2  Upstream delivers its daily batches", align="left")
        files = simulate_upstream()
        console.print(
            f"{len(files)} files in {files[0].parent}, {files[0].stem} to {files[-1].stem}"
        )
        console.rule("3  The upstream job asks for a training run over REST", align="left")
        with open_client(settings) as airflow:
            dag_id = f"{MODEL}__train"
            airflow.wait_for_dag(dag_id, timeout=60)
            run = airflow.trigger(
                dag_id, {"reason": "demo: new batches", "trigger": "api"}, _run_id()
            )
            result = follow(airflow, dag_id, run["dag_run_id"])
            if result.state != "success":
                ctx.exit(1)
            summary = _summary(airflow, result)
        console.rule("4  The live endpoint answers", align="left")
        settings = running_settings(settings)  # the ports of a stack that ran before
        show_predictions(settings.serving, files[-1])
        console.rule("5  What there is now", align="left")
        _closing(summary, settings)
    finally:
        if down:
            from include.stack.lifecycle import down as stop_stack

            stop_stack(settings)
            console.print("The stack is stopped.")


def simulate_upstream(now: datetime | None = None) -> list[Path]:
    """Write three months of daily batches to where the spec reads them; days that are there stay.

    Args:
        now: The last batch is of the day before; None is the present.
    """
    from include.settings import get_settings
    from include.simulator.batches import write_batches
    from include.spec.loader import find_spec, load_spec
    from include.spec.schema import FileSource

    settings = get_settings()
    source = load_spec(find_spec(MODEL, settings), settings).ingest.source
    if not isinstance(source, FileSource) or not isinstance(source.path, str):
        from include.errors import SpecError

        raise SpecError(
            f"{MODEL}.yaml: ingest.source",
            "must be one glob of files for the demo, got another",
            "Restore it.",
        )
    today = (now or datetime.now(UTC)).date()
    folder = settings.resolve(source.path).parent
    return write_batches(folder, today - timedelta(days=DAYS), DAYS)


def _run_id() -> str:
    return f"upstream__{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}"


def _summary(airflow: AirflowClient, result: RunResult) -> dict[str, Any]:
    """Collect what the tasks of a run said; a skipped run says nothing."""
    from include.errors import SpecError

    found: dict[str, Any] = {}
    for task in ("admit", "ingest", "evaluate", "register", "deploy"):
        try:
            found[task] = airflow.xcom(result.dag_id, result.run_id, task)
        except SpecError:
            continue
    found["run"] = f"{airflow.url}/dags/{result.dag_id}/runs/{result.run_id}"
    return found


def show_predictions(serving: str, batch: Path) -> None:
    """Ask the endpoint about a few customers of a batch and print its answers.

    Args:
        serving: Base URL.
        batch: Parquet file of customers.
    """
    import pyarrow.parquet as pq

    from include.cli.display import get_console, print_table
    from include.deploy.client import ServingClient
    from include.errors import ServiceError

    rows = pq.read_table(batch).slice(0, _SHOWN).to_pydict()
    with ServingClient(serving) as client:
        described = client.metadata(MODEL)
        body = {"id": "demo", "inputs": _inputs(described.body.get("inputs", []), rows)}
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
        ("customer", *shown, "churn risk", "left?"),
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
            "data": rows[item["name"]],
        }
        for item in described
    ]


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
        ("version", str(summary.get("deploy", {}).get("version", "unchanged"))),
        ("Airflow run", summary["run"]),
        ("MLflow", f"{settings.mlflow}/#/models/{MODEL}"),
        ("predictions", f"{settings.serving}/v2/models/{MODEL}/infer"),
        ("login", "./evergreen password"),
        ("stop", "./evergreen down"),
    ]
    print_table(("", ""), rows)
