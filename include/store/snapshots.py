"""Snapshots: immutable, content-addressed Parquet copies of the data one run read, each with a manifest.

Owns their layout in the store and the manifest's form. A snapshot exists once its manifest does: the files come
first, each named by its own sha256, the manifest last. Reading verifies every file against its digest.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.errors import DataError, SnapshotError
from include.store.files import Store

ColumnType = Literal["int", "float", "bool", "string", "timestamp"]
ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}
MANIFEST = "manifest.json"
_FORMAT = 1
_EXACT_IN_FLOAT = 2**53


@dataclass(frozen=True)
class Column:
    """One column: its type and what its values look like.

    Attributes:
        name: As in the source.
        type: One of five; ints are 64 bit, timestamps are microseconds in UTC.
        null_share: Share of rows without a value; NaN counts as none.
        low: Smallest value: a float, or ISO text for timestamps; None for strings and empty columns.
        high: Largest value, likewise.
        distinct: Number of different values; exact up to about a thousand, then within a few percent.
    """

    name: str
    type: ColumnType
    null_share: float
    low: float | str | None
    high: float | str | None
    distinct: int | None


@dataclass(frozen=True)
class File:
    """One Parquet file of a snapshot; `name` is relative to the snapshot's folder."""

    name: str
    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class Manifest:
    """What a snapshot holds and where it came from.

    Attributes:
        model: Model it was taken for.
        snapshot_id: Digest of schema and rows, whatever their order; 32 hex digits.
        rows: Number of rows.
        columns: In the source's order.
        files: The Parquet files.
        time_start: Oldest value of the time column as ISO text; None without a time column.
        time_end: Newest value, likewise.
        source: Where the rows came from, for people; never with a password.
        created_at: When it was taken, ISO text in UTC.
    """

    model: str
    snapshot_id: str
    rows: int
    columns: tuple[Column, ...]
    files: tuple[File, ...]
    time_start: str | None
    time_end: str | None
    source: str
    created_at: str

    def column(self, name: str) -> Column | None:
        """Return the column of that name, or None."""
        return next((c for c in self.columns if c.name == name), None)

    @property
    def types(self) -> dict[str, ColumnType]:
        """Types by column name."""
        return {c.name: c.type for c in self.columns}

    def to_json(self) -> str:
        """Write the manifest as JSON; infinite bounds become the texts `inf` and `-inf`."""
        data = asdict(self)
        for column in data["columns"]:
            for end in ("low", "high"):
                value = column[end]
                if isinstance(value, float) and not math.isfinite(value):
                    column[end] = str(value)
        return json.dumps({"format": _FORMAT, **data}, indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read what `to_json` wrote.

        Raises:
            SnapshotError: The text is no manifest, or one of a newer format.
        """
        try:
            data = json.loads(text)
            if data.pop("format") != _FORMAT:
                raise ValueError("format")
            columns = tuple(_column(c) for c in data.pop("columns"))
            files = tuple(File(**f) for f in data.pop("files"))
            return cls(columns=columns, files=files, **data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SnapshotError(
                "manifest",
                f"must be JSON of format {_FORMAT}, got {type(error).__name__}: {error}",
                "Take a new snapshot.",
            ) from error


def _column(data: dict[str, Any]) -> Column:
    if data["type"] in ("int", "float"):
        for end in ("low", "high"):
            data[end] = None if data[end] is None else float(data[end])
    return Column(**data)


def snapshot_prefix(model: str, snapshot_id: str) -> str:
    """Return the snapshot's folder in the store."""
    return f"snapshots/{model}/{snapshot_id}"


def read_manifest(store: Store, model: str, snapshot_id: str) -> Manifest:
    """Read a snapshot's manifest.

    Raises:
        SnapshotError: There is no such snapshot, or its manifest is damaged.
    """
    key = f"{snapshot_prefix(model, snapshot_id)}/{MANIFEST}"
    if not store.exists(key):
        raise SnapshotError(
            store.uri(key), "the snapshot must exist, got none", "Run ingest for it again."
        )
    manifest = Manifest.from_json(store.read_bytes(key))
    if (manifest.model, manifest.snapshot_id) != (model, snapshot_id):
        raise SnapshotError(
            store.uri(key),
            f"must be the manifest of {model}/{snapshot_id}, got {manifest.model}/{manifest.snapshot_id}",
            "Somebody moved files in the store; take a new snapshot.",
        )
    return manifest


_verified: dict[tuple[str, int, int], str] = {}


def file_sha256(path: Path) -> str:
    """Return the file's sha256 as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _matches(path: Path, file: File) -> bool:
    stat = path.stat()
    if stat.st_size != file.bytes:
        return False
    seen = (str(path), stat.st_size, stat.st_mtime_ns)
    if _verified.get(seen) != file.sha256:
        if file_sha256(path) != file.sha256:
            return False
        _verified[seen] = file.sha256
    return True


def snapshot_paths(store: Store, manifest: Manifest) -> list[Path]:
    """Return local paths of the snapshot's Parquet files, every one verified against its digest.

    Raises:
        SnapshotError: A file is missing or damaged.
    """
    prefix = snapshot_prefix(manifest.model, manifest.snapshot_id)
    paths = []
    for file in manifest.files:
        key = f"{prefix}/{file.name}"
        try:
            path = store.fetch(key)
        except DataError as error:
            raise SnapshotError(error.where, error.rule, "Run ingest again.") from error
        if not _matches(path, file):
            path = store.fetch(key, fresh=True)
            if not _matches(path, file):
                raise SnapshotError(
                    store.uri(key),
                    f"must have sha256 {file.sha256}, got other bytes",
                    "The file is damaged: delete it and run ingest again.",
                )
        paths.append(path)
    return paths


def read_table(store: Store, manifest: Manifest, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a snapshot into an Arrow table, rows in stored order.

    Args:
        store: Where the snapshot is.
        manifest: Its manifest.
        columns: Columns to read, in this order; None means all.

    Raises:
        SnapshotError: A file is missing or damaged.
        DataError: A column is not in the snapshot.
    """
    names = [c.name for c in manifest.columns] if columns is None else list(columns)
    absent = [n for n in names if n not in manifest.types]
    if absent:
        raise DataError(
            f"snapshot {manifest.snapshot_id} of {manifest.model}",
            f"must have the column {absent[0]!r}, got {', '.join(manifest.types)}",
            "Correct the name.",
        )
    tables = [pq.read_table(p, columns=names) for p in snapshot_paths(store, manifest)]
    schema = pa.schema([(n, ARROW_TYPES[manifest.types[n]]) for n in names])
    return pa.concat_tables([t.select(names).cast(schema) for t in tables])


def read_frame(
    store: Store, manifest: Manifest, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read a snapshot into a DataFrame, rows in stored order.

    Strings and missing booleans are Python objects with None; timestamps are `datetime64[us, UTC]`;
    ints with missing values are float64, or `Int64` where float64 would round one of them.

    Raises:
        SnapshotError: A file is missing or damaged.
        DataError: A column is not in the snapshot.
    """
    return to_frame(read_table(store, manifest, columns))


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Convert an Arrow table the way `read_frame` says."""
    frame: pd.DataFrame = table.to_pandas(split_blocks=True)
    for field in table.schema:
        column = table.column(field.name)
        if pa.types.is_integer(field.type) and column.null_count:
            bounds = pc.min_max(column).as_py()
            if any(v is not None and abs(v) > _EXACT_IN_FLOAT for v in bounds.values()):
                frame[field.name] = column.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return frame


def commit_snapshot(store: Store, manifest: Manifest, files: Mapping[str, Path]) -> bool:
    """Store a snapshot: its files, then its manifest.

    Safe to repeat, to kill and to run twice at once. A snapshot that is already there stays as it is, unless
    one of its files got lost: then it is stored anew.

    Args:
        store: Where to.
        manifest: Its `files` name what `files` holds.
        files: Local path of each file, by name; they may be moved away.

    Returns:
        True when the snapshot is new; False when it was there (read its manifest with `read_manifest`: the
        same rows may lie in other files).
    """
    prefix = snapshot_prefix(manifest.model, manifest.snapshot_id)
    key = f"{prefix}/{MANIFEST}"
    there = store.exists(key)
    if there and _complete(store, prefix, store.read_bytes(key)):
        return False
    for file in manifest.files:
        store.put_file(f"{prefix}/{file.name}", files[file.name], if_absent=True, move=True)
    if store.write_bytes(key, manifest.to_json().encode(), if_absent=not there):
        return True
    _drop_unused(store, prefix, manifest)
    return False


def _complete(store: Store, prefix: str, text: bytes) -> bool:
    try:
        kept = Manifest.from_json(text)
    except SnapshotError:
        return False
    return all(store.exists(f"{prefix}/{file.name}") for file in kept.files)


def _drop_unused(store: Store, prefix: str, mine: Manifest) -> None:
    """Remove the files of a run that lost the race for the manifest; the winner's stay for good."""
    winner = {f.name for f in read_manifest(store, mine.model, mine.snapshot_id).files}
    for file in mine.files:
        if file.name not in winner:
            store.delete(f"{prefix}/{file.name}")
