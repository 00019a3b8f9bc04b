"""Models behind an in-memory registry, and a client on the app that serves them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from include.serving.app import create_app
from include.serving.engine import Engine, build_engine
from include.serving.follower import Follower
from include.serving.prediction_log import LogLimits
from include.serving.predictions import Limits
from include.serving.telemetry import Metrics
from include.store.files import open_store
from tests.unit.serving.registry import (
    CHURN,
    COLOUR,
    PRICE,
    MemoryRegistry,
    fit,
    loaded,
    wait_for,
)


@pytest.fixture(scope="session")
def pipelines() -> dict[str, Any]:
    """One fitted pipeline per task, and a second one for churn."""
    return {
        "churn": fit(CHURN),
        "churn2": fit(CHURN, seed=1),
        "price": fit(PRICE),
        "colour": fit(COLOUR),
    }


@pytest.fixture
def registry(tmp_path: Path) -> MemoryRegistry:
    return MemoryRegistry(tmp_path / "registry")


@pytest.fixture
def make_follower(registry: MemoryRegistry, tmp_path: Path) -> Iterator[Callable[[], Follower]]:
    """Make followers of the same registry and cache; they are stopped in the end."""
    made: list[Follower] = []

    def make(**options: Any) -> Follower:
        follower = Follower(registry, tmp_path / "cache", Metrics(), poll_seconds=0.05, **options)
        made.append(follower)
        return follower

    yield make
    for follower in made:
        follower.stop()


@pytest.fixture(scope="module")
def served(
    pipelines: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """A client on an app that serves churn 3 (challenger 4), price 1 and colour 1."""
    folder = tmp_path_factory.mktemp("served")
    registry = MemoryRegistry(folder / "registry")
    registry.add("churn", "3", CHURN, pipelines["churn"])
    registry.add("churn", "4", CHURN, pipelines["churn2"])
    registry.add("price", "1", PRICE, pipelines["price"])
    registry.add("colour", "1", COLOUR, pipelines["colour"])
    registry.set("churn", "champion", "3")
    registry.set("churn", "challenger", "4")
    registry.set("price", "champion", "1")
    registry.set("colour", "champion", "1")
    metrics = Metrics()
    follower = Follower(registry, folder / "cache", metrics, poll_seconds=0.1)
    limits = Limits(body_bytes=200_000, rows=500)
    app = create_app(
        follower,
        metrics,
        limits=limits,
        store=open_store(str(folder / "store")),
        log_limits=LogLimits(seconds=0.1),
    )
    with TestClient(app) as client:
        wait_for(lambda: follower.ready)
        yield client


@pytest.fixture(scope="session")
def engine(pipelines: dict[str, Any]) -> Engine:
    """A churn engine that needs no server."""
    return build_engine(loaded(pipelines["churn"]))
