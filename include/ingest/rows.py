"""Turns Python values into Arrow columns, whatever they are, and leaves out the dropped ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from include.store.features import category_text


def column_of(values: Sequence[Any]) -> pa.Array:
    """Return values as an Arrow array; those of mixed kinds, and kinds Arrow does not know, as texts."""
    try:
        array = pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        array = None
    if array is None or isinstance(array.type, pa.BaseExtensionType):  # UUIDs, say
        return pa.array([category_text(v) for v in values], pa.string())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


@dataclass
class Drop:
    """The columns to leave out, and which of them were met."""

    names: frozenset[str]
    met: set[str] = field(default_factory=set)

    def kept(self, names: Iterable[str]) -> list[str]:
        """Return the names that stay, in order."""
        given = list(names)
        self.met.update(self.names.intersection(given))
        return [name for name in given if name not in self.names]


def batch_of(columns: Mapping[str, Any], drop: Drop) -> pa.RecordBatch:
    """Return columns of Python values as a batch, without the dropped ones."""
    kept = drop.kept(columns)
    return pa.RecordBatch.from_arrays([column_of(columns[name]) for name in kept], kept)
