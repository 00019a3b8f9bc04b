"""A version made again from its record, and how its predictions compare with those of the stored one."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from include.errors import ModelError, SnapshotError
from include.registry.trust import load_model
from include.reproduce.record import Record
from include.scoring.model import LoadedModel, predict
from include.store.digest import RowDigest, hash_values
from include.store.features import model_frame
from include.store.files import Store
from include.store.snapshots import Manifest, read_frame, read_manifest, snapshot_paths
from include.store.split import holdout_mask
from include.train.fit import FitResult, fit

TOLERANCE = 1e-9
MOST_ROWS = 10_000
_BATCH_ROWS = 65_536

Verdict = Literal["identical", "equal", "different"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """How the predictions of two models differ.

    Attributes:
        verdict: `identical`: not at all; `equal`: within `TOLERANCE`, for numbers above 1 relative to their size;
            else `different`.
        max_difference: Largest absolute difference of any probability or number; None where one of the two is no
            finite number and the other one is.
        equal_labels: Share of rows with the same predicted class; None for regression.
        rows: Number of rows compared.
    """

    verdict: Verdict
    max_difference: float | None
    equal_labels: float | None
    rows: int


@dataclass(frozen=True)
class Rebuild:
    """A version made again.

    Attributes:
        comparison: The new model's predictions against the stored one's.
        held_out: Whether the rows compared are of the holdout; else, where that is empty, they are training rows.
        trained_rows: Number of rows it was fitted on.
        seconds: Time of the fit, without reading the data.
    """

    comparison: Comparison
    held_out: bool
    trained_rows: int
    seconds: float


def read_snapshot(record: Record, store: Store) -> Manifest:
    """Return the manifest of the version's snapshot.

    Raises:
        SnapshotError: It is no longer in the store, or damaged.
    """
    try:
        return read_manifest(store, record.spec.model, record.snapshot_id)
    except SnapshotError as error:
        raise SnapshotError(
            f"{record.title}: {error.where}",
            error.rule,
            "Without the data it was trained on, a version cannot be made again: bring the snapshot back from a "
            "backup of the store.",
        ) from error


def verify_rows(store: Store, manifest: Manifest) -> None:
    """Check that the rows are those the snapshot is named after, whatever its manifest says about its files.

    Raises:
        SnapshotError: A file is missing or damaged, or the rows are others.
    """
    digest, names = RowDigest(), [column.name for column in manifest.columns]
    for path in snapshot_paths(store, manifest):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=names):
                digest.update({name: hash_values(batch.column(name)) for name in names})
    found = digest.snapshot_id(manifest.types)
    if found != manifest.snapshot_id:
        raise SnapshotError(
            f"snapshot {manifest.snapshot_id} of {manifest.model}",
            f"must hold the rows it is named after, got rows that make it {found}",
            "Somebody changed files and manifest: bring the snapshot back from a backup of the store.",
        )


def rebuild(record: Record, store: Store, manifest: Manifest) -> Rebuild:
    """Fit the version's estimator again on its own data, and compare the two models' predictions.

    Args:
        record: The version.
        store: Where the snapshot is.
        manifest: The snapshot; see `read_snapshot`.

    Raises:
        SnapshotError: The snapshot is damaged, or not the one the version was trained on.
        ModelError: It cannot be fitted any more: the class is gone, or takes other arguments.
    """
    verify_rows(store, manifest)
    with tempfile.TemporaryDirectory(prefix="evergreen-") as folder:
        try:
            # All arguments are the candidate's own fixed ones: there is nothing left to search.
            result = fit(record.spec, store, manifest, record.split, 0, {}, Path(folder))
        except ModelError as error:  # it names the present spec's file, which plays no part here
            raise ModelError(record.title, error.rule, error.fix) from error
        rebuilt = load_model(result.model_path, result.sha256)
    _check_same_answer(record, result)
    frame, held_out = _rows(record, store, manifest)
    with threadpool_limits(1):
        stored = _answers(record, record.package.pipeline, "the stored model", frame)
        again = _answers(record, rebuilt, "the rebuilt model", frame)
    comparison = compare(stored, again, labels=record.spec.task != "regression")
    return Rebuild(comparison, held_out, result.rows, result.seconds)


def _check_same_answer(record: Record, result: FitResult) -> None:
    for what, then, now in (
        ("classes", record.package.classes, result.classes),
        ("features", record.package.features.to_dict(), result.features.to_dict()),
    ):
        if then != now:
            raise ModelError(
                record.title,
                f"must have the {what} {then} that its metadata says, got {now} from its data",
                "Its metadata or this code changed since it was registered.",
            )


def _rows(record: Record, store: Store, manifest: Manifest) -> tuple[pd.DataFrame, bool]:
    """Return rows to compare on, spread over the holdout, and whether they are of the holdout."""
    features = record.package.features
    wanted = dict.fromkeys([*features.names, *record.split.needs])
    frame = read_frame(store, manifest, list(wanted))
    held = holdout_mask(frame, record.split)
    frame = frame[held] if held.any() else frame
    if len(frame) > MOST_ROWS:
        frame = frame.iloc[np.linspace(0, len(frame) - 1, MOST_ROWS).astype(np.int64)]
    return model_frame(frame, features), bool(held.any())


def _answers(record: Record, pipeline: Any, name: str, frame: pd.DataFrame) -> Floats:
    package = record.package
    model = LoadedModel(
        pipeline, package.features, package.classes, f"{package.version.version}, {name}"
    )
    answers: Floats = predict(model, frame, record.spec.task, package.classes)
    return answers


def compare(stored: Floats, again: Floats, *, labels: bool) -> Comparison:
    """Compare two models' predictions of the same rows.

    Args:
        stored: Numbers or probabilities of the positive class, shape (n,), or of every class, shape (n, classes).
        again: The other model's, of the same shape.
        labels: Whether they are probabilities; a probability of exactly one half is not the event.
    """
    same = (stored == again) | (np.isnan(stored) & np.isnan(again))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(stored - again))
    largest = float(apart.max(initial=0.0))
    equal_labels = float((_codes(stored) == _codes(again)).mean()) if labels else None
    verdict: Verdict = "different"
    if same.all():
        verdict = "identical"
    elif np.isfinite(largest) and (apart <= TOLERANCE * np.maximum(1.0, np.abs(stored))).all():
        verdict = "equal"
    return Comparison(verdict, largest if np.isfinite(largest) else None, equal_labels, len(stored))


def _codes(probabilities: Floats) -> npt.NDArray[Any]:
    return probabilities > 0.5 if probabilities.ndim == 1 else probabilities.argmax(axis=1)
