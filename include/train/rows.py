"""The rows a model may learn from: everything but the holdout, loaded and converted once.

Owns what "training part" means and which data no estimator can learn from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from include.errors import DataError
from include.spec.schema import Spec
from include.store.features import Features, model_frame, resolve_features, target_array
from include.store.files import Store
from include.store.snapshots import Manifest, read_frame
from include.store.split import Split, holdout_mask


@dataclass(frozen=True)
class TrainingRows:
    """The training part of a snapshot, oldest row first where there is time.

    Attributes:
        inputs: Raw columns as `model_frame` gives them, n rows.
        target: Class codes (int) or values (float64), shape (n,).
        classes: Class of each code as JSON values; empty for regression.
        times: Rank of each row's time, equal for equal times, never falling, -1 for none; shape (n,). None where
            the split is not by time.
        features: Names of the columns.
    """

    inputs: pd.DataFrame
    target: NDArray[Any]
    classes: list[Any]
    times: NDArray[np.int64] | None
    features: Features


def load_rows(spec: Spec, store: Store, manifest: Manifest, split: Split) -> TrainingRows:
    """Read the training part of a snapshot.

    Args:
        spec: The model's spec.
        store: Where the snapshot is.
        manifest: The snapshot.
        split: Which rows are the holdout; they are left out.

    Raises:
        DataError: No rows are left, the target is missing somewhere, has one class or one value, a feature or the
            target holds infinite values, or no feature varies.
    """
    where = f"snapshot {manifest.snapshot_id} of {manifest.model}"
    features = resolve_features(spec, manifest)
    wanted = dict.fromkeys([*features.names, spec.ingest.target, *split.needs])
    frame = read_frame(store, manifest, list(wanted))
    frame = frame[~holdout_mask(frame, split)]
    if frame.empty:
        raise DataError(
            where,
            f"must leave rows to train on, got all {manifest.rows} in the holdout",
            "Ingest more rows, or make evaluate.holdout smaller.",
        )
    times = None
    if split.kind == "time" and split.column is not None:
        ranks = pd.factorize(frame[split.column], sort=True)[0].astype(np.int64)
        order = np.argsort(ranks, kind="stable")
        frame, times = frame.iloc[order], ranks[order]
    inputs = model_frame(frame, features)
    _check_inputs(inputs, features, where)
    target, classes = target_array(frame, spec)
    if spec.task == "regression" and target.min() == target.max():
        raise DataError(
            f"{where}: column {spec.ingest.target!r}",
            f"must vary in the training part, got only {target[0]} in {len(target)} rows",
            "Ingest a longer window, or make evaluate.holdout smaller.",
        )
    return TrainingRows(inputs, target, classes, times, features)


def _check_inputs(inputs: pd.DataFrame, features: Features, where: str) -> None:
    varies = False
    for name in features.numeric:
        values = inputs[name].to_numpy()
        infinite = int(np.isinf(values).sum())
        if infinite:
            raise DataError(
                f"{where}: column {name!r}",
                f"must hold finite numbers or none, got {infinite} infinite in the training part",
                "Replace them at the source by an empty value.",
            )
        missing = np.isnan(values)
        varies = varies or bool((missing != missing[0]).any())
        varies = varies or bool((values != values[0]).any() and not missing[0])
    if not varies and not any(inputs[n].nunique(dropna=False) > 1 for n in features.categorical):
        raise DataError(
            where,
            f"must hold at least one feature that varies, got {len(features.names)} constant ones in the "
            "training part",
            "Check the source, or list other columns in ingest.features.",
        )
