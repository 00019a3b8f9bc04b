"""The rows the gate judges on, loaded once, and the trivial baseline that the other rows imply.

Owns what is read from a snapshot: one narrow pass over all rows (split and target), one wide pass that keeps
only the held-out rows, batch by batch, so that memory follows the holdout and not the snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from include.scoring.metrics import Floats
from include.spec.metrics import Task
from include.spec.schema import Spec
from include.store.features import category_text, target_array
from include.store.files import Store
from include.store.snapshots import ARROW_TYPES, Manifest, read_frame, snapshot_paths, to_frame
from include.store.split import Split, holdout_mask

_ABSOLUTE_ERRORS = ("mae", "median_ae", "mape")  # their best constant is the median, not the mean


@dataclass(frozen=True)
class Holdout:
    """Held-out rows and the targets of the others.

    Attributes:
        frame: The held-out rows with the columns asked for, n rows.
        training: Target column of the rows that are not held out, as a frame.
        known: Names of all columns of the snapshot.
    """

    frame: pd.DataFrame
    training: pd.DataFrame
    known: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Number of held-out rows."""
        return len(self.frame)


def load_holdout(
    spec: Spec, store: Store, manifest: Manifest, split: Split, columns: Iterable[str]
) -> Holdout:
    """Read the held-out rows of a snapshot.

    Args:
        spec: Names the target.
        store: Where the snapshot is.
        manifest: The snapshot.
        split: Which rows are held out.
        columns: Further columns wanted; those the snapshot does not have are left out.

    Raises:
        SnapshotError: A file is missing or damaged.
        DataError: The target or a column of the split is missing.
    """
    target = spec.ingest.target
    narrow = read_frame(store, manifest, list(dict.fromkeys([target, *split.needs])))
    mask = holdout_mask(narrow, split)
    training = narrow.loc[~mask, [target]]
    del narrow
    names = [n for n in dict.fromkeys([target, *columns]) if manifest.column(n) is not None]
    return Holdout(_masked(store, manifest, names, mask), training, tuple(manifest.types))


def _masked(
    store: Store, manifest: Manifest, names: Sequence[str], mask: NDArray[np.bool_]
) -> pd.DataFrame:
    schema = pa.schema([(n, ARROW_TYPES[manifest.types[n]]) for n in names])
    tables, start = [schema.empty_table()], 0
    for path in snapshot_paths(store, manifest):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=list(names)):
                keep = pa.array(mask[start : start + batch.num_rows])
                start += batch.num_rows
                kept = pa.Table.from_batches([batch]).filter(keep)
                tables.append(kept.select(list(names)).cast(schema))
    return to_frame(pa.concat_tables(tables))


def with_new_classes(classes: Sequence[Any], spec: Spec, *frames: pd.DataFrame) -> list[Any]:
    """Return the classes plus, for multiclass, those that only the frames' targets have.

    A class nobody trained on is every model's miss, not a reason to stop judging.
    """
    if spec.task != "multiclass":
        return list(classes)
    known = {category_text(value) for value in classes}
    found = {category_text(v) for frame in frames for v in frame[spec.ingest.target].unique()}
    return [*classes, *sorted(text for text in found if text is not None and text not in known)]


def baseline_prediction(
    spec: Spec, training: pd.DataFrame, classes: Sequence[Any], rows: int
) -> Floats:
    """Predict what scikit-learn's Dummy would: it looks at the training part's target only.

    Classification answers every row with the training part's class shares; regression with its mean, or
    its median where the primary metric is one of absolute errors.

    Args:
        spec: Names target, task and primary metric.
        training: The target column of the training part.
        classes: As in `include.scoring.model.predict`.
        rows: Number of rows to answer, n.

    Returns:
        As `include.scoring.model.predict`: shape (n,), for multiclass (n, len(classes)).

    Raises:
        DataError: The training part has no rows, or targets that are missing or unknown.

    Source: https://scikit-learn.org/stable/modules/model_evaluation.html#dummy-estimators
    """
    target, _ = target_array(training, spec, classes)
    constant = _constant(spec.task, spec.primary.metric, target, len(classes))
    return np.broadcast_to(constant, (rows, *constant.shape))


def _constant(task: Task, metric: str, target: NDArray[Any], classes: int) -> Floats:
    if task == "regression":
        centre = np.median if metric in _ABSOLUTE_ERRORS else np.mean
        return np.asarray(centre(target), dtype=float)
    shares: Floats = np.bincount(target, minlength=classes) / len(target)
    return np.asarray(shares[1]) if task == "binary" else shares
