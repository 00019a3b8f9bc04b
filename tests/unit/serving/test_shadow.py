"""What a shadow's row says of its time."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
from threadpoolctl import threadpool_info

from include.serving.log_rows import Author, Entry
from include.serving.shadow import Copy, Shadow
from tests.unit.serving.registry import wait_for


def test_its_latency_is_what_it_computed_and_not_how_long_it_was_kept(monkeypatch: Any) -> None:
    """The event loop comes first: a wait for it says nothing about the version."""
    monkeypatch.setattr(Author, "of", lambda engine: None)
    logged: list[Entry] = []
    shadow = Shadow(SimpleNamespace(put=logged.append), MagicMock(), 100, 2**20)
    threads: list[int] = []

    def wait(_: Any) -> None:
        time.sleep(0.3)

    def compute(_: Any) -> None:
        threads.extend(pool["num_threads"] for pool in threadpool_info())
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            np.dot(np.ones((50, 50)), np.ones((50, 50)))

    asked = SimpleNamespace(columns={}, identity=None)
    for number, predict in enumerate((wait, compute)):
        engine = SimpleNamespace(predict=predict, model=SimpleNamespace(name="m"), version="4")
        shadow.put(Copy(engine, 1, lambda: asked, str(number), 0, 10))
    wait_for(lambda: len(logged) == 2)
    shadow.close()
    assert logged[0].latency_ms < 100
    assert 100 <= logged[1].latency_ms < 200
    assert set(threads) <= {1}  # others' time is not on its thread's clock
