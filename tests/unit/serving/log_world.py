"""A served model whose log and labels can be read back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from fastapi.testclient import TestClient

from include.serving.app import create_app
from include.serving.follower import Follower
from include.serving.prediction_log import LogLimits
from include.serving.predictions import Limits
from include.serving.telemetry import Metrics
from include.store.files import Store, open_store
from include.store.predictions import copy_window
from tests.unit.serving.registry import CHURN, COLOUR, PRICE, MemoryRegistry, wait_for

ALWAYS = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))


class World:
    """churn 3 (challenger 4), price 1 and colour 1, as in the fixture `served`, with a log of its own."""

    def __init__(self, folder: Path, pipelines: dict[str, Any]) -> None:
        self.folder = folder
        self.registry = MemoryRegistry(folder / "registry")
        self.registry.add("churn", "3", CHURN, pipelines["churn"])
        self.registry.add("churn", "4", CHURN, pipelines["churn2"])
        self.registry.add("price", "1", PRICE, pipelines["price"])
        self.registry.add("colour", "1", COLOUR, pipelines["colour"])
        self.registry.set("churn", "champion", "3")
        self.registry.set("churn", "challenger", "4")
        self.registry.set("price", "champion", "1")
        self.registry.set("colour", "champion", "1")
        self.store: Store = open_store(str(folder / "store"))

    @contextmanager
    def serve(
        self, store: Any = None, requests: Limits | None = None, **limits: Any
    ) -> Iterator[TestClient]:
        """Serve; leaving writes what is waiting."""
        metrics = Metrics()
        follower = Follower(self.registry, self.folder / "cache", metrics, poll_seconds=0.1)
        options = {"seconds": 60.0} | limits  # nothing is written before the end, unless asked for
        app = create_app(
            follower,
            metrics,
            limits=requests or Limits(rows=500),
            store=store or self.store,
            log_limits=LogLimits(**options),
        )
        with TestClient(app) as client:
            wait_for(lambda: follower.ready)
            yield client

    def log(self, model: str = "churn") -> list[dict[str, Any]]:
        """The model's log, in the order of arrival."""
        out = self.folder / "log.parquet"
        copy_window(self.store, model, *ALWAYS, out, shadow=True)
        rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
        return sorted(rows, key=lambda row: (row["_logged_at"], row["_row"]))


def counter(client: TestClient, name: str) -> float:
    """One of serving's metrics without labels."""
    lines = client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])
