"""Logs as Parquet parts, one folder a day: `<root>/date=YYYY-MM-DD/<name>.parquet`.

Owns what predictions and labels have in common: which parts count, how they are read, and how some are replaced
by another one so that whoever is killed at any instant leaves every row there exactly once.

A part that replaces others is announced by a small file beside it, `_<name>.json`, that lists them. The announcement
is written first and counts only once the part itself is there: that one atomic write takes the old parts out of
every reader's sight and puts the new one in. Then the old ones are deleted, and the announcement last. Every step
can be repeated; whoever rewrites next (under the lease of `include.store.lease`) finishes what was left.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.errors import DataError, ServiceError
from include.store.files import Store
from include.store.folder import FolderStore
from include.store.lease import Lease

T = TypeVar("T")
_FEW_DAYS = 40
_ATTEMPTS = 5


def day_of(key: str) -> date | None:
    """Return the day of a part's folder; None where the key is not of a log."""
    try:
        return date.fromisoformat(key.split("/")[-2].removeprefix("date="))
    except (ValueError, IndexError):
        return None


def folder_of(root: str, day: date) -> str:
    """Return the folder of a day, with a slash at its end."""
    return f"{root}/date={day.isoformat()}/"


def list_days(store: Store, root: str, start: date | None, end: date | None) -> list[str]:
    """Return all keys of the days from `start` to `end`, both included; None leaves that end open."""
    if start is not None and end is not None and (end - start).days < _FEW_DAYS:
        days = (start + timedelta(days=n) for n in range((end - start).days + 1))
        return [key for day in days for key in store.list(folder_of(root, day))]
    found = []
    for key in store.list(f"{root}/"):
        day = day_of(key)
        if day and (start is None or day >= start) and (end is None or day <= end):
            found.append(key)
    return found


def live_parts(
    store: Store, root: str, start: date | None = None, end: date | None = None
) -> list[str]:
    """Return the keys of the parts that count, sorted: without those that another one has replaced."""
    keys = list_days(store, root, start, end)
    there = set(keys)
    replaced: set[str] = set()
    for key in keys:
        part = _announced(key)
        if part in there:
            replaced.update(_replaces(store, key))
    return [key for key in keys if key.endswith(".parquet") and key not in replaced]


def _announced(key: str) -> str | None:
    """Return the part an announcement speaks of; None for other keys."""
    folder, _, name = key.rpartition("/")
    if not (name.startswith("_") and name.endswith(".json")):
        return None
    return f"{folder}/{name[1:-5]}.parquet"


def _announcement(key: str) -> str:
    folder, _, name = key.rpartition("/")
    return f"{folder}/_{name.removesuffix('.parquet')}.json"


def _replaces(store: Store, announcement: str) -> list[str]:
    try:
        names = json.loads(store.read_bytes(announcement))
    except DataError:
        return []  # taken away since it was listed: what it named is gone already
    folder = announcement.rpartition("/")[0]
    return [f"{folder}/{name}" for name in names]


# --- reading --------------------------------------------------------------------------------------------


class PartGoneError(Exception):
    """A part was replaced between listing and reading: list again."""


_VANISHED = (PartGoneError, FileNotFoundError, duckdb.IOException)


def local_part(store: Store, key: str, folder: Path) -> Path:
    """Return a local file with the part's bytes; from S3 it is copied into `folder`, never into the cache.

    The cache outlives the part, and so would a person's rows that were to be forgotten.

    Raises:
        PartGoneError: The part is no longer there.
    """
    try:
        if isinstance(store, FolderStore):
            return store.fetch(key)
        path = folder / key.replace("/", "_")
        if not path.exists():
            path.write_bytes(store.read_bytes(key))
    except DataError as error:
        raise PartGoneError(key) from error
    return path


@contextmanager
def scratch(near: Path | None = None) -> Iterator[Path]:
    """Yield a folder for copies and for what DuckDB spills; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=".evergreen-parts-", dir=near) as folder:
        yield Path(folder)


def read_stable(root: str, read: Callable[[], T]) -> T:
    """Return what `read` makes of the log; when a part is replaced meanwhile, have it list them again.

    Raises:
        ServiceError: Parts kept vanishing, or cannot be read.
    """
    for _ in range(_ATTEMPTS - 1):
        with suppress(*_VANISHED):
            return read()
    try:
        return read()
    except _VANISHED as error:
        raise ServiceError(
            root,
            f"must hold still while it is read, got {error}",
            "Try again when the log is no longer being rewritten.",
        ) from error


# --- writing --------------------------------------------------------------------------------------------

_UNIQUE = ("_request_id", "request_id")


def write_options(schema: pa.Schema) -> dict[str, Any]:
    """Return how pyarrow is to write a part: only texts that repeat go through a dictionary.

    Of a column of doubles it would build one, find it too large and start over: thrice the time, a larger file.
    """
    texts = [f.name for f in schema if pa.types.is_string(f.type) and f.name not in _UNIQUE]
    return {"compression": "zstd", "use_dictionary": texts}


def split(table: pa.Table, by: pa.Table) -> Iterator[tuple[dict[str, Any], pa.Table]]:
    """Yield the rows of each group, sorting once however many there are; the rows of one keep their order.

    Args:
        table: The rows, n >= 0.
        by: As many rows, with the columns that make up a group.
    """
    names = by.column_names
    counts = by.group_by(names).aggregate([([], "count_all")])
    order = [(name, "ascending") for name in names]
    groups = counts.sort_by(order).to_pylist()
    if len(groups) > 1:
        table = table.take(pc.sort_indices(by, sort_keys=order))
    start = 0
    for group in groups:
        count = group.pop("count_all")
        yield group, table.slice(start, count)
        start += count


# --- rewriting, under a lease ---------------------------------------------------------------------------


def finish_left(
    store: Store, lease: Lease, root: str, start: date | None = None, end: date | None = None
) -> None:
    """Finish what a killed rewriter left: drop replaced parts, and announcements of parts that never came."""
    keys = list_days(store, root, start, end)
    there = set(keys)
    for key in keys:
        part = _announced(key)
        if part is None:
            continue
        lease.check()
        _retire(store, _replaces(store, key) if part in there else [], key)


def replace_parts(
    store: Store, lease: Lease, old: Sequence[str], key: str, path: Path | None
) -> None:
    """Put the file in the place of some parts of the same day.

    Args:
        store: Where they are.
        lease: The right to do so.
        old: Keys of the parts.
        key: Key of the new part.
        path: Its bytes, which may be moved away; None where no row is left.
    """
    old = [each for each in old if each != key]  # one name, one content: what is there may stay
    lease.check()
    if path is None:
        _retire(store, old, None)
        return
    announcement = _announcement(key)
    names = [each.rpartition("/")[2] for each in old]
    store.write_bytes(announcement, json.dumps(names).encode())
    store.put_file(key, path, move=True)
    _retire(store, old, announcement)


def drop_rows(
    store: Store,
    lease: Lease,
    key: str,
    unwanted: Callable[[pa.Table], pa.ChunkedArray],
    columns: Sequence[str],
) -> int:
    """Replace a part by one without some of its rows.

    Args:
        store: Where it is.
        lease: The right to do so.
        key: The part.
        unwanted: Tells the rows to go, given some columns; null means that a row stays.
        columns: The columns it looks at.

    Returns:
        How many rows went; the part stays as it is for none.
    """
    with scratch() as work:
        file = pq.ParquetFile(local_part(store, key, work))
        if not any(
            pc.any(unwanted(pa.Table.from_batches([batch]))).as_py()
            for batch in file.iter_batches(columns=list(columns))
        ):
            return 0
        out, kept = work / "kept.parquet", 0
        with pq.ParquetWriter(out, file.schema_arrow, **write_options(file.schema_arrow)) as writer:
            for batch in file.iter_batches():
                table = pa.Table.from_batches([batch])
                stay = table.filter(pc.invert(pc.fill_null(unwanted(table), False)))
                writer.write_table(stay)
                kept += stay.num_rows
        with out.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        gone = file.metadata.num_rows - kept
        file.close()
        folder, _, name = key.rpartition("/")
        lead = name[: name.rfind("-") + 1]
        new = f"{folder}/{lead}{digest[:32]}.parquet"
        replace_parts(store, lease, [key], new, out if kept else None)
        return int(gone)


def _retire(store: Store, old: Iterable[str], announcement: str | None) -> None:
    for key in old:
        store.delete(key)
    if announcement:
        store.delete(announcement)
