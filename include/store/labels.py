"""Labels: the truth about predictions, as it arrives, in Parquet parts by day.

Owns the columns, what makes two labels the same, and which of several counts. A batch is named by its content, so
that one sent again writes nothing, also after it was merged with others; of labels of one prediction the one
received last counts.
"""

# ruff: noqa: S608  queries are put together from fixed names, numbers and escaped paths, never from the data

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.store import duck, parts
from include.store.files import Store
from include.store.lease import Lease, rewriting

_TIME = pa.timestamp("us", tz="UTC")
#: A label names its prediction by request id (and row), or by key (and time, where known).
LABELS = pa.schema(
    [
        ("request_id", pa.string()),
        ("row", pa.int32()),
        ("key", pa.string()),
        ("time", _TIME),
        ("label", pa.string()),
        ("received_at", _TIME),
    ]
)
_MERGED = "merged-"
_BATCHES = (
    b"batches"  # metadata of a merged part: the batches in it, by the beginning of their digests
)
_SHORT = 32
_REPEATS = 7  # days in which a batch of labels without times is known again
_CONTENT = [name for name in LABELS.names if name != "received_at"]
_NEWEST = (
    "QUALIFY row_number() OVER (PARTITION BY request_id, row, "
    "CASE WHEN request_id IS NULL THEN key END, CASE WHEN request_id IS NULL THEN time END "
    "ORDER BY received_at DESC, label DESC) = 1"
)


def labels_root(model: str) -> str:
    """Return the labels' folder in the store."""
    return f"labels/{model}"


def write_labels(store: Store, model: str, rows: pa.Table, *, batch: str = "") -> int:
    """Store labels durably; a batch that was stored before writes nothing, whatever came since.

    Args:
        store: Where to.
        model: Registered name.
        rows: Columns of `LABELS`, n >= 0 rows: `label` and `received_at` in each, and `request_id` or `key`.
            A row with a request id and no `row` is about the request's first row.
        batch: Tells a batch from another one of the same labels: to set a label back to what it was once.

    Returns:
        How many rows were written.
    """
    whole = _plain(rows)
    moment = pc.coalesce(whole["time"], whole["received_at"])
    day = pc.cast(pc.floor_temporal(moment, unit="day"), pa.date32())
    written = 0
    # Those without a time are filed by arrival, which another delivery does not share: a batch of their own.
    for group, mine in parts.split(
        whole, pa.table({"day": day, "dated": pc.is_valid(whole["time"])})
    ):
        if _put(store, model, group["day"], mine, batch, back=0 if group["dated"] else _REPEATS):
            written += mine.num_rows
    return written


def _plain(rows: pa.Table) -> pa.Table:
    """Return the rows in the form they are stored and compared in, each once."""
    table = rows.select(LABELS.names).cast(LABELS)
    row = pc.if_else(
        pc.is_valid(table["request_id"]),
        pc.fill_null(table["row"], 0),
        pa.scalar(None, pa.int32()),
    )
    table = table.set_column(1, LABELS.field("row"), row)
    once = table.group_by(_CONTENT).aggregate([("received_at", "max")])
    ordered = once.rename_columns([*_CONTENT, "received_at"]).select(LABELS.names)
    return ordered.sort_by([(name, "ascending") for name in LABELS.names])


def _put(store: Store, model: str, day: date, rows: pa.Table, batch: str, *, back: int) -> bool:
    """Write a batch unless it is there, on its day or as many days `back`."""
    root = labels_root(model)
    digest = hashlib.sha256(batch.encode() + _parquet(rows.select(_CONTENT))).hexdigest()
    there = parts.list_days(store, root, day - timedelta(days=back), day)
    if _is_among(store, there, digest):
        return False
    key = f"{parts.folder_of(root, day)}{digest}.parquet"
    return store.write_bytes(key, _parquet(rows), if_absent=True)


def _is_among(store: Store, keys: Sequence[str], digest: str) -> bool:
    """Tell whether a batch is one of the parts, or was merged into one."""
    if any(key.endswith(f"/{digest}.parquet") for key in keys):
        return True
    with parts.scratch() as work:
        for key in keys:
            if key.rpartition("/")[2].startswith(_MERGED):
                with suppress(parts.PartGoneError, FileNotFoundError):  # merged again this instant
                    if digest[:_SHORT] in _batches_of(parts.local_part(store, key, work)):
                        return True
    return False


def _batches_of(path: Path) -> list[str]:
    metadata: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    return metadata.get(_BATCHES, b"").decode().split()


def _parquet(rows: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(rows.combine_chunks(), buffer, **parts.write_options(rows.schema))
    return buffer.getvalue()


def read_labels(store: Store, model: str, start: datetime, end: datetime | None = None) -> pa.Table:
    """Return the labels of a stretch of time, of each prediction the one received last.

    Args:
        store: Where they are.
        model: Registered name.
        start: First time, aware: of a label's `time`, or of its arrival where it has none.
        end: End of the times, itself not included; None for all since `start`.

    Returns:
        Columns of `LABELS`, one row for each (request id, row) or (key, time), in no particular order.
    """
    root = labels_root(model)
    last = end.astimezone(UTC).date() if end else None
    moment = "epoch_us(coalesce(time, received_at))"
    where = f"{moment} >= {_micros(start)}" + (f" AND {moment} < {_micros(end)}" if end else "")

    def read() -> pa.Table:
        keys = parts.live_parts(store, root, start.astimezone(UTC).date(), last)
        if not keys:
            return LABELS.empty_table()
        with parts.scratch() as work, duck.connect(work) as connection:
            paths = [parts.local_part(store, key, work) for key in keys]
            query = f"SELECT * FROM {duck.source(paths)} WHERE {where} {_NEWEST}"
            return connection.sql(query).to_arrow_table().select(LABELS.names).cast(LABELS)

    return parts.read_stable(root, read)


def _micros(moment: datetime) -> int:
    return int(moment.replace(microsecond=0).timestamp()) * 1_000_000 + moment.microsecond


# --- upkeep ---------------------------------------------------------------------------------------------


def compact(store: Store, model: str, *, before: date) -> int:
    """Merge the parts of every day before `before` into one, without labels that were corrected since.

    Returns:
        How many parts were merged away.
    """
    root = labels_root(model)
    last = date.fromordinal(before.toordinal() - 1)
    merged = 0
    with rewriting(store, root) as lease:
        parts.finish_left(store, lease, root, None, last)
        days: dict[date, list[str]] = {}
        for key in parts.live_parts(store, root, None, last):
            day = parts.day_of(key)
            if day is not None:
                days.setdefault(day, []).append(key)
        for day, keys in days.items():
            if len(keys) > 1:
                _merge(store, lease, model, day, keys)
                merged += len(keys)
    return merged


def _merge(store: Store, lease: Lease, model: str, day: date, keys: Sequence[str]) -> None:
    with parts.scratch() as work, duck.connect(work) as connection:
        paths = [parts.local_part(store, key, work) for key in keys]
        query = f"SELECT * FROM {duck.source(paths)} {_NEWEST}"
        out = work / "merged.parquet"
        table = connection.sql(query).to_arrow_table().select(LABELS.names).cast(LABELS)
        known = {batch for path in paths for batch in _batches_of(path)}
        names = [key.rpartition("/")[2].removesuffix(".parquet") for key in keys]
        known.update(name[:_SHORT] for name in names if not name.startswith(_MERGED))
        table = table.replace_schema_metadata({_BATCHES: " ".join(sorted(known)).encode()})
        pq.write_table(table, out, **parts.write_options(LABELS))
        with out.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        key = f"{parts.folder_of(labels_root(model), day)}{_MERGED}{digest}.parquet"
        parts.replace_parts(store, lease, keys, key, out)


def forget(store: Store, model: str, key: str, requests: Sequence[str] = ()) -> dict[str, int]:
    """Remove the labels about one entity.

    Args:
        store: Where they are.
        model: Registered name.
        key: The entity.
        requests: `request_id/row` of its predictions, whose labels may name them so and not by key.

    Returns:
        `rows` removed and `parts` written anew or deleted.
    """
    root = labels_root(model)
    named = pa.array(requests, pa.string())
    gone = {"rows": 0, "parts": 0}

    def unwanted(table: pa.Table) -> pa.ChunkedArray:
        of = pc.binary_join_element_wise(
            table["request_id"], pc.cast(table["row"], pa.string()), "/"
        )
        by_request = pc.fill_null(pc.is_in(of, named), False)
        return pc.or_(pc.fill_null(pc.equal(table["key"], key), False), by_request)

    with rewriting(store, root) as lease:
        parts.finish_left(store, lease, root)
        for part in parts.live_parts(store, root):
            rows = parts.drop_rows(store, lease, part, unwanted, ["request_id", "row", "key"])
            gone["rows"] += rows
            gone["parts"] += rows > 0
    return gone
