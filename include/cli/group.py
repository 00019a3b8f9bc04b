"""The `evergreen` command: names, one line each, and nothing imported before it is asked for."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from typing import Any

import click

from include.errors import EvergreenError

#: Every command in the order of the help. `include/cli/<name>.py` holds it as `command`; repeating its
#: first line here keeps the overview from importing them all. A test compares the two.
COMMANDS = {
    "setup": "Install what Evergreen needs and stop there.",
    "demo": "Show a model trained, judged, deployed and answering.",
    "up": "Start Airflow, MLflow and serving on this machine.",
    "down": "Stop them.",
    "status": "Say what runs, and where.",
    "logs": "Show the end of a component's log.",
    "password": "Show the logins of the embedded stack.",
    "key": "Manage the API keys of serving.",
    "new": "Profile a data file and write a spec for it.",
    "check": "List every problem of every spec.",
    "trigger": "Have Airflow train a model.",
    "run": "Train a model without the scheduler.",
    "history": "Show what was decided about a model, and by whom.",
    "lineage": "Show what a version was made from.",
    "rollout": "Show a challenger's rollout, or end it.",
    "rollback": "Let an earlier version serve again.",
    "unpin": "Let a rolled-back model be promoted again.",
    "freeze": "Stop retraining a model.",
    "unfreeze": "Let a frozen model be retrained again.",
    "reproduce": "Build a version again and compare.",
    "export": "Write a version as files for other devices.",
    "drift": "Compare live predictions with the training data once.",
    "forget": "Remove one entity from logs, labels and refused data.",
    "simulate": "Play days of the simulated world.",
}


def _module(name: str) -> str:
    return f"include.cli.{name.replace('-', '_')}"


class LazyGroup(click.Group):
    """A group whose commands are modules, imported when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands that are there, in the order of the help."""
        del ctx
        return [name for name in COMMANDS if importlib.util.find_spec(_module(name))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None when there is none of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(_module(cmd_name)).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for a name that is none, say which one it resembles."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an expected failure is one line on standard error and exit status 1."""
        try:
            return super().invoke(ctx)
        except EvergreenError as error:
            click.secho(f"Error: {error}", fg="red", err=True)
            ctx.exit(1)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def evergreen() -> None:
    """Keep machine-learning models fresh: one YAML file per model, Airflow does the rest."""
