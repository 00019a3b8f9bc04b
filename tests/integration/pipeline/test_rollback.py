"""The way back as people go it: the form's Dag, the command, the real server, serving and messages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from include.registry.pins import find_pin
from include.settings import ROOT
from tests.integration.pipeline.test_verdicts import QUICK
from tests.integration.pipeline.world import World
from tests.models import write_days
from tests.receivers import Hook, start_hook

# Two trainings, five runs of forms and four commands, each a process of its own.
pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]
FORM = {"model": "back", "reason": "complaints [1]"}


@pytest.fixture
def hook() -> Iterator[Hook]:
    with start_hook() as it:
        yield it


def command(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this checkout's command line beside the world's servers."""
    return subprocess.run(
        [sys.executable, "-m", "include.cli", *arguments],
        env=world.environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def asked(world: World, dag: str, **form: Any) -> Any:
    return world.run(f"evergreen__{dag}", FORM | form)


def refused(world: World, dag: str, **form: Any) -> str:
    task, error = asked(world, dag, **form).failure
    assert task == dag
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1
    return error


def test_the_way_back(world: World, hook: Hook) -> None:
    notify = {"notify": {"on": ["rollback"], "to": [hook.url()]}}
    world.add_model("back", **QUICK, **notify)
    assert world.run("back__train").state == "success"
    assert "needs another version than the champion 1" in refused(world, "rollback")
    write_days(world.data("back"), first=40, days=10)
    assert world.run("back__train").state == "success"
    assert world.serves("back") == "2"

    said = refused(world, "rollback", to="1")
    assert "must be among model, version, reason, got to" in said
    assert "must exist in the registry" in refused(world, "rollback", version="99")
    assert find_pin(world.ledger, "back") is None
    assert world.serves("back") == "2"
    assert hook.messages == []

    run = asked(world, "rollback")
    assert run.state == "success", run.errors
    assert world.serves("back") == "1"  # the task has ended only after serving confirmed it
    standing = find_pin(world.ledger, "back")
    assert standing is not None
    assert (standing.version, standing.reason) == ("1", "complaints [1]")
    assert f"evergreen__rollback/{run.run_id}" in standing.actor
    ((title, text),) = hook.messages
    assert title == "back: back to version 1"
    assert "Version 2 was taken back: complaints [1]" in text

    assert asked(world, "unpin").state == "success"
    assert find_pin(world.ledger, "back") is None
    assert asked(world, "unpin").state == "success"  # nothing to release is no failure

    done = command(world, "rollback", "back", "--to", "2", "--reason", "after all", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["from"], result["to"], len(result["replicas"])) == ("1", "2", 1)
    assert result["seconds"] < 30
    assert world.serves("back") == "2"
    assert hook.titles[1:] == ["back: back to version 2"]
    again = command(world, "rollback", "back")
    assert again.returncode == 0, again.stderr
    lines = again.stdout.splitlines()
    assert lines[:2] == [
        "Champion of back: version 2 (was 1).",
        "Nothing is promoted until `./evergreen unpin back`.",
    ]
    assert lines[2].startswith("1 serving process answers with it, ")
    assert len(hook.titles) == 2
    history = command(world, "history", "back").stdout
    assert history.splitlines()[-1].startswith("back is pinned to version 2 since ")
    assert world.ledger.verify("back").ok
