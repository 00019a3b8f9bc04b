"""Fifty models in a real MLflow, of which a few fit into memory."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from include.registry.gateway import Registry
from include.serving.follower import Follower
from include.serving.lookup import Lookup
from include.serving.source import RegistrySource
from include.serving.telemetry import Metrics
from tests.integration.serving.conftest import World
from tests.unit.serving.registry import EXAMPLE, wait_for

pytestmark = pytest.mark.server
MODELS, ROOM = 50, 10


def copies(world: World, count: int) -> list[str]:
    """Register churn's first version under further names, as champion of each; return the names."""
    client = Registry(world.url).client
    like = client.get_model_version("churn", "1")
    names = [f"copy{number:03}" for number in range(count)]
    for name in names:
        client.create_registered_model(name)
        client.create_model_version(
            name,
            like.source,
            run_id=like.run_id,
            tags=like.tags,
            model_id=like.source.rpartition("/")[2],
        )
        client.set_registered_model_alias(name, "champion", "1")
    return names


def test_fifty_models_of_which_ten_fit(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = copies(world, MODELS)
    source = RegistrySource(Registry(world.url))
    source.models()
    began, used = time.perf_counter(), time.thread_time()
    assert set(source.models()) >= {*names, "churn"}
    poll_ms, poll_cpu_ms = (
        (time.perf_counter() - began) * 1000,
        (time.thread_time() - used) * 1000,
    )
    size = source.load("churn", "1", tmp_path / "sized").predictor.size_bytes
    follower = Follower(source, tmp_path / "cache", Metrics(), memory_bytes=int(size * ROOM))
    began = time.perf_counter()
    follower.start()
    try:
        wait_for(lambda: follower.ready, 120)
        ready = time.perf_counter() - began
        in_memory = [name for name, served in follower.table.items() if served.champion]
        assert len(in_memory) == ROOM
        asleep = [name for name, served in follower.table.items() if served.asleep]
        assert len(asleep) == MODELS + 1 - ROOM
        began = time.perf_counter()
        served = asyncio.run(Lookup(follower, patience=60).awake(asleep[-1]))
        first = time.perf_counter() - began
        assert served.champion is not None
        assert len(served.champion.predict(EXAMPLE).predict) == 3
        wait_for(lambda: follower.memory.used_bytes <= follower.memory.limit_bytes)
        with capsys.disabled():
            print(
                f"\n{MODELS} models in MLflow, {ROOM} in memory: ready after {ready:.1f} s; "
                f"a poll {poll_ms:.0f} ms, {poll_cpu_ms:.1f} ms of them this process; "
                f"first request to a sleeping model {first * 1000:.0f} ms"
            )
    finally:
        follower.stop()
