"""What a manifest says about a column, gathered while the rows stream by."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.store.digest import Hashes
from include.store.snapshots import Column, ColumnType

_SKETCH = 1024


def iso_time(micros: int) -> str:
    """Write microseconds since 1970 as ISO text in UTC."""
    return f"{np.datetime64(micros, 'us')}Z"


@dataclass
class DistinctCount:
    """Counts different values by the smallest of their hashes.

    Exact below 1,024; beyond, within about 3 % (one standard deviation). The order of the values plays no part.

    Source: Bar-Yossef et al. 2002, https://doi.org/10.1007/3-540-45726-7_1
    """

    smallest: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))

    def add(self, hashes: Hashes) -> None:
        """Take further values into account, by their hashes."""
        if len(self.smallest) == _SKETCH:
            hashes = hashes[hashes < self.smallest[-1]]
        if len(hashes):
            fresh = pc.unique(pa.array(hashes)).to_numpy()
            if len(fresh) > _SKETCH:
                fresh = np.partition(fresh, _SKETCH)[:_SKETCH]
            self.smallest = np.union1d(self.smallest, fresh)[:_SKETCH]

    def estimate(self, at_most: int) -> int:
        """Return the number of different values."""
        if len(self.smallest) < _SKETCH:
            return len(self.smallest)
        return min(at_most, round((_SKETCH - 1) / (float(self.smallest[-1]) / 2.0**64)))


class ColumnSummary:
    """Gathers one column's nulls, bounds and different values."""

    def __init__(self, name: str, kind: ColumnType) -> None:
        self.name, self.kind = name, kind
        self.rows = self.nulls = 0
        self.bounds: list[float] = []
        self._distinct = DistinctCount()

    def add(self, values: pa.Array, hashes: Hashes) -> None:
        """Take further values into account.

        Args:
            values: Arrow array of the column's type, shape (n,).
            hashes: The values' hashes, shape (n,).
        """
        self.rows += len(values)
        self.nulls += values.null_count
        if values.null_count == len(values):
            return
        if values.null_count:
            hashes = hashes[values.is_valid().to_numpy(zero_copy_only=False)]
        self._distinct.add(hashes)
        if self.kind != "string":
            numbers = values.view(pa.int64()) if self.kind == "timestamp" else values
            ends = pc.min_max(numbers).as_py().values()
            self.bounds = [v for v in (*ends, *self.bounds) if v is not None]
            self.bounds = [min(self.bounds), max(self.bounds)]

    def column(self) -> Column:
        """Return what the manifest says about the column."""
        low: float | str | None = None
        high: float | str | None = None
        if self.bounds and self.kind == "timestamp":
            low, high = (iso_time(int(v)) for v in self.bounds)
        elif self.bounds:
            low, high = (float(v) + 0.0 for v in self.bounds)  # never -0.0
        share = self.nulls / self.rows if self.rows else 0.0
        distinct = self._distinct.estimate(self.rows - self.nulls)
        return Column(self.name, self.kind, share, low, high, distinct)
