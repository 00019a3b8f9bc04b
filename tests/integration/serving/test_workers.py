"""Several real serving processes on one port, and what becomes of them when one is killed."""

from __future__ import annotations

import shutil
import signal
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from include.ledger.ledger import Ledger
from include.serving.workers import metrics_folder
from tests.integration.serving.conftest import Load, World, champion, children, kill, serving
from tests.servers import free_port
from tests.unit.serving.registry import wait_for

pytestmark = pytest.mark.server


def live(home: Path) -> list[str]:
    replicas = Ledger(f"sqlite:///{home / 'ledger.db'}").live_replicas(datetime.now(UTC))
    return [r.id for r in replicas if r.state["models"].get("churn", {}).get("champion") == "1"]


def answered(port: int) -> float:
    """Requests answered, over all workers; this number is shared at once, others once a second."""
    page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    counts = [line for line in page.splitlines() if "_request_seconds_count{" in line]
    return sum(float(line.rpartition(" ")[2]) for line in counts if 'model="churn"' in line)


def bindable(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


def test_a_killed_worker_takes_only_its_own_requests_along(world: World, tmp_path: Path) -> None:
    port, home = free_port(), tmp_path / "home"
    with serving(home, world.url, port, serving_workers=2) as process:
        wait_for(lambda: champion(port) == "1" and len(live(home)) == 2, 90)
        first = children(process.pid)
        assert len(first) == 2
        with Load(port, clients=4, reconnect=True) as load:
            wait_for(lambda: load.sent > 50, 60)
            assert list(metrics_folder(home, port).glob("*.db"))
            kill(first[0])
            (new,) = wait_for(lambda: set(children(process.pid)) - set(first), 60)
            wait_for(lambda: any(f"/{new}/" in replica for replica in live(home)), 90)
            count = load.sent
            wait_for(lambda: load.sent > count + 50, 60)
        broken = sum(load.failed.values())
        assert broken <= 4, load.answers  # one per client at most: what was under way
        assert {kind for kind, _ in load.failed} <= {"RemoteProtocolError", "ReadError"}
        good = load.answers["200", "1"]
        assert good > 100
        # A request may be counted and its answer lost with the worker; none of the others is forgotten.
        assert good <= answered(port) <= good + broken
        wait_for(lambda: len(live(home)) == 2, 30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert live(home) == []
    assert not metrics_folder(home, port).exists()
    assert not list(home.glob("serving-metrics*"))
    assert "Traceback" not in (home / "serving.log").read_text()


def test_workers_end_with_a_killed_parent_and_free_the_port(world: World, tmp_path: Path) -> None:
    port, home = free_port(), tmp_path / "home"
    with serving(home, world.url, port, serving_workers=2) as process:
        wait_for(lambda: champion(port) == "1" and len(live(home)) == 2, 90)
        workers = children(process.pid)
        kill(process.pid)
        started = time.monotonic()
        wait_for(lambda: bindable(port), 30)
        wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers), 30)
        assert time.monotonic() - started < 15
        assert live(home) == []  # they ended in good order
        shutil.rmtree(metrics_folder(home, port))  # a parent started here again would do so


def test_one_process_is_one_process(world: World, tmp_path: Path) -> None:
    port, home = free_port(), tmp_path / "home"
    with serving(home, world.url, port) as process:
        wait_for(lambda: champion(port) == "1", 90)
        assert children(process.pid) == []
        assert len(live(home)) == 1


def test_settings_that_cannot_work_end_all(tmp_path: Path) -> None:
    home = tmp_path / "home"
    settings = {"serving_workers": 2, "serving_key": "short"}
    with serving(home, "http://127.0.0.1:1", free_port(), **settings) as process:
        assert process.wait(60) == 1
    assert "must have at least 16 characters" in (home / "serving.log").read_text()
