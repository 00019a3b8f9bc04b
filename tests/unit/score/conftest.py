"""Small real models, partitions of rows for them, and what scoring makes of those."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.ingest.partition import open_partition
from include.score.score import Scored, Work, score
from include.score.shadow import Shadowed, shadow
from include.score.targets import open_target
from include.serving.engine import Engine, build_engine
from include.spec.schema import Spec
from include.store.files import Store, open_store
from include.store.predictions import copy_window
from tests.servers import start_postgres
from tests.unit.serving.registry import CHURN, COLOUR, PRICE, MemoryRegistry, fit, rows
from tests.unit.store.log_rows import Killed

NOW = datetime(2026, 6, 1, 4, tzinfo=UTC)
DAY = datetime(2026, 5, 31, tzinfo=UTC)
ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
METAS = {"binary": CHURN, "regression": PRICE, "multiclass": COLOUR}


def frame(count: int = 120, *, seed: int = 5, start: datetime = DAY) -> pd.DataFrame:
    """Rows as an upstream job delivers them: key, time, features, and a column nobody asked for."""
    columns = rows(count, seed=seed)
    columns["member"] = [bool(value) for value in columns["member"]]
    columns["plan"] = [int(value) for value in columns["plan"]]
    return pd.DataFrame(
        {
            "customer": [f"C-{n:04d}" for n in range(count)],
            "seen_at": [start + timedelta(minutes=n) for n in range(count)],
            **columns,
            "colour_of_eyes": ["blue"] * count,
        }
    )


@dataclass
class World:
    """A model and its places, below one folder."""

    folder: Path
    spec: Spec
    store: Store
    engine: Engine

    def write(self, partition: str, data: pd.DataFrame, name: str = "rows.parquet") -> None:
        path = self.folder / "in" / partition / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data.to_csv(path, index=False) if name.endswith("csv") else data.to_parquet(path)

    def work(self, partition: str, **changes: Any) -> Work:
        made = self.folder / "work" / os.urandom(6).hex()
        (made / "spool").mkdir(parents=True)
        (made / "made").mkdir()
        values = {
            "spec": self.spec,
            "engine": self.engine,
            "rows": open_partition(self.spec, partition, folder=made / "spool"),
            "store": self.store,
            "partition": partition,
            "at": DAY,
            "now": NOW,
            "folder": made / "made",
        }
        return Work(**(values | changes))

    def score(self, partition: str, **changes: Any) -> Scored:
        assert self.spec.score is not None
        destination = changes.pop("destination", None) or open_target(self.spec.score.to, now=NOW)
        return score(self.work(partition, **changes), destination)

    def shadow(self, partition: str, done: Scored, engine: Engine, **changes: Any) -> Shadowed:
        work = self.work(partition, engine=engine, **changes)
        return shadow(work, champion=done.version, source=done.source)

    def read(self) -> pa.Table:
        """Read everything as a reader that knows no more than the pattern."""
        paths = sorted((self.folder / "out").glob("*/*.parquet"))
        return pa.concat_tables([pq.ParquetFile(path).read() for path in paths])

    def output(self, partition: str) -> pa.Table:
        path = self.folder / "out" / f"partition={partition}" / "predictions.parquet"
        return pq.ParquetFile(path).read()

    def logged(self) -> list[dict[str, Any]]:
        """Read the log, shadows included, version by version in the order of the rows, which `place` tells."""
        out = self.folder / "log.parquet"
        copy_window(self.store, self.spec.model, *ALWAYS, out, shadow=True)
        found = pq.read_table(out).to_pylist()
        places = [{"place": int(row["_request_id"].rpartition("-")[2])} | row for row in found]
        return sorted(places, key=lambda r: (r["_version"], r["place"]))


def make_spec(folder: Path, task: str = "binary", **score: Any) -> Spec:
    source = {"kind": "file", "path": str(folder / "in" / "{partition}" / "*")}
    section = {"source": source, "to": {"kind": "file", "path": str(folder / "out")}} | score
    return Spec.model_validate(
        {
            "model": "churn",
            "task": task,
            "ingest": {
                "source": {"kind": "file", "path": "nowhere.csv"},
                "target": "churned",
                "key": "customer",
                "time": "seen_at",
                "drop": ["email"],
            },
            "score": section,
        }
    )


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    """One version per task, and a second one (`8`) of the binary one."""
    folder = tmp_path_factory.mktemp("engines")
    registry = MemoryRegistry(folder / "registry")
    for task, meta in METAS.items():
        registry.add(task, "7", meta, fit(meta))
    registry.add("binary", "8", CHURN, fit(CHURN, seed=1))
    made = {t: build_engine(registry.load(t, "7", folder / "cache")) for t in METAS}
    return made | {"challenger": build_engine(registry.load("binary", "8", folder / "cache"))}


@pytest.fixture
def world(tmp_path: Path, engines: dict[str, Engine]) -> World:
    return World(
        tmp_path, make_spec(tmp_path), open_store(str(tmp_path / "store")), engines["binary"]
    )


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with start_postgres() as url:
        yield url.replace("postgresql://", "postgresql+psycopg://")


def renamed(engine: Engine, version: str) -> Engine:
    """Return the same model as another version."""
    return replace(engine, model=replace(engine.model, version=version))


class Mortal:
    """A store of a process that has so many changes left, over all its stores, before it is killed."""

    def __init__(self, store: Any, lives: list[int]) -> None:
        self._store, self._lives = store, lives

    def __getattr__(self, name: str) -> Any:
        if name in ("write_bytes", "claim", "put_file", "delete"):
            if not self._lives[0]:
                raise Killed(name)
            self._lives[0] -= 1
        return getattr(self._store, name)
