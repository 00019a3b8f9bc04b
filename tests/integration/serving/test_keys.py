"""API keys as users have them: `./evergreen key` beside a real serving process, and a ledger that goes away."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from include.ledger.keys import key_id
from include.settings import ROOT
from tests.servers import free_port, run_process
from tests.unit.serving.registry import wait_for

pytestmark = pytest.mark.server


class Place:
    """A home, and a serving process on it that has no MLflow: keys are asked for before models are."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home, self.port = home, free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if "EVERGREEN" not in name},
            "PYTHONPATH": str(ROOT),
            "EVERGREEN_HOME": str(home),
            "EVERGREEN_MLFLOW_URL": "http://127.0.0.1:1",
            "EVERGREEN_SERVING_PORT": str(self.port),
            **settings,
        }
        home.mkdir(exist_ok=True)

    @contextmanager
    def serving(self) -> Iterator[None]:
        command = [sys.executable, "-m", "include.serving"]
        with run_process(command, self.home / "serving.log", self.environment):
            wait_for(lambda: self.status("/v2/health/live") == 200, 120)
            yield

    def status(self, path: str = "/v2/models", key: str = "") -> int:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=20)
        except httpx.HTTPError:
            return 0
        return answer.status_code

    def key(self, *args: str) -> str:
        finished = subprocess.run(
            [sys.executable, "-m", "include.cli", "key", *args],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return finished.stdout.strip()

    def own(self) -> str:
        return (self.home / "serving-key").read_text().strip()


def test_the_life_of_a_key(tmp_path: Path) -> None:
    place = Place(tmp_path / "home")
    with place.serving():
        wait_for(lambda: place.status() == 200, 60)  # open: this machine only, and no key yet
        key = place.key("add", "ann", "--models", "churn")
        wait_for(lambda: place.status() == 401, 30)
        assert place.status(key=key) == 200
        assert place.status("/v2/models/price", key) == 403
        assert place.status("/metrics", key) == 403
        assert place.status("/metrics", place.own()) == 200
        second = place.key("rotate", key_id(key))
        wait_for(lambda: place.status(key=second) == 200, 30)
        assert place.status(key=key) == 200
        place.key("revoke", key_id(key))
        wait_for(lambda: place.status(key=key) == 401, 30)
    (place.home / "ledger.db").rename(tmp_path / "gone.db")
    (place.home / "ledger.db").mkdir()  # no database any more
    with place.serving():
        wait_for(lambda: place.status(key=second) == 200, 30)
        assert (place.status(), place.status(key=key)) == (401, 401)
    log = (place.home / "serving.log").read_text()
    assert "keys_not_read" in log
    assert "Traceback" not in log
    stored = "".join(p.read_text() for p in (place.home / "serving-cache").glob("*.json"))
    for text in (key, second, place.own()):
        assert text.partition(".")[2] not in log + stored


def test_beyond_this_machine_and_without_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "ledger.db").mkdir()
    own = "k" * 40
    place = Place(tmp_path / "home", EVERGREEN_HOST="0.0.0.0", EVERGREEN_SERVING_KEY=own)
    with place.serving():
        assert place.status() == 401
        assert place.status(key=own) == 200
        assert place.status(key="eg_0123456789ab.x") == 503, "it may be valid"
    assert own not in (place.home / "serving.log").read_text()


def test_a_short_key_in_the_environment(tmp_path: Path) -> None:
    place = Place(tmp_path / "home", EVERGREEN_SERVING_KEY="swordfish")
    finished = subprocess.run(
        [sys.executable, "-m", "include.serving"],
        env=place.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 1
    assert "EVERGREEN_SERVING_KEY: must have at least 16 characters, got 9." in finished.stderr
    assert "swordfish" not in finished.stderr
