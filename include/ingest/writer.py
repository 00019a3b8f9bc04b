"""Writes rows into a Parquet file while gathering what names and describes the snapshot."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.ingest.summary import ColumnSummary
from include.store.digest import RowDigest, hash_values
from include.store.snapshots import ARROW_TYPES, Column, ColumnType, File

_ROW_GROUP = 1 << 17


class _HashingFile:
    """A binary file that digests what is written, so that nobody has to read it again."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self.bytes += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


class SnapshotWriter:
    """Takes batches of the snapshot's types in any chunks and writes one Parquet file.

    Args:
        path: File to create.
        types: Columns in order with their types; at least one.
        time: Name of the time column.
        window: Rows older than the newest one by more than this are left out; None keeps all.
        newest: The newest time (microseconds) where it is known beforehand.
        until: Rows later than this are left out; None keeps all.

    Encoding runs in a thread of its own, one row group behind the hashing. Use as a context manager.
    """

    def __init__(
        self,
        path: Path,
        types: Mapping[str, ColumnType],
        *,
        time: str | None = None,
        window: timedelta | None = None,
        newest: int | None = None,
        until: datetime | None = None,
    ) -> None:
        self.path, self.types, self.rows = path, dict(types), 0
        self.missing_times = 0
        self.newest = newest
        self._time, self._window, self._until = time, window, until
        self._schema = pa.schema([(n, ARROW_TYPES[t]) for n, t in types.items()])
        self._summaries = {n: ColumnSummary(n, t) for n, t in types.items()}
        self._digest = RowDigest()
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._file = _HashingFile(path)
        self._parquet = pq.ParquetWriter(
            pa.PythonFile(self._file, "w"), self._schema, compression="zstd"
        )
        self._encoder = ThreadPoolExecutor(1)
        self._encoding: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._flush()
                self._wait()
        finally:
            self._encoder.shutdown(wait=True)
            # After a failure, such as a full disk, finishing the file fails too; the first error counts.
            with suppress(OSError) if error is not None else nullcontext():
                self._parquet.close()
            self._file.close()

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows; columns as in `types`, in that order."""
        if self._time is not None:
            batch = self._in_window(batch)
        if batch.num_rows:
            self._pending.append(batch)
            self._pending_rows += batch.num_rows
        if self._pending_rows >= _ROW_GROUP:
            self._flush()

    def _in_window(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        times = batch.column(self._time)
        self.missing_times += times.null_count
        if self._until is not None:
            batch = batch.filter(pc.less_equal(times, pa.scalar(self._until, times.type)))
            times = batch.column(self._time)
        newest = pc.max(times.view(pa.int64())).as_py()
        if newest is not None:
            self.newest = newest if self.newest is None else max(newest, self.newest)
        if self._window is None or self.newest is None:
            return batch
        return batch.filter(pc.greater_equal(times, _moment(self.newest, self._window)))

    @property
    def has_old_rows(self) -> bool:
        """Whether rows were written that a newer row has since pushed out of the window."""
        if self._time is None or self._window is None or self.newest is None:
            return False
        bounds = self._summaries[self._time].bounds
        return bool(bounds) and bounds[0] < self.newest - _micros(self._window)

    def _flush(self) -> None:
        if not self._pending:
            return
        table = pa.Table.from_batches(self._pending, self._schema).combine_chunks()
        self._pending, self._pending_rows = [], 0
        self._wait()
        self._encoding = self._encoder.submit(self._parquet.write_table, table, table.num_rows)
        hashes = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            values = column.chunk(0)
            hashes[name] = hash_values(values)
            self._summaries[name].add(values, hashes[name])
        self._digest.update(hashes)
        self.rows += table.num_rows

    def _wait(self) -> None:
        if self._encoding is not None:
            self._encoding.result()
            self._encoding = None

    def columns(self) -> tuple[Column, ...]:
        """Return the descriptions of the columns written."""
        return tuple(summary.column() for summary in self._summaries.values())

    def snapshot_id(self) -> str:
        """Return the digest of schema and rows."""
        return self._digest.snapshot_id(self.types)

    def file(self) -> File:
        """Return the finished file's entry in the manifest."""
        digest = self._file.hexdigest()
        return File(f"{digest}.parquet", digest, self._file.bytes, self.rows)


def _micros(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def _moment(newest: int, window: timedelta) -> pa.Scalar:
    return pa.scalar(newest - _micros(window), ARROW_TYPES["timestamp"])


def read_back(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a file a `SnapshotWriter` wrote."""
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(_ROW_GROUP)
