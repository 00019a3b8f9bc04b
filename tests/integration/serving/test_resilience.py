"""Real parts that fail while clients ask: no answer may suffer from what the answer does not need."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from include.registry.rollouts import TAG_ROLLOUT, Rollout
from tests.integration.serving.conftest import Load, World, champion, kill, serving, state
from tests.servers import free_port
from tests.unit.serving.registry import wait_for

pytestmark = pytest.mark.server
SWAPS = 50


def metric(port: int, name: str) -> float:
    """The sum of a metric over its labels."""
    page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    lines = [each for each in page.splitlines() if each.partition("{")[0].split()[0] == name]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_fifty_swaps_under_load_fail_no_request(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port, waits = free_port(), list[float]()
    with serving(tmp_path, world.url, port):
        wait_for(lambda: champion(port) == "1", 120)
        with Load(port, clients=2) as load:
            for number in range(SWAPS):
                version = "2" if number % 2 == 0 else "1"
                world.promote(version)
                moved = time.monotonic()
                wait_for(lambda version=version: champion(port) == version, 60)
                waits.append(time.monotonic() - moved)
    with capsys.disabled():
        print(
            f"\n{SWAPS} swaps, {load.sent} requests, {sum(load.failed.values())} failed; "
            f"swap seen after {sorted(waits)[SWAPS // 2]:.2f} s (median), {max(waits):.2f} s (longest); "
            f"slowest request {load.slowest * 1000:.0f} ms"
        )
    assert load.failed == {}
    assert {version for _, version in load.answers} == {"1", "2"}
    assert load.sent > SWAPS


def test_it_serves_and_restarts_while_mlflow_is_dead_and_follows_when_it_is_back(
    world: World, tmp_path: Path
) -> None:
    port = free_port()
    rollout = Rollout("r1", "2", "canary", 0.5)
    from include.registry.gateway import Registry

    client = Registry(world.url).client
    client.set_registered_model_tag("churn", TAG_ROLLOUT, rollout.to_tag())
    try:
        with serving(tmp_path, world.url, port) as process:
            wait_for(lambda: (state(port).get("rollout") or {}).get("share") == 0.5, 120)
            with Load(port, clients=2) as load:
                world.stop_mlflow()
                wait_for(lambda: state(port).get("registry_error"), 60)
                count = load.sent
                wait_for(lambda: load.sent > count + 50, 60)
            assert load.failed == {}
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        with serving(tmp_path, world.url, port):
            wait_for(lambda: champion(port) == "1" and state(port).get("rollout"), 120)
            with Load(port, clients=2) as load:
                wait_for(lambda: load.sent > 50, 60)
                assert {version for _, version in load.answers} == {"1", "2"}  # it routes the same
                world.start_mlflow()
                client.delete_registered_model_tag("churn", TAG_ROLLOUT)
                world.promote("2")
                wait_for(lambda: champion(port) == "2" and not state(port)["registry_error"], 60)
            assert load.failed == {}
    finally:
        if world._server is None:
            world.start_mlflow()
        world.promote("1")


def test_a_replica_killed_under_load_comes_back_from_its_own_disk(
    world: World, tmp_path: Path
) -> None:
    """What the supervisor of the stack does: another process, at once, on the same home."""
    port = free_port()
    with serving(tmp_path, world.url, port) as process:
        wait_for(lambda: champion(port) == "1", 120)
        with Load(port, clients=2) as load:
            wait_for(lambda: load.sent > 30, 60)
            kill(process.pid)
            process.wait(10)
    assert sum(load.failed.values()) > 0
    with serving(tmp_path, world.url, port):
        wait_for(lambda: champion(port) == "1", 120)
        with Load(port, clients=2) as load:
            wait_for(lambda: load.sent > 30, 60)
        assert load.failed == {}
    assert "Traceback" not in (tmp_path / "serving.log").read_text()


@contextmanager
def full_disk(folder: Path) -> Iterator[Path]:
    """A file system that is full at once."""
    folder.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=64k tmpfs {folder} 2>/dev/null"):
        pytest.skip("needs the right to mount a small file system")
    try:
        with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while True:  # until nothing goes in any more
                file.write(b"x" * 4096)
        yield folder
    finally:
        os.system(f"umount -l {folder}")


def test_a_full_log_sink_costs_rows_of_the_log_and_no_request(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with (
        full_disk(tmp_path / "store") as store,
        serving(tmp_path / "home", world.url, port, store=store, log_seconds=0.1) as process,
    ):
        wait_for(lambda: champion(port) == "1", 120)
        with Load(port, clients=2) as load:
            wait_for(lambda: metric(port, "evergreen_serving_log_write_failures_total") > 0, 60)
            count = load.sent
            wait_for(lambda: load.sent > count + 50, 60)
        assert load.failed == {}
        assert metric(port, "evergreen_serving_log_written_rows_total") == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
    log = (tmp_path / "home" / "serving.log").read_text()
    assert "No space left" in log
    assert "prediction_log_lost" in log  # what the store never took is said, with a number
    assert "Traceback" not in log
