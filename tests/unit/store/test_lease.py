from __future__ import annotations

import errno
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from include.errors import ConflictError, ServiceError
from include.store import lease as lease_module
from include.store import predictions
from include.store.files import Store
from include.store.lease import Lease, rewriting
from include.store.prediction_rows import copy_rows
from tests.unit.store.log_rows import copied, rows

ROOT = "predictions/m"
LOCKS = f"locks/{ROOT}/"


def leave(store: Store, *, generation: int = 1, at: float = 0.0) -> None:
    """A lock left behind by a process of another machine."""
    held = lease_module._content("gone").replace(b'"host": "', b'"host": "not ').split(b'"at"')[0]
    store.write_bytes(f"{LOCKS}{generation:012d}.json", held + b'"at": %f}' % at)


def take_over(store: Store) -> Lease | None:
    """Follow whoever holds the lock, as if it were stale."""
    there = lease_module._generations(store, LOCKS[:-1])
    return lease_module._follow(store, LOCKS[:-1], there, "another")


def test_a_lock_left_behind_is_taken_over(store: Store) -> None:
    leave(store)
    with rewriting(store, ROOT, wait=0) as lease:
        lease.check()
        assert list(store.list(LOCKS)) == [lease.key] == [f"{LOCKS}000000000002.json"]
    with rewriting(store, ROOT, wait=0) as lease:
        assert lease.key.endswith("3.json")


def test_a_lock_that_is_renewed_is_left_alone(folder_store: Store) -> None:
    leave(folder_store, at=time.time() - 500)
    with pytest.raises(ServiceError, match="must be free"), rewriting(folder_store, ROOT, wait=0):
        pass


def test_when_a_lock_is_stale() -> None:
    held = json.loads(lease_module._content("gone"))
    assert not lease_module._is_stale(held)
    assert lease_module._is_stale(held | {"pid": 2**22 + 1})
    assert lease_module._is_stale(held | {"host": "elsewhere", "at": held["at"] - 700})
    assert not lease_module._is_stale(held | {"host": "elsewhere", "at": held["at"] - 500})


def test_a_slow_taker_does_not_take_from_a_faster_one(folder_store: Store) -> None:
    leave(folder_store)
    seen_by_the_slow = lease_module._generations(folder_store, LOCKS[:-1])
    with rewriting(folder_store, ROOT, wait=0) as fast:
        assert lease_module._follow(folder_store, LOCKS[:-1], seen_by_the_slow, "slow") is None
        fast.check()
    with rewriting(
        folder_store, ROOT, wait=0
    ) as third:  # the generation it saw free is gone by now
        assert lease_module._follow(folder_store, LOCKS[:-1], seen_by_the_slow, "slow") is None
        third.check()


def test_one_of_many_takers_holds_it(store: Store) -> None:
    leave(store)
    together = threading.Barrier(6)

    def take(_: int) -> bool:
        together.wait(20)
        return take_over(store) is not None

    with ThreadPoolExecutor(6) as pool:
        # One in each race; who looks once the first is done would follow it, so each owner is asked at the end.
        won = list(pool.map(take, range(6)))
    assert any(won)
    assert len(list(store.list(LOCKS))) == 1


def test_who_was_followed_stops_at_the_next_step(store: Store) -> None:
    with rewriting(store, ROOT) as lease:
        lease.check()
        other = take_over(store)
        assert other is not None
        with pytest.raises(ConflictError, match="must still be held by this process"):
            lease.check()
    other.check()  # leaving gave nothing away that is not ours


def test_a_holder_renews(folder_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "_RENEW_SECONDS", 0.0)
    with rewriting(folder_store, ROOT) as lease:
        before = folder_store.read_bytes(lease.key)
        lease.check()
        assert folder_store.read_bytes(lease.key) != before


def test_a_merge_that_was_overtaken_brings_nobody_back(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        predictions.write_part(folder_store, "m", rows(1, name=f"r{number}", _key=["alice"]))
    real = copy_rows

    def slow(*args: Any) -> int:
        count = real(*args)
        monkeypatch.setattr(predictions, "copy_rows", real)
        taken = take_over(folder_store)
        assert taken is not None
        folder_store.write_bytes(taken.key, lease_module._content(""))
        predictions.forget(folder_store, "m", "alice")
        return count

    monkeypatch.setattr(predictions, "copy_rows", slow)
    with pytest.raises(ConflictError):
        predictions.compact(folder_store, "m", before=rows(1)["_time"][0].as_py().date().max)
    assert copied(folder_store, tmp_path / "o") == []


def test_no_locks_without_hard_links(folder_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ServiceError, match="with hard links, got one without"):
        folder_store.claim("locks/x", b"")
    with pytest.raises(ServiceError, match="with hard links"), rewriting(folder_store, ROOT):
        pass
    assert list(folder_store.list("")) == []
