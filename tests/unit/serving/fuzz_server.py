"""A serving process of its own for the fuzzers: `python -m tests.unit.serving.fuzz_server FOLDER PORT`."""

import sys
from pathlib import Path

import uvicorn

from include.serving.app import create_app
from include.serving.direct import Direct
from include.serving.follower import Follower
from include.serving.prediction_log import LogLimits
from include.serving.telemetry import Metrics
from include.store.files import open_store
from tests.unit.serving.registry import CHURN, COLOUR, PRICE, MemoryRegistry, fit

if __name__ == "__main__":
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    registry = MemoryRegistry(folder / "registry")
    for name, meta in (("churn", CHURN), ("price", PRICE), ("colour", COLOUR)):
        registry.add(name, "1", meta, fit(meta))
        registry.set(name, "champion", "1")
    metrics = Metrics()
    app = create_app(
        Follower(registry, folder / "cache", metrics),
        metrics,
        store=open_store(str(folder / "store")),
        log_limits=LogLimits(seconds=0.5),
    )
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        http=Direct,
        proxy_headers=False,
        log_config=None,
        access_log=False,
    )
