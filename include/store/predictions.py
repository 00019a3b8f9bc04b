"""The prediction log: every prediction of a model with its inputs, as Parquet parts by day of the event.

Owns the writing of parts, the copy of a stretch of time into one file, and their upkeep. A part holds the rows of
one version, so all its rows have the same features. It is named by its own bytes: writing it again after a
failure that was none changes nothing.

To DuckDB and pandas the log is one dataset:
`SELECT * FROM read_parquet('<store>/predictions/churn/*/*.parquet', union_by_name = true)`.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.store import parts
from include.store.files import Store
from include.store.lease import Lease, rewriting
from include.store.prediction_rows import PREDICTIONS, copy_rows, prediction_schema

__all__ = [
    "PREDICTIONS",
    "compact",
    "copy_window",
    "find_key",
    "forget",
    "merge_small",
    "part_keys",
    "prediction_schema",
    "predictions_root",
    "write_part",
]
_FULL_BYTES = 128 * 2**20  # a part of this size is not merged any further
_SMALL_BYTES = 4 * 2**20  # nor, by the process that still writes, one of this size
_DAY = timedelta(days=1)


def predictions_root(model: str) -> str:
    """Return the log's folder in the store."""
    return f"predictions/{model}"


def write_part(
    store: Store, model: str, table: pa.Table, *, measured: Collection[str] = ()
) -> list[str]:
    """Store rows: one part for each day and version among them. Safe to repeat.

    Args:
        store: Where to.
        model: Registered name.
        table: Columns of `prediction_schema`, n >= 0 rows; `_time` and `_version` are never null.
        measured: Columns that differ each time the same rows are made, such as when and how long it took: a part
            is not named by them, so that the same rows made again take the place of those that are there.

    Returns:
        The keys of the parts, whether they are new or were there.
    """
    days = pc.cast(pc.floor_temporal(table.column("_time"), unit="day"), pa.date32())
    groups = pa.table({"day": days, "version": table.column("_version")})
    keys = []
    for group, some in parts.split(table, groups):
        buffer = io.BytesIO()
        pq.write_table(some, buffer, **parts.write_options(table.schema))
        data = buffer.getvalue()
        digest = _made_digest(some, measured) if measured else hashlib.sha256(data).hexdigest()
        key = f"{_part_lead(model, group['day'], group['version'])}{digest[:32]}.parquet"
        store.write_bytes(key, data, if_absent=not measured)
        keys.append(key)
    return sorted(keys)


def _made_digest(table: pa.Table, measured: Collection[str]) -> str:
    kept = table.drop_columns(list(measured)).combine_chunks()
    digest = hashlib.sha256(kept.schema.serialize())
    for batch in kept.to_batches():
        digest.update(batch.serialize())
    return digest.hexdigest()


def _part_lead(model: str, day: date, version: str) -> str:
    return f"{parts.folder_of(predictions_root(model), day)}{_version_name(version)}-"


def _version_name(version: str) -> str:
    return re.sub(r"[^\w.]", "_", version)


def _version_of(key: str) -> str:
    return key.rpartition("/")[2].rpartition("-")[0]


def part_keys(store: Store, model: str, start: date, end: date) -> list[str]:
    """Return the parts that count of the days from `start` to `end`, both included."""
    return parts.live_parts(store, predictions_root(model), start, end)


# --- reading --------------------------------------------------------------------------------------------


def copy_window(
    store: Store,
    model: str,
    start: datetime,
    end: datetime,
    out: Path,
    *,
    version: str | None = None,
    shadow: bool = False,
) -> int:
    """Copy the rows of a stretch of time into one Parquet file, in bounded memory.

    Rows of the same request id, row, event time, version, key and inputs are one prediction that was asked for
    twice: the one logged first is copied. The rows are in no particular order.

    Args:
        store: Where the log is.
        model: Registered name.
        start: First event time, aware.
        end: End of the event times, itself not included.
        out: The file; replaced when it is there.
        version: Only rows of this version; None for all, where a feature that was a number in one version and
            a category in another comes as text.
        shadow: Copy also the rows of arm `shadow`, which were computed and answered nobody: to compare a challenger
            with the champion, never to judge what was served.

    Returns:
        The number of rows; for none the file has the log's own columns, and features only where they are known.
    """
    root = predictions_root(model)
    first, last = start.astimezone(UTC).date(), end.astimezone(UTC).date()
    where = [f"epoch_us({{_time}}) >= {_micros(start)} AND epoch_us({{_time}}) < {_micros(end)}"]
    if version is not None:
        where.append("{_version} = '" + version.replace("'", "''") + "'")
    if not shadow:
        where.append("{_arm} IS DISTINCT FROM 'shadow'")
    out.parent.mkdir(parents=True, exist_ok=True)

    def copy() -> int:
        keys = parts.live_parts(store, root, first, last)
        if version is not None:
            keys = [key for key in keys if _version_of(key) == _version_name(version)]
        with parts.scratch(out.parent) as work:
            paths = [parts.local_part(store, key, work) for key in keys]
            rows = copy_rows(paths, " AND ".join(where), work / "copy.parquet", work)
            (work / "copy.parquet").replace(out)
        return rows

    return parts.read_stable(root, copy)


def _micros(moment: datetime) -> int:
    whole = moment.astimezone(UTC)
    return int(whole.timestamp()) * 1_000_000 + whole.microsecond


# --- upkeep ---------------------------------------------------------------------------------------------


def compact(store: Store, model: str, *, before: date) -> int:
    """Merge the parts of every day before `before`, those of each version into one or a few.

    Returns:
        How many parts were merged away.
    """
    return _merge_days(store, model, None, before, _Merging(2, _FULL_BYTES, 60.0))


def merge_small(store: Store, model: str, day: date, *, at_least: int) -> int:
    """Merge the parts of one day where a version has many; do nothing while somebody else rewrites.

    Returns:
        How many parts were merged away.
    """
    return _merge_days(store, model, day, day + _DAY, _Merging(at_least, _SMALL_BYTES, 0.0))


@dataclass(frozen=True)
class _Merging:
    """When parts are merged: so many of them, each smaller than that; and how long to wait for the leave to."""

    at_least: int
    full_bytes: int
    wait: float


def _merge_days(store: Store, model: str, start: date | None, before: date, how: _Merging) -> int:
    root = predictions_root(model)
    merged = 0
    last = before - _DAY
    with rewriting(store, root, wait=how.wait) as lease:
        parts.finish_left(store, lease, root, start, last)
        groups: dict[tuple[date, str], list[str]] = {}
        for key in parts.live_parts(store, root, start, last):
            day = parts.day_of(key)
            if day is not None:
                groups.setdefault((day, _version_of(key)), []).append(key)
        for (day, version), keys in groups.items():
            if len(keys) >= how.at_least:
                merged += _merge(store, lease, _part_lead(model, day, version), keys, how)
    return merged


def _merge(store: Store, lease: Lease, lead: str, keys: Sequence[str], how: _Merging) -> int:
    merged = 0
    with parts.scratch() as work:
        paths = {key: parts.local_part(store, key, work) for key in keys}
        small = {key: path for key, path in paths.items() if path.stat().st_size < how.full_bytes}
        if len(small) < how.at_least:
            return 0
        for number, some in enumerate(_batches(small, how.full_bytes)):
            out = work / f"merged-{number}.parquet"
            copy_rows([paths[key] for key in some], "true", out, work)
            with out.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            parts.replace_parts(store, lease, some, f"{lead}{digest[:32]}.parquet", out)
            merged += len(some)
    return merged


def _batches(paths: Mapping[str, Path], full_bytes: int) -> list[list[str]]:
    """Return groups of two or more keys whose files come to the size of a full part."""
    groups: list[list[str]] = [[]]
    size = 0
    for key, path in paths.items():
        if size >= full_bytes:
            groups.append([])
            size = 0
        groups[-1].append(key)
        size += path.stat().st_size
    return [group for group in groups if len(group) > 1]


def find_key(store: Store, model: str, key: str) -> pa.Table:
    """Return `_request_id` and `_row` of every logged prediction about one entity."""
    fields = pa.schema([PREDICTIONS.field("_request_id"), PREDICTIONS.field("_row")])
    found = [fields.empty_table()]
    for part in parts.live_parts(store, predictions_root(model)):
        with parts.scratch() as work:
            path = parts.local_part(store, part, work)
            found.append(
                pq.read_table(path, columns=fields.names, filters=[("_key", "=", key)]).cast(fields)
            )
    return pa.concat_tables(found)


def forget(store: Store, model: str, key: str) -> dict[str, int]:
    """Remove the rows about one entity from the log.

    Rows that serving holds in memory come a few seconds later; forget again then.

    Returns:
        `rows` removed and `parts` written anew or deleted.
    """
    root = predictions_root(model)
    gone = {"rows": 0, "parts": 0}
    with rewriting(store, root) as lease:
        parts.finish_left(store, lease, root)
        for part in parts.live_parts(store, root):
            rows = parts.drop_rows(
                store, lease, part, lambda table: pc.equal(table["_key"], key), ["_key"]
            )
            gone["rows"] += rows
            gone["parts"] += rows > 0
    return gone
