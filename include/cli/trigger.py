"""`evergreen trigger`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from include.cli.display import duration, get_console, json_option, print_json

if TYPE_CHECKING:
    from include.stack.airflow_client import AirflowClient, RunResult, TaskState

MARKS = {
    "success": "[green]✓[/]",
    "failed": "[red]✗[/]",
    "upstream_failed": "[red]-[/]",
    "skipped": "[dim]-[/]",
    "up_for_retry": "[yellow]↻[/]",
    "awaiting_input": "[yellow]?[/]",
}


@click.command(short_help="Have Airflow train a model.")
@click.argument("name")
@click.option(
    "-p",
    "--param",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter of the run; repeatable.",
)
@click.option("--run-id", help="Id of the run; the same id twice is refused instead of run twice.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Follow it to its end.")
@click.option("--unpause", is_flag=True, help="Unpause the Dag first if it is paused.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Give up waiting; the run goes on.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    name: str,
    pairs: tuple[str, ...],
    run_id: str | None,
    wait: bool,
    unpause: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Have Airflow train the model NAME now, over its REST API, and show how each task goes.

    NAME is a model, or the id of any of its Dags. Exit status 1 when the run fails.
    """
    from include.settings import get_settings
    from include.stack.airflow_client import open_client

    dag_id = get_dag_id(name)
    with open_client(get_settings()) as client:
        dag = client.wait_for_dag(dag_id)
        conf = parse_params(pairs, dag.get("params") or {}, dag_id)
        _ensure_active(client, dag, unpause)
        run = client.trigger(dag_id, conf, run_id)
        if not wait:
            _print_started(client, run, as_json)
            return
        result = follow(client, dag_id, run["dag_run_id"], quiet=as_json, timeout=timeout)
        if as_json:
            print_json(_as_dict(result))
        if result.state != "success":
            ctx.exit(1)


def get_dag_id(name: str) -> str:
    """Return the id of a model's training Dag; an id with `__` in it is taken as it is.

    Raises:
        SpecError: There is no such model, or its spec is wrong and so it has no training Dag.
    """
    if "__" in name:
        return name
    from include.spec.loader import find_spec, load_spec

    load_spec(find_spec(name))
    return f"{name}__train"


def parse_params(pairs: Sequence[str], known: Mapping[str, Any], dag_id: str) -> dict[str, Any]:
    """Return the parameters as values: JSON where they are JSON, text otherwise.

    Args:
        pairs: `key=value` texts.
        known: The Dag's parameters. Airflow itself takes unknown ones without a word.
        dag_id: For the error.

    Raises:
        SpecError: A pair has no `=`, or the Dag has no such parameter.
    """
    from include.errors import SpecError

    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise SpecError(
                "--param", f"must be KEY=VALUE, got {pair!r}", "Write for example force=true."
            )
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = (
                f"Did you mean {close[0]!r}?"
                if close
                else f"It takes {', '.join(known) or 'none'}."
            )
            raise SpecError(f"--param {key}", f"must be a parameter of {dag_id}, got another", hint)
        try:
            values[key] = json.loads(text)
        except ValueError:
            values[key] = text
    return values


def _ensure_active(client: AirflowClient, dag: Mapping[str, Any], unpause: bool) -> None:
    from include.errors import SpecError

    if not dag["is_paused"]:
        return
    if not unpause:
        raise SpecError(
            f"Dag {dag['dag_id']}",
            "must not be paused, got a paused one whose run would only wait",
            "Unpause it in Airflow's UI, or add --unpause.",
        )
    client.set_paused(dag["dag_id"], False)


def _print_started(client: AirflowClient, run: Mapping[str, Any], as_json: bool) -> None:
    dag_id, run_id = run["dag_id"], run["dag_run_id"]
    if as_json:
        print_json({"dag_id": dag_id, "run_id": run_id, "state": run["state"]})
    else:
        click.echo(f"Started {run_id}\n{client.url}/dags/{dag_id}/runs/{run_id}")


def _line(task: TaskState) -> str:
    mark = MARKS.get(task.state or "", "·")
    took = duration(task.seconds) if task.seconds is not None else ""
    note = "" if task.state == "success" else f" {(task.state or 'waiting').replace('_', ' ')}"
    return f"  {mark} {task.name:<32}{took:>8}{note}"


def follow(
    client: AirflowClient,
    dag_id: str,
    run_id: str,
    *,
    quiet: bool = False,
    timeout: float | None = None,
) -> RunResult:
    """Show a run's tasks as they end, and say what went wrong if something did.

    Args:
        client: Airflow.
        dag_id: The Dag.
        run_id: The run.
        quiet: Show nothing.
        timeout: Seconds to wait; None waits for as long as it takes.
    """
    console = get_console()
    if quiet:
        return client.wait(dag_id, run_id, timeout=timeout)
    console.print(f"Run {run_id} of {dag_id}", markup=False, soft_wrap=True)
    done: dict[tuple[str, int], str] = {}
    ended = {"success", "failed", "skipped", "upstream_failed", "up_for_retry", "awaiting_input"}
    with console.status("queued") as spinner:

        def progress(state: str, tasks: Sequence[TaskState]) -> None:
            for task in tasks:
                key = (task.task_id, task.map_index)
                told = f"{task.state} {task.try_number}"
                if task.state in ended and done.get(key) != told:
                    done[key] = told
                    console.print(_line(task))
            running = ", ".join(task.name for task in tasks if task.state == "running")
            spinner.update(running or state)

        result = client.wait(dag_id, run_id, progress, timeout=timeout)
    _print_verdict(client, result)
    for task in result.failed_tasks:
        words = client.last_words(dag_id, run_id, task)
        console.print(
            f"{task.name}: {words or 'failed, see its log.'}",
            style="red",
            markup=False,
            soft_wrap=True,
        )
    console.print(
        f"Run {result.state}: {client.url}/dags/{dag_id}/runs/{run_id}",
        markup=False,
        soft_wrap=True,
    )
    return result


def _print_verdict(client: AirflowClient, result: RunResult) -> None:
    states = {task.task_id: task.state for task in result.tasks}
    skipped = next((t for t in ("admit", "ingest") if states.get(t) == "skipped"), None)
    if states.get("evaluate") == "success":
        verdict = client.xcom(result.dag_id, result.run_id, "evaluate")
        text = f"{verdict['verdict']}: {verdict['reason']}"
    elif skipped:
        reason = client.xcom(result.dag_id, result.run_id, skipped, "skip_reason")
        text = f"Nothing was trained: {reason}"
    else:
        return
    get_console().print(text, markup=False, soft_wrap=True)


def _as_dict(result: RunResult) -> dict[str, Any]:
    return {
        "dag_id": result.dag_id,
        "run_id": result.run_id,
        "state": result.state,
        "tasks": [vars(task) for task in result.tasks],
    }
