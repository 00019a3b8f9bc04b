"""Forgetting one entity: its rows go from logged predictions, labels and quarantined data.

Owns the order in which they go, so that a removal that was killed can be repeated: labels are found by way of the
predictions they belong to, so predictions go after them. What a registered version was trained on stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from include.errors import SnapshotError
from include.store import labels, parts, predictions
from include.store.features import category_texts
from include.store.files import Store
from include.store.snapshots import MANIFEST, Manifest, snapshot_prefix


@dataclass(frozen=True)
class Forgotten:
    """What went, and what stayed.

    Attributes:
        predictions: Rows of the prediction log.
        labels: Rows of labels.
        quarantine: Rows of refused snapshots. Such a snapshot goes as a whole, with its report: nothing was
            trained on it, and without the rows it would be another one.
        snapshots: Ids of the refused snapshots that went.
        copies: Work files of the monitor that held such rows.
        kept: Ids of refused snapshots that hold the entity and stay, because a version was trained on them all
            the same.
    """

    predictions: int
    labels: int
    quarantine: int
    snapshots: tuple[str, ...]
    copies: int
    kept: tuple[str, ...]


def forget(
    store: Store, model: str, key: str, *, column: str | None, in_use: Callable[[], Collection[str]]
) -> Forgotten:
    """Remove what is known about one entity. Safe to repeat and to kill.

    Args:
        store: Where everything is.
        model: Registered name.
        key: The entity, as text.
        column: The key column of the model's data; None where it has none, and so no snapshot tells who it is about.
        in_use: Returns the ids of the snapshots that registered versions were made from; asked only when it matters.

    Raises:
        ServiceError: The store does not answer, or somebody else is rewriting the log.
    """
    asked = predictions.find_key(store, model, key).to_pylist()
    requests = [f"{row['_request_id']}/{row['_row']}" for row in asked]
    label_rows = labels.forget(store, model, key, requests)["rows"]
    refused: dict[str, int] = {}
    kept: list[str] = []
    holding = _refused_with(store, model, key, column)
    needed = in_use() if holding else ()
    for snapshot_id, rows in holding.items():
        if snapshot_id in needed:
            kept.append(snapshot_id)
        else:
            refused[snapshot_id] = rows
            _remove_refused(store, model, snapshot_id)
    copies = _remove_copies(store, model, key)
    rows = predictions.forget(store, model, key)["rows"]
    total = sum(refused.values())
    return Forgotten(rows, label_rows, total, tuple(refused), copies, tuple(kept))


def _refused_with(store: Store, model: str, key: str, column: str | None) -> dict[str, int]:
    """Return the refused snapshots that hold the entity, with the number of its rows."""
    found: dict[str, int] = {}
    manifests = [k for k in store.list(f"quarantine/{model}/") if k.endswith(f"/{MANIFEST}")]
    for each in manifests if column else ():
        try:
            manifest = Manifest.from_json(store.read_bytes(each))
        except SnapshotError:
            continue  # of another format: nothing here can tell what it held
        if column not in manifest.types:
            continue
        prefix = snapshot_prefix(model, manifest.snapshot_id)
        files = [f"{prefix}/{file.name}" for file in manifest.files]
        rows = sum(_count(store, file, str(column), key) for file in files if store.exists(file))
        if rows or _is_half_removed(store, each, files):
            found[manifest.snapshot_id] = rows
    return found


def _is_half_removed(store: Store, manifest: str, files: Sequence[str]) -> bool:
    """Tell whether a removal was killed: the reports go first, the manifest here last."""
    folder = manifest.removesuffix(MANIFEST)
    return list(store.list(folder)) == [manifest] and not all(map(store.exists, files))


def _count(store: Store, file: str, column: str, key: str) -> int:
    with parts.scratch() as work:
        path = parts.local_part(store, file, work)
        batches = pq.ParquetFile(path).iter_batches(columns=[column])
        return sum(int((_texts(batch.column(0)) == key).sum()) for batch in batches)


def _texts(values: pa.Array) -> pd.Series[str]:
    """Return keys as text, whatever their type: whole numbers as such, also where some are missing."""
    if pa.types.is_integer(values.type):
        return pd.Series(values.cast(pa.string()).to_pandas(), dtype=object)
    return pd.Series(category_texts(values.to_pandas()), dtype=object)


def _remove_refused(store: Store, model: str, snapshot_id: str) -> None:
    """Delete a refused snapshot; what says which files it had goes last."""
    quarantine = f"quarantine/{model}/{snapshot_id}"
    prefix = snapshot_prefix(model, snapshot_id)
    manifest = Manifest.from_json(store.read_bytes(f"{quarantine}/{MANIFEST}"))
    reports = [k for k in store.list(f"{quarantine}/") if not k.endswith(f"/{MANIFEST}")]
    for key in [*reports, f"{prefix}/{MANIFEST}", *(f"{prefix}/{f.name}" for f in manifest.files)]:
        store.delete(key)
    store.delete(f"{quarantine}/{MANIFEST}")


def _remove_copies(store: Store, model: str, key: str) -> int:
    """Delete the monitor's copies of windows that hold the entity; a pass under way makes its own again."""
    gone = 0
    for copy in list(store.list(f"monitor/{model}/")):
        with parts.scratch() as work:
            try:
                path = parts.local_part(store, copy, work)
            except parts.PartGoneError:
                continue
            if not _holds(path, key):
                continue
        store.delete(copy)
        gone += 1
    return gone


def _holds(path: Path, key: str) -> bool:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError):
        return False  # a report or another file that is no table
    if "_key" not in file.schema_arrow.names:
        return False
    return bool(pq.read_table(path, columns=["_key"], filters=[("_key", "=", key)]).num_rows)
