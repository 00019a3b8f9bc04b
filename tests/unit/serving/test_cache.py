from __future__ import annotations

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from include.registry.rollouts import Rollout
from include.serving.cache import Cache
from include.serving.engine import LoadedModel
from include.serving.served import Wanted
from tests.unit.serving.many import Constant
from tests.unit.serving.registry import CHURN, EXAMPLE

CANARY = Wanted({"champion": "1", "challenger": "2"}, Rollout("r", "2", "canary", 0.1))


def download(root: Path, name: str, version: str, size: int = 1000) -> LoadedModel:
    folder = root / name / f"{version}-abc"
    folder.mkdir(parents=True)
    (folder / "model").write_bytes(b"x" * size)
    return LoadedModel(name, version, Constant(1), CHURN, EXAMPLE, folder)


def left(root: Path) -> list[str]:
    return sorted(f"{path.parent.name}/{path.name[0]}" for path in root.glob("*/*-abc"))


def unused_for(model: LoadedModel, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(model.folder, (then, then))


def test_what_the_registry_said_comes_back(tmp_path: Path) -> None:
    Cache(tmp_path).write({"churn": CANARY}, {"churn": "1"})
    state = Cache(tmp_path).read()
    assert state.wanted() == {"churn": CANARY}
    assert state.champions == {"churn": "1"}


def test_one_process_keeps_what_another_one_knows(tmp_path: Path) -> None:
    wanted = {"a": CANARY, "b": CANARY}
    Cache(tmp_path).write(wanted, {"a": "1"})
    Cache(tmp_path).write(wanted, {"b": "1", "gone": "1"})
    assert Cache(tmp_path).read().champions == {"a": "1", "b": "1"}


def test_many_may_write_at_once(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(8)]

    def write(name: str) -> None:
        for _ in range(10):
            Cache(tmp_path).write(dict.fromkeys(names, CANARY), {name: "1"})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, names))
    assert Cache(tmp_path).read().champions == dict.fromkeys(names, "1")
    assert not list(tmp_path.glob(".part*"))


def test_the_longest_unused_go_until_the_rest_fits(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=2500)
    for number, hours in enumerate((4, 3, 2, 1), start=1):
        model = download(tmp_path, "churn", str(number))
        cache.remember(model)
        unused_for(model, hours)
    cache.trim(lambda: {("churn", "1")})  # the oldest of all, but a restart needs it
    assert left(tmp_path) == ["churn/1", "churn/4"]
    assert cache.restore("churn", "2") is None
    assert not list(tmp_path.rglob(".part*"))


def test_what_was_downloaded_but_never_answered_goes_too(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=500)
    unused_for(download(tmp_path, "churn", "7"), 1)
    cache.trim(set)
    assert left(tmp_path) == []


def test_what_another_process_may_be_opening_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=500)
    download(tmp_path, "churn", "7")
    cache.trim(set)
    assert left(tmp_path) == ["churn/7"]


def test_a_limit_that_cannot_hold_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    cache = Cache(tmp_path, limit_bytes=500, clock=lambda: now[0])
    cache.remember(model := download(tmp_path, "churn", "1"))
    unused_for(model, 1)
    with caplog.at_level(logging.INFO, "evergreen.serving"):
        for _ in range(3):
            cache.trim(lambda: {("churn", "1")})
            now[0] += 60
    assert left(tmp_path) == ["churn/1"]
    assert caplog.text.count("cache_over_limit") == 1


@pytest.mark.parametrize("name", ["..", "../..", "a/b"])
def test_a_name_that_leads_elsewhere_is_not_followed(tmp_path: Path, name: str) -> None:
    cache = Cache(tmp_path / "a" / "cache")
    cache.remember(download(cache.root, "churn", "1"))
    assert cache.restore(name, "1") is None
