import os
import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner

from include.cli import group
from include.cli.group import COMMANDS, LazyGroup, evergreen
from include.errors import DataError
from include.settings import ROOT

CONTEXT = click.Context(evergreen)


@pytest.mark.parametrize("name", evergreen.list_commands(CONTEXT))
def test_each_command_is_as_the_overview_says(name: str) -> None:
    command = evergreen.get_command(CONTEXT, name)
    assert command is not None
    assert command.help, f"{name} has no help"
    result = CliRunner().invoke(evergreen, [name, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: evergreen {name}")
    # `check` and `new` are written for themselves; where a short help is given, it is the overview's.
    if command.short_help:
        assert command.short_help == COMMANDS[name]


def test_the_overview_names_every_module() -> None:
    files = {path.stem for path in (ROOT / "include" / "cli").glob("*.py")}
    commands = files - {"__init__", "__main__", "group", "display"}
    assert commands == set(evergreen.list_commands(CONTEXT))


def test_help_is_quick_and_imports_no_command() -> None:
    code = (
        "import sys; from include.cli.group import evergreen\n"
        "try: evergreen(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = ('rich', 'pydantic', 'httpx', 'pandas', 'include.cli.up', 'include.settings')\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        finished = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        seconds.append(time.monotonic() - began)
    assert finished.stderr.strip() == "[]"
    assert "Start Airflow, MLflow and serving" in finished.stdout
    assert min(seconds) < 1.0  # 0.1 s on an idle machine


def test_an_unknown_command_says_what_it_resembles(runner: CliRunner) -> None:
    result = runner.invoke(evergreen, ["stats"])
    assert result.exit_code == 2
    assert "No such command 'stats'. Did you mean 'status'?" in result.output
    assert "No such command 'xyzzy'.\n" in runner.invoke(evergreen, ["xyzzy"]).output


def test_an_expected_failure_is_one_line(runner: CliRunner) -> None:
    @click.group(cls=LazyGroup)
    def broken() -> None:
        raise DataError("data.csv", "must have rows, got none", "Add some.")

    result = runner.invoke(broken, ["status"])
    assert result.exit_code == 1
    assert result.stderr == "Error: data.csv: must have rows, got none. Add some.\n"
    assert result.stdout == ""


def test_another_failure_is_not_hidden(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_name: str) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(group.importlib, "import_module", broken)
    assert isinstance(runner.invoke(evergreen, ["status"]).exception, ZeroDivisionError)
