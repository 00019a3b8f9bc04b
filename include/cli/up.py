"""`evergreen up`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from include.stack.lifecycle import Up
    from include.stack.status import Status


@click.command(short_help="Start Airflow, MLflow and serving on this machine.")
@click.option(
    "--timeout",
    default=240.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up when something does not answer within this time.",
)
def command(timeout: float) -> None:
    r"""Start Airflow, MLflow and serving on this machine, and wait until all of them answer.

    Everything stays in .evergreen (EVERGREEN_HOME). Calling it again is harmless: what runs is left
    alone, what stopped is started. `evergreen down` stops it.

    The ports are EVERGREEN_AIRFLOW_PORT (8080), EVERGREEN_MLFLOW_PORT (5001) and
    EVERGREEN_SERVING_PORT (8090).
    """
    start_stack(timeout)


def start_stack(timeout: float = 240.0) -> Up:
    """Start the stack with progress on the terminal, then print where it is and, once, the login.

    Args:
        timeout: Seconds until giving up.

    Raises:
        ServiceError: See `include.stack.lifecycle.up`.
    """
    from include.cli.display import get_console
    from include.settings import get_settings
    from include.stack import lifecycle

    console = get_console()
    with console.status("Starting") as spinner:
        shown: dict[str, str] = {}

        def progress(status: Status) -> None:
            waiting = [i.component.name for i in status.components if not i.healthy]
            spinner.update(f"Waiting for {', '.join(waiting)}" if waiting else "Ready")
            for item in status.components:
                said = "ready" if item.healthy else item.process.state
                if shown.get(item.component.name) == said:
                    continue
                shown[item.component.name] = said
                if said == "ready":
                    console.print(f"  [green]✓[/] {item.component.title}")
                elif said == "BACKOFF":
                    console.print(f"  [yellow]![/] {item.component.name} stopped, trying again")

        reports = lifecycle.Reports(say=console.print, progress=progress)
        result = lifecycle.up(get_settings(), reports, timeout=timeout)
    console.print(
        "Already up. Other settings count after `./evergreen down` and `up`."
        if result.already
        else f"Up after {result.seconds:.0f} s."
    )
    _print_places(result)
    return result


def _print_places(result: Up) -> None:
    from include.cli.display import get_console
    from include.stack.layout import get_layout

    console, settings = get_console(), result.settings
    console.print(f"\n  Airflow      http://127.0.0.1:{settings.airflow_port}")
    console.print(f"  MLflow       http://127.0.0.1:{settings.mlflow_port}")
    console.print(f"  Predictions  http://127.0.0.1:{settings.serving_port}\n")
    layout = get_layout(settings.home)
    if not layout.login_shown.exists():
        console.print(f"  Login        admin / {result.credentials.admin}")
        console.print(
            "               shown this once; `./evergreen password` shows it again\n", style="dim"
        )
        layout.login_shown.touch(mode=0o600)
