"""From rows of a source to what a model takes.

Owns which columns are wanted and of which types, the size of the pieces in which all else is done, and the forms of
a value: categories as text, numbers as float64 with NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from include.errors import DataError
from include.serving.engine import Engine
from include.spec.schema import Spec
from include.store.features import category_text, no_column
from include.store.snapshots import ColumnType

#: Rows that are predicted, held and written together.
PIECE_ROWS = 50_000


class Rows(Protocol):
    """Rows of a source, to be read once.

    Attributes:
        where: Where they come from, for messages.
        names: All columns there are.
    """

    @property
    def where(self) -> str: ...  # noqa: D102

    @property
    def names(self) -> tuple[str, ...]: ...  # noqa: D102

    def batches(self, types: Mapping[str, ColumnType | None]) -> Iterator[pa.RecordBatch]:
        """Yield all rows with columns of these types (None: the source's own); at least one batch."""
        ...

    def digest(self) -> str:
        """Return what identifies the rows read so far."""
        ...


@dataclass(frozen=True)
class Wanted:
    """The columns that scoring takes from a source.

    Attributes:
        numeric: Features that are numbers, in the model's order.
        categorical: Features that are categories.
        key: Column that says who a row is about; None without.
        time: Column that says when; None without.
        types: Type of each of them in the source; None for whatever it is there.
    """

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    key: str | None
    time: str | None
    types: Mapping[str, ColumnType | None]

    @classmethod
    def of(cls, spec: Spec, engine: Engine) -> Wanted:
        """Return what a version takes."""
        features, trained = engine.schema.features, engine.schema.types
        types: dict[str, Any] = {
            # To a model 3 and 3.0 are one number, and a column of whole numbers may have missing values.
            name: "bool" if trained.get(name) == "bool" else "float"
            for name in features.numeric
        }
        types |= {name: trained.get(name, "string") for name in features.categorical}
        key, time = spec.ingest.key, spec.ingest.time
        types |= {key: None} if key else {}
        types |= {time: "timestamp"} if time else {}
        return cls(features.numeric, features.categorical, key, time, types)

    def pieces(self, rows: Rows) -> Iterator[pa.Table]:
        """Yield the rows in pieces of `PIECE_ROWS`, the last one smaller; at least one, which may be empty.

        Raises:
            DataError: A column is missing, a value is of another type, or a row has no time.
        """
        roles = {self.key: "key column", self.time: "time column"}
        for name in self.types:
            if name not in rows.names:
                raise no_column(rows.where, roles.get(name, "feature"), name, rows.names)
        done = 0
        for piece in _cut(rows.batches(self.types)):
            if self.time and piece.column(self.time).null_count:
                row = done + pc.index(pc.is_null(piece.column(self.time)), True).as_py()
                raise DataError(
                    rows.where,
                    f"every row must have a time in {self.time!r}, got none in row {row}",
                    "Correct the data: without it the prediction belongs to no window of the monitor.",
                )
            yield piece
            done += piece.num_rows


def _cut(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Cut a stream at the same rows, however its batches lie."""
    held: list[pa.RecordBatch] = []
    rows, some = 0, False
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        while rows >= PIECE_ROWS:
            table = pa.Table.from_batches(held)
            yield table.slice(0, PIECE_ROWS).combine_chunks()
            some = True
            held = table.slice(PIECE_ROWS).to_batches()
            rows -= PIECE_ROWS
    if rows or not some:
        yield pa.Table.from_batches(held).combine_chunks()


@dataclass(frozen=True)
class Inputs:
    """A piece as the model takes it.

    Attributes:
        arrays: Float64 or text with null for missing, by feature: as the log keeps them.
        columns: Float64 with NaN, or Python texts with None: as an engine takes them.
    """

    arrays: Mapping[str, pa.Array]
    columns: dict[str, npt.NDArray[Any]]

    def part(self, first: int, count: int) -> Inputs:
        """Return some of the rows."""
        arrays = {name: array.slice(first, count) for name, array in self.arrays.items()}
        columns = {name: values[first : first + count] for name, values in self.columns.items()}
        return Inputs(arrays, columns)


def to_inputs(piece: pa.Table, wanted: Wanted) -> Inputs:
    """Return the features of a piece."""
    arrays: dict[str, pa.Array] = {}
    columns: dict[str, npt.NDArray[Any]] = {}
    for name in wanted.numeric:
        arrays[name] = _whole(piece, name).cast(pa.float64())
        columns[name] = arrays[name].to_numpy(zero_copy_only=False)
    for name in wanted.categorical:
        encoded = _whole(piece, name).dictionary_encode()
        texts = [category_text(value) for value in encoded.dictionary.to_pylist()]
        choices = np.array([*texts, None], dtype=object)  # the last one, -1, is for missing
        columns[name] = choices[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
        arrays[name] = pa.array(texts, pa.string()).take(encoded.indices)
    return Inputs(arrays, columns)


def key_texts(piece: pa.Table, wanted: Wanted) -> pa.Array:
    """Return the keys as the log and labels write them."""
    if wanted.key is None:
        return pa.nulls(piece.num_rows, pa.string())
    values = _whole(piece, wanted.key)
    if pa.types.is_string(values.type) or pa.types.is_integer(values.type):
        return values.cast(pa.string())
    return pa.array([category_text(value) for value in values.to_pylist()], pa.string())


def _whole(piece: pa.Table, name: str) -> pa.Array:
    column = piece.column(name).combine_chunks()
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
