"""A thousand models: bounded memory, loading at the first request, and ticks that cost nothing."""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from include.registry.rollouts import Rollout
from include.serving.follower import Follower
from include.serving.lookup import Lookup
from include.serving.rejection import RequestError
from include.serving.served import Served, Wanted
from include.serving.telemetry import Metrics
from tests.unit.serving.many import ManyModels
from tests.unit.serving.registry import wait_for

KB = 1000


@pytest.fixture
def follow(tmp_path: Path) -> Iterator[Callable[..., Follower]]:
    running: list[Follower] = []

    def start(source: ManyModels, *, room: int, **options: Any) -> Follower:
        follower = Follower(
            source,
            tmp_path / "cache",
            Metrics(),
            poll_seconds=0.05,
            memory_bytes=room * source.size_bytes,
            **options,
        )
        running.append(follower)
        follower.start()
        wait_for(lambda: follower.ready, 60)
        return follower

    yield start
    for follower in running:
        follower.stop()


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def awake(follower: Follower) -> set[str]:
    return {name for name, served in follower.table.items() if served.champion}


def ask(follower: Follower, name: str, patience: float = 10.0) -> Served:
    """What a request does to find its model."""
    return asyncio.run(Lookup(follower, patience).awake(name))


def test_champions_are_loaded_while_they_fit(
    follow: Callable[..., Follower],
) -> None:
    follower = follow(ManyModels(10), room=4)
    assert awake(follower) == {"m0000", "m0001", "m0002", "m0003"}
    assert follower.memory.used_bytes == 4 * KB
    assert follower.table["m0009"].asleep
    assert not follower.table["m0000"].asleep


def test_a_request_wakes_its_model_and_the_longest_unasked_goes(
    follow: Callable[..., Follower],
) -> None:
    follower = follow(ManyModels(10), room=3)
    for name in ("m0002", "m0000"):
        assert follower.table[name].engine(None)
    served = ask(follower, "m0007")
    assert served.champion is not None
    assert served.champion.model.name == "m0007"
    wait_for(lambda: awake(follower) == {"m0000", "m0002", "m0007"})
    ask(follower, "m0008")
    wait_for(lambda: awake(follower) == {"m0000", "m0007", "m0008"})
    assert follower.memory.used_bytes == 3 * KB


def test_many_requests_for_one_model_load_it_once(
    follow: Callable[..., Follower],
) -> None:
    source = ManyModels(5)
    follower = follow(source, room=1)
    lookup = Lookup(follower)

    async def all_at_once() -> list[Served]:
        return await asyncio.gather(*(lookup.awake("m0004") for _ in range(50)))

    assert all(served.champion for served in asyncio.run(all_at_once()))
    assert source.loads["m0004"] == 1


def test_waiting_for_a_model_is_bounded_in_time_and_number(
    follow: Callable[..., Follower],
) -> None:
    source = ManyModels(5)
    follower = follow(source, room=1)
    source.hangs.clear()
    try:
        started = time.monotonic()
        assert ask(follower, "m0004", patience=0.1).champion is None
        assert time.monotonic() - started < 5
        lookup = Lookup(follower, 0.5)

        async def crowd() -> list[Any]:
            calls = (lookup.awake("m0003") for _ in range(300))
            return await asyncio.gather(*calls, return_exceptions=True)

        turned_away = [each for each in asyncio.run(crowd()) if isinstance(each, RequestError)]
        assert len(turned_away) == 300 - 256
        assert turned_away[0].status == 503
    finally:
        source.hangs.set()
    assert ask(follower, "m0004").champion is not None


def test_a_model_that_does_not_load_is_not_waited_for(
    follow: Callable[..., Follower],
) -> None:
    source = ManyModels(5)
    source.away.add("m0004")
    follower = follow(source, room=1)
    served = ask(follower, "m0004")
    assert served.champion is None
    assert "must answer" in served.failures["1"].error


def test_whoever_moves_a_sleeping_champion_sees_it_answer(
    follow: Callable[..., Follower],
) -> None:
    source = ManyModels(5)
    follower = follow(source, room=2)
    source.wanted["m0004"] = Wanted({"champion": "2"})
    wait_for(lambda: (of := follower.table["m0004"]).champion and of.champion.version == "2")


def test_a_model_on_trial_is_never_let_go(
    follow: Callable[..., Follower],
) -> None:
    source = ManyModels(6)
    source.wanted["m0005"] = Wanted({"champion": "1"}, Rollout("r", "2", "canary", 0.1))
    follower = follow(source, room=3)
    assert "m0005" in awake(follower)
    for name in ("m0001", "m0002", "m0003", "m0004"):
        ask(follower, name)
        wait_for(lambda: follower.memory.used_bytes <= 3 * KB)
    assert follower.table["m0005"].rollout is not None
    source.wanted["m0005"] = Wanted({"champion": "2"})
    wait_for(lambda: follower.table["m0005"].rollout is None)
    follower.table["m0005"].use.at = 0.0  # it has its turn again
    ask(follower, "m0000")
    wait_for(lambda: follower.table["m0005"].asleep)


def test_a_thousand_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = ManyModels(1000)
    follower = Follower(
        source, tmp_path, Metrics(), poll_seconds=3600, memory_bytes=100 * source.size_bytes
    )
    before, started = resident_mb(), time.monotonic()
    wait_for(lambda: follower.tick() or follower.ready, 120)
    until_ready, grown = time.monotonic() - started, resident_mb() - before
    assert len(awake(follower)) == 100
    assert len(follower.table) == 1000

    begun = time.process_time()
    for _ in range(200):
        follower.tick()
    idle_ms = (time.process_time() - begun) * 1000 / 200
    begun = time.process_time()
    follower._follow({name: Wanted(dict(of.aliases)) for name, of in source.wanted.items()})
    follower.tick()
    same_ms = (time.process_time() - begun) * 1000
    follower.stop()
    with capsys.disabled():
        print(
            f"\n1,000 models, 100 in memory: ready after {until_ready:.2f} s, {grown:.0f} MB more, "
            f"a tick {idle_ms:.3f} ms, a tick after an equal poll {same_ms:.2f} ms"
        )
    assert idle_ms < 1
    assert same_ms < 50


def test_loading_all_of_them_makes_nobody_wait_for_the_rest(tmp_path: Path) -> None:
    """A request goes ahead of the models that are loaded because there is room for them."""
    source = ManyModels(300)
    follower = Follower(source, tmp_path / "other", Metrics(), poll_seconds=0.05)
    source.hangs.clear()
    follower.start()
    try:
        wait_for(lambda: follower.table)
        threading.Timer(0.2, source.hangs.set).start()
        assert ask(follower, "m0299").champion is not None
        assert len(source.loads) < 20
    finally:
        source.hangs.set()
        follower.stop()
