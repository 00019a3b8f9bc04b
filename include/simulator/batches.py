"""Daily Parquet files of the simulated world: written the way a careful upstream job would.

Owns the files' names and how they come to be: one file a day, temp + rename, so that a reader never sees
half a file and a killed writer leaves nothing a glob matches.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from include.errors import DataError
from include.simulator.churn import NO_DRIFT, Drift, daily_batch

DEFAULT_ROWS = 220


def write_batches(
    folder: Path,
    start: date,
    days: int,
    *,
    rows: int = DEFAULT_ROWS,
    seed: int = 0,
    drift: Drift | Callable[[date], Drift] = NO_DRIFT,
) -> list[Path]:
    """Write one Parquet file for each day; a file that already holds the same rows is left alone.

    Args:
        folder: Where `<YYYY-MM-DD>.parquet` go; made when missing.
        start: First day (UTC).
        days: Number of days, at least 1.
        rows: Customers a day, at least 1.
        seed: Number of the world.
        drift: How the days differ from the usual world, or a function that tells it for each day.

    Returns:
        The paths of all days, in order.

    Raises:
        DataError: `days` or `rows` is below 1, or the folder cannot be written.
    """
    if days < 1 or rows < 1:
        raise DataError(
            str(folder), f"needs at least 1 day and 1 row, got {days} and {rows}", "Ask for more."
        )
    drift_of = drift if callable(drift) else lambda _: drift
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [
            _write(folder, day, daily_batch(day, rows=rows, seed=seed, drift=drift_of(day)))
            for day in _days(start, days)
        ]
    except OSError as error:
        raise _unwritable(folder, error) from error


def write_batch(folder: Path, day: date, batch: pd.DataFrame) -> Path:
    """Write the Parquet file of one day; one that already holds the same rows is left alone.

    Raises:
        DataError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _write(folder, day, batch)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        str(folder), f"must be a folder that can be written, got {error}", "Fix its rights."
    )


def _days(start: date, days: int) -> Iterator[date]:
    return (start + timedelta(days=number) for number in range(days))


def _write(folder: Path, day: date, batch: pd.DataFrame) -> Path:
    path = folder / f"{day:%Y-%m-%d}.parquet"
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(batch, preserve_index=False), sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    if path.exists() and path.read_bytes() == content:
        return path
    # A name that starts with a dot and does not end in .parquet: no glob of a spec matches it.
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)  # mkstemp makes it readable by its owner only
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
