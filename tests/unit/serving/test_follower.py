from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from include.registry.rollouts import Rollout
from include.serving.follower import Follower
from tests.unit.serving.registry import CHURN, EXAMPLE, MemoryRegistry, wait_for

Make = Callable[..., Follower]


@pytest.fixture
def churn(registry: MemoryRegistry, pipelines: dict[str, Any]) -> MemoryRegistry:
    """Versions 1 and 2 of churn; 1 is champion."""
    registry.add("churn", "1", CHURN, pipelines["churn"])
    registry.add("churn", "2", CHURN, pipelines["churn2"])
    registry.set("churn", "champion", "1")
    return registry


def champion(follower: Follower, name: str = "churn") -> str | None:
    served = follower.table.get(name)
    return served.champion.version if served and served.champion else None


def started(make: Make, **options: Any) -> Follower:
    follower = make(**options)
    follower.start()
    wait_for(lambda: follower.ready)
    return follower


def events_of(caplog: pytest.LogCaptureFixture, version: str) -> list[str]:
    """Return what serving logged about a version, in order; other loggers write to the same place."""
    lines = [r.message for r in caplog.records if r.name == "evergreen.serving"]
    events = [orjson.loads(line) for line in lines]
    return [event["event"] for event in events if event.get("version") == version]


def test_a_new_champion_is_picked_up_and_the_old_one_freed(
    churn: MemoryRegistry, make_follower: Make
) -> None:
    follower = started(make_follower)
    assert champion(follower) == "1"
    churn.set("churn", "champion", "2")
    wait_for(lambda: champion(follower) == "2")
    assert [engine.version for engine in follower.table["churn"].engines] == ["2"]


def test_a_challenger_becomes_champion_without_being_loaded_again(
    churn: MemoryRegistry, make_follower: Make
) -> None:
    churn.set("churn", "challenger", "2")
    follower = started(make_follower)
    served = follower.table["churn"]
    assert served.engine("2") is served.challenger is not None
    churn.set("churn", "champion", "2")
    churn.set("churn", "challenger", None)
    wait_for(lambda: champion(follower) == "2")
    assert churn.loads == [("churn", "1"), ("churn", "2")]


def test_aliases_that_move_one_by_one_cost_no_second_load(
    churn: MemoryRegistry, make_follower: Make
) -> None:
    churn.set("churn", "challenger", "2")
    clock = Clock()
    follower = started(make_follower, clock=clock)
    churn.set("churn", "challenger", None)
    wait_for(lambda: clock.tick(1.0) and follower.table["churn"].engine("2") is None)
    churn.set("churn", "champion", "2")
    wait_for(lambda: clock.tick(1.0) and champion(follower) == "2")
    assert churn.loads.count(("churn", "2")) == 1
    wait_for(lambda: clock.tick(10.0) and len(follower.memory.of("churn")) == 1)


def test_a_removed_alias_unloads_the_model(churn: MemoryRegistry, make_follower: Make) -> None:
    follower = started(make_follower)
    churn.set("churn", "champion", None)
    wait_for(lambda: "churn" not in follower.table)


def test_a_broken_version_leaves_the_champion_and_says_why(
    churn: MemoryRegistry, make_follower: Make, caplog: pytest.LogCaptureFixture
) -> None:
    follower, refused = started(make_follower), []
    follower.loader.on_refused = lambda *said: refused.append(said)
    churn.spoil("churn", "2")
    with caplog.at_level(logging.INFO, "evergreen.serving"):
        churn.set("churn", "champion", "2")
        failure = wait_for(lambda: follower.table["churn"].failures.get("2"))
        assert champion(follower) == "1"
        assert failure.permanent
        assert "must have sha256" in failure.error
        churn.set("churn", "champion", "1")
        wait_for(lambda: not follower.table["churn"].failures)
    assert events_of(caplog, "2") == ["load_failed"]
    assert refused == [("churn", "2", failure.error)]


def test_a_version_that_fails_its_self_test_is_not_served(
    churn: MemoryRegistry, pipelines: dict[str, Any], make_follower: Make
) -> None:
    follower = started(make_follower)
    churn.add("churn", "3", CHURN, pipelines["price"], EXAMPLE)  # numbers that are no codes
    churn.set("churn", "champion", "3")
    failure = wait_for(lambda: follower.table["churn"].failures.get("3"))
    assert "must answer its own input example" in failure.error
    assert champion(follower) == "1"


def test_failures_are_retried_with_growing_pauses(
    churn: MemoryRegistry, make_follower: Make, pipelines: dict[str, Any]
) -> None:
    clock = Clock()
    follower = started(make_follower, clock=clock)
    churn.set("churn", "champion", "9")
    wait_for(lambda: clock.tick(1.0) and "9" in follower.table["churn"].failures)
    first = follower.table["churn"].failures["9"].retry_at
    wait_for(lambda: clock.tick(1.0) and follower.table["churn"].failures["9"].attempts == 2)
    assert clock() >= first
    second = follower.table["churn"].failures["9"].retry_at
    assert second - clock() > 30
    churn.add("churn", "9", CHURN, pipelines["churn2"])
    wait_for(lambda: clock.tick(5.0) and champion(follower) == "9")
    assert follower.table["churn"].failures == {}
    assert churn.loads.count(("churn", "9")) == 3


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float) -> bool:
        self.now += seconds
        return True


def test_it_keeps_serving_while_the_registry_is_away(
    churn: MemoryRegistry, make_follower: Make
) -> None:
    follower = started(make_follower)
    churn.down = True
    wait_for(lambda: follower.registry_error)
    assert champion(follower) == "1"
    assert follower.ready
    churn.down = False
    churn.set("churn", "champion", "2")
    wait_for(lambda: champion(follower) == "2")
    assert follower.registry_error is None


def test_a_restart_without_the_registry_serves_from_disk(
    churn: MemoryRegistry, make_follower: Make
) -> None:
    churn.set("churn", "challenger", "2")
    started(make_follower).stop()
    churn.down = True
    loads = list(churn.loads)
    follower = started(make_follower)
    assert champion(follower) == "1"
    assert follower.table["churn"].challenger is not None
    assert churn.loads == loads
    churn.down = False
    churn.set("churn", "champion", "2")
    wait_for(lambda: champion(follower) == "2")


def test_a_restart_while_the_registry_hangs_serves_from_disk(
    churn: MemoryRegistry, make_follower: Make
) -> None:
    started(make_follower).stop()
    churn.hangs.clear()
    try:
        follower = started(make_follower)
        assert champion(follower) == "1"
    finally:
        churn.hangs.set()


def test_a_first_start_without_the_registry_waits_for_it(
    churn: MemoryRegistry, make_follower: Make
) -> None:
    churn.down = True
    follower = make_follower()
    follower.start()
    wait_for(lambda: follower.registry_error)
    assert not follower.ready
    churn.down = False
    wait_for(lambda: champion(follower) == "1")


def test_a_changed_file_on_disk_is_not_served(
    churn: MemoryRegistry, make_follower: Make, tmp_path: Path
) -> None:
    started(make_follower).stop()
    file = tmp_path / "cache" / "churn" / "1" / "model.skops"
    file.write_bytes(file.read_bytes() + b"x")
    churn.down = True
    follower = started(make_follower)
    assert champion(follower) is None
    assert "must have sha256" in follower.table["churn"].failures["1"].error


def test_after_a_restart_a_broken_champion_is_stood_in_for_by_the_last_good_one(
    churn: MemoryRegistry, make_follower: Make
) -> None:
    started(make_follower).stop()
    churn.spoil("churn", "2")
    churn.set("churn", "champion", "2")
    follower = started(make_follower)
    wait_for(lambda: champion(follower) == "1")
    assert follower.table["churn"].failures["2"].permanent
    follower.stop()
    again = started(make_follower)
    wait_for(lambda: champion(again) == "1")


@pytest.mark.parametrize("text", ['{"aliases": ', "[]", '{"aliases": {"churn": 5}}'])
def test_a_damaged_state_file_is_no_state_file(
    churn: MemoryRegistry, make_follower: Make, tmp_path: Path, text: str
) -> None:
    started(make_follower).stop()
    (tmp_path / "cache" / "state.json").write_text(text)
    follower = started(make_follower)
    assert champion(follower) == "1"


def test_what_nobody_wants_leaves_a_full_disk(
    churn: MemoryRegistry, make_follower: Make, pipelines: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "cache" / "churn"
    size = 0
    for number in range(1, 6):  # each a process of its own, so that it looks at the disk
        version = str(number)
        churn.add("churn", version, CHURN, pipelines["churn2"])
        churn.set("churn", "champion", version)
        follower = started(make_follower, cache_bytes=int(size * 3.5) or 2**30)
        assert champion(follower) == version
        follower.stop()
        size = size or (folder / "1" / "model.skops").stat().st_size
        hours_ago = time.time() - 3600 * (10 - number)
        os.utime(folder / version, (hours_ago, hours_ago))
    assert sorted(path.name for path in folder.glob("[0-9]")) == ["3", "4", "5"]
    assert sorted(path.name for path in folder.glob(".entry*")) == [
        f".entry-{number}.json" for number in (3, 4, 5)
    ]
    assert not list(tmp_path.rglob(".part*"))


CANARY = Rollout("r1", "2", "canary", 0.1)


def test_a_rollout_takes_part_once_its_version_answers(
    churn: MemoryRegistry, make_follower: Make
) -> None:
    follower = started(make_follower)
    assert follower.table["churn"].rollout is None
    churn.roll_out("churn", CANARY)
    served = wait_for(lambda: (of := follower.table["churn"]).rollout and of)
    assert served.rollout == CANARY
    assert served.challenger is served.engine("2") is not None
    assert [engine.version for engine in served.engines] == ["1", "2"]
    grown = Rollout("r1", "2", "canary", 0.5)
    churn.roll_out("churn", grown)
    wait_for(lambda: follower.table["churn"].rollout == grown)
    churn.roll_out("churn", None)
    wait_for(lambda: follower.table["churn"].rollout is None)
    assert follower.table["churn"].challenger is None


def test_a_rollout_of_a_version_that_does_not_load_has_no_part(
    churn: MemoryRegistry, make_follower: Make
) -> None:
    churn.spoil("churn", "2")
    churn.roll_out("churn", CANARY)
    follower = started(make_follower)
    wait_for(lambda: "2" in follower.table["churn"].failures)
    assert follower.table["churn"].rollout is None
    assert champion(follower) == "1"


def test_a_rollout_of_the_champion_has_no_part(churn: MemoryRegistry, make_follower: Make) -> None:
    churn.roll_out("churn", CANARY)
    follower = started(make_follower)
    wait_for(lambda: follower.table["churn"].rollout)
    churn.set("churn", "champion", "2")
    wait_for(lambda: champion(follower) == "2")
    assert follower.table["churn"].rollout is None
    assert [engine.version for engine in follower.table["churn"].engines] == ["2"]


def test_a_rollout_has_the_word_over_the_alias(
    churn: MemoryRegistry, make_follower: Make, pipelines: dict[str, Any]
) -> None:
    churn.add("churn", "3", CHURN, pipelines["churn"])
    churn.set("churn", "challenger", "3")
    churn.roll_out("churn", CANARY)
    follower = started(make_follower)
    served = wait_for(lambda: len((of := follower.table["churn"]).engines) == 3 and of)
    assert served.challenger is not None
    assert served.challenger.version == "2"
    assert served.engine("3") is not None


def test_a_restart_without_the_registry_routes_the_same(
    churn: MemoryRegistry, make_follower: Make
) -> None:
    churn.roll_out("churn", CANARY)
    first = started(make_follower)
    wait_for(lambda: first.table["churn"].rollout)
    first.stop()
    churn.down = True
    loads = list(churn.loads)
    again = started(make_follower)
    assert again.table["churn"].rollout == CANARY
    assert again.table["churn"].challenger is not None
    assert churn.loads == loads


def test_what_the_disk_did_not_take_is_offered_again(
    churn: MemoryRegistry, make_follower: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []
    full = True

    def replace(part: Path, path: Path) -> Path:
        if full:
            tries.append(path.name)
            raise OSError(28, "No space left on device")
        return real(part, path)

    real = Path.replace
    clock, cache = Clock(), tmp_path / "cache"
    monkeypatch.setattr(Path, "replace", lambda part, path: replace(part, path))
    follower = started(make_follower, clock=clock)
    wait_for(lambda: {"state.json", ".entry-1.json"} <= set(tries))
    tried = len(tries)
    ticks: list[float] = []
    monkeypatch.setattr(follower.memory, "drop_idle", ticks.append)  # called at every tick
    wait_for(lambda: len(ticks) > 3)
    assert len(tries) == tried  # not at every tick
    full = False
    wait_for(lambda: clock.tick(1.0) and (cache / "state.json").is_file())
    wait_for(lambda: clock.tick(1.0) and (cache / "churn" / ".entry-1.json").is_file())


def test_what_is_no_longer_served_is_told_to_the_metrics(
    churn: MemoryRegistry, make_follower: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower, left = make_follower(), []
    monkeypatch.setattr(
        follower._metrics,
        "note_left",
        lambda model, gone, here: left.append((model, set(gone), set(here))),
    )
    follower.start()
    wait_for(lambda: champion(follower) == "1")
    churn.set("churn", "champion", "2")
    wait_for(lambda: left[-1] == ("churn", {"1"}, {None, "2"}))
    churn.set("churn", "champion", None)
    wait_for(lambda: left[-1] == ("churn", {None, "2"}, set()))
