"""`evergreen run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from include.cli.display import duration, get_console, json_option, print_json
from include.cli.trigger import MARKS, parse_params

if TYPE_CHECKING:
    from include.settings import Settings
    from include.stack.local_run import LocalResult, LocalTask

_NEEDED = ("mlflow", "serving")


@click.command(short_help="Train a model without the scheduler.")
@click.argument("name")
@click.option(
    "-p",
    "--param",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter of the run; repeatable.",
)
@json_option
@click.pass_context
def command(ctx: click.Context, name: str, pairs: tuple[str, ...], as_json: bool) -> None:
    """Train the model NAME here and now, in one process, without Airflow's scheduler.

    The tasks are those of the Dag, one after the other. MLflow and serving are started when they are
    not up, and stay up. Exit status 1 when the run fails.
    """
    from include.settings import get_settings
    from include.spec import parameters
    from include.stack import lifecycle, local_run

    settings = get_settings()
    _refuse_approvals(name, settings)
    conf = parse_params(pairs, dict.fromkeys(parameters.TRAINING), f"{name}__train")
    console = get_console(stderr=as_json)
    if not settings.mlflow_url:
        lifecycle.up(settings, lifecycle.Reports(say=console.print), only=_NEEDED)
    with console.status("Starting Airflow") as spinner:

        def progress(task: LocalTask) -> None:
            spinner.update(task.name)
            if task.seconds is not None:
                console.print(_line(task), soft_wrap=True)

        result = local_run.run_dag(settings, f"{name}__train", conf, progress)
    if as_json:
        print_json(_as_dict(result))
    else:
        for task in result.tasks:
            if task.error and task.state == "failed":
                console.print(
                    f"{task.name}: {task.error}", style="red", markup=False, soft_wrap=True
                )
        if not result.tasks:
            console.print("Airflow ran no task.", style="red")
        console.print(
            f"Run {'success' if result.succeeded else 'failed'}. Log: {result.log}", soft_wrap=True
        )
    if not result.succeeded:
        ctx.exit(1)


def _refuse_approvals(name: str, settings: Settings) -> None:
    from include.errors import SpecError
    from include.spec.loader import display_path, find_spec, load_spec

    path = find_spec(name, settings)
    if load_spec(path, settings).register_.approval != "auto":
        raise SpecError(
            f"{display_path(path)}: register.approval",
            "must be auto for `run`, got approvers who can only answer in Airflow's UI",
            f"Use `./evergreen trigger {name}`.",
        )


def _line(task: LocalTask) -> str:
    note = "" if task.state == "success" else f" {task.state.replace('_', ' ')}"
    return f"  {MARKS.get(task.state, '·')} {task.name:<32}{duration(task.seconds):>8}{note}"


def _as_dict(result: LocalResult) -> dict[str, Any]:
    keys = ("task_id", "map_index", "state", "seconds", "error")
    return {
        "state": "success" if result.succeeded else "failed",
        "tasks": [{key: getattr(task, key) for key in keys} for task in result.tasks],
        "log": result.log,
    }
