"""Rows of the prediction log, and a store that dies at a chosen write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from include.store.predictions import copy_window, prediction_schema

START = datetime(2026, 1, 30, 12, tzinfo=UTC)
ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
FEATURES = prediction_schema(["age"], ["plan"])


def rows(
    count: int = 4,
    *,
    start: datetime = START,
    step: timedelta = timedelta(minutes=1),
    name: str = "r",
    version: str = "1",
    schema: pa.Schema = FEATURES,
    **columns: Any,
) -> pa.Table:
    """Requests `name-0`, `name-1`, ... one `step` apart; `columns` replaces any other value by a list."""
    times = [start + n * step for n in range(count)]
    values: dict[str, Any] = {
        "_request_id": [f"{name}-{n}" for n in range(count)],
        "_row": [0] * count,
        "_key": [f"k{n % 3}" for n in range(count)],
        "_time": times,
        "_logged_at": times,
        "_version": [version] * count,
        "_arm": ["champion"] * count,
        "_prediction": ["yes"] * count,
        "_score": [0.5] * count,
        "_probability": [[0.5, 0.5]] * count,
        "_latency_ms": [1.5] * count,
        "_error": [None] * count,
    }
    values |= {field.name: [None] * count for field in schema if field.name not in values}
    values |= {"age": [float(n) for n in range(count)]} if "age" in schema.names else {}
    return pa.table({f.name: (values | columns)[f.name] for f in schema}, schema=schema)


def copied(store: Any, out: Path, **options: Any) -> list[dict[str, Any]]:
    """Everything in the log of model `m`, as a reader sees it."""
    count = copy_window(store, "m", *ALWAYS, out, **options)
    found: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    assert len(found) == count
    return found


def ids(found: list[dict[str, Any]]) -> list[str]:
    return sorted(row["_request_id"] for row in found)


class Killed(BaseException):
    """The process is gone; no `except Exception` sees it."""


class DyingStore:
    """A store that works until its nth change, and then never changes anything again.

    Args:
        store: The real one.
        changes: How many changes it lives for.
    """

    def __init__(self, store: Any, changes: int) -> None:
        self._store, self._left = store, changes

    def __getattr__(self, name: str) -> Any:
        if name in ("write_bytes", "claim", "put_file", "delete"):
            self._left -= 1
            if self._left < 0:
                raise Killed(name)
        return getattr(self._store, name)
