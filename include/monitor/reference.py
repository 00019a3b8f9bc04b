"""The reference: what the champion learned from and how it scored, kept small enough to stay with the version.

A folder of three files: `inputs.parquet` (a sample of its snapshot), `scored.parquet` (a sample of its holdout with
its own predictions) and `reference.json` (the profile over all rows), written last: with it the folder is complete.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from include.errors import DataError
from include.monitor.profile import Profile, build_profile, dump
from include.scoring.metrics import labels
from include.scoring.model import LoadedModel, predict
from include.spec.schema import Spec
from include.store.features import Features, category_text, category_texts, model_frame
from include.store.files import Store
from include.store.predictions import PREDICTIONS
from include.store.snapshots import ARROW_TYPES, Manifest, read_frame, snapshot_paths
from include.store.split import holdout_mask, plan_split

SAMPLE_ROWS = 100_000
_SEED = 0
_INPUTS, _SCORED, _FACTS = "inputs.parquet", "scored.parquet", "reference.json"
_FORMAT = 1


@dataclass(frozen=True)
class Reference:
    """What live data of one version is compared with.

    Attributes:
        version: The version.
        inputs: Parquet file: features and target of up to 100,000 rows of its snapshot, drawn at random.
        scored: Parquet file: `_score`, `_prediction` and target of up to 100,000 rows of its holdout.
        profile: Its features over all rows of the snapshot.
        metrics: Its holdout metrics, those that are defined.
    """

    version: str
    inputs: Path
    scored: Path
    profile: Profile
    metrics: dict[str, float]


def build_reference(
    spec: Spec,
    store: Store,
    manifest: Manifest,
    model: LoadedModel,
    metrics: Mapping[str, float],
    out: Path,
) -> Reference:
    """Make a version's reference from its snapshot. Safe to repeat and to run twice at once.

    Args:
        spec: Names target and task.
        store: Where the snapshot is.
        manifest: The snapshot the version was made from.
        model: The version; where it does not say how its holdout was chosen, the spec does.
        metrics: Its holdout metrics, as its metadata has them.
        out: Folder for the three files; made when missing.

    Raises:
        SnapshotError: A file of the snapshot is missing or damaged.
        DataError: The snapshot has no rows, or lacks a column of the model.
        ModelError: The model fails on its holdout.
    """
    out.mkdir(parents=True, exist_ok=True)
    split = model.split or plan_split(spec, store, manifest)
    mask = holdout_mask(read_frame(store, manifest, list(dict.fromkeys(split.needs))), split)
    target = spec.ingest.target
    names = [*model.features.names, target]
    inputs = _read(store, manifest, names, _draw(np.flatnonzero(np.ones(len(mask)))))
    held = _read(store, manifest, names, _draw(np.flatnonzero(mask)))
    logged = _logged(model.features)
    frame = model_frame(inputs, logged)
    columns: dict[str, Any] = {name: frame[name] for name in logged.names}
    kinds = [pa.float64()] * len(logged.numeric) + [pa.string()] * len(logged.categorical)
    _write(
        out / _INPUTS,
        {**columns, target: _target(spec, inputs)},
        [*kinds, _target_type(spec)],
    )
    _write(
        out / _SCORED,
        {**_scores(spec, model, held), target: _target(spec, held)},
        [pa.float64(), pa.string(), _target_type(spec)],
    )
    profile = build_profile(snapshot_paths(store, manifest), manifest, logged)
    facts = {
        "format": _FORMAT,
        "version": model.version,
        "metrics": {n: float(v) for n, v in metrics.items() if v is not None and math.isfinite(v)},
        "profile": profile.to_dict(),
    }
    part = _part(out / _FACTS)
    part.write_text(dump(facts), encoding="utf-8")
    part.replace(out / _FACTS)
    return load_reference(out)


def load_reference(folder: Path) -> Reference:
    """Read what `build_reference` wrote.

    Raises:
        DataError: The folder is incomplete, or of a newer format.
    """
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        if facts["format"] != _FORMAT:
            raise ValueError(f"format {facts['format']}")
        profile = Profile.from_dict(facts["profile"])
        version, metrics = facts["version"], facts["metrics"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{type(error).__name__}: {error}") from error
    for name in (_INPUTS, _SCORED):
        if not (folder / name).is_file():
            raise _damaged(folder, f"no {name}")
    return Reference(version, folder / _INPUTS, folder / _SCORED, profile, metrics)


def _damaged(folder: Path, got: str) -> DataError:
    return DataError(
        str(folder),
        f"must hold a version's reference of format {_FORMAT}, got {got}",
        "Delete the folder; the next pass of the monitor makes it again.",
    )


def _logged(features: Features) -> Features:
    """Leave out features with the name of a column of the prediction log, as the log does."""
    numeric, categorical = (
        tuple(n for n in names if n not in PREDICTIONS.names)
        for names in (features.numeric, features.categorical)
    )
    return Features(numeric, categorical)


def _draw(positions: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return the same rows every time: all of them, or a random sample, in stored order."""
    if len(positions) <= SAMPLE_ROWS:
        return positions
    chosen = np.random.default_rng(_SEED).choice(positions, SAMPLE_ROWS, replace=False)
    return np.sort(chosen)


def _read(
    store: Store, manifest: Manifest, names: Sequence[str], positions: npt.NDArray[np.intp]
) -> pa.Table:
    """Read rows by position, batch by batch, so that memory follows the sample and not the snapshot."""
    wanted = list(dict.fromkeys(names))
    schema = pa.schema([(n, ARROW_TYPES[manifest.types[n]]) for n in wanted])
    tables, start = [schema.empty_table()], 0
    for path in snapshot_paths(store, manifest):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=wanted):
                first, last = np.searchsorted(positions, [start, start + batch.num_rows])
                kept = pa.Table.from_batches([batch]).take(
                    pa.array(positions[first:last] - start, pa.int64())
                )
                tables.append(kept.select(wanted).cast(schema))
                start += batch.num_rows
    return pa.concat_tables(tables)


def _scores(spec: Spec, model: LoadedModel, rows: pa.Table) -> dict[str, Any]:
    """Return what the prediction log would say of these rows."""
    if not rows.num_rows:
        return {"_score": [], "_prediction": []}
    predicted = predict(model, model_frame(rows, model.features), spec.task, model.classes)
    if spec.task == "regression":
        return {"_score": predicted, "_prediction": [repr(float(p)) for p in predicted]}
    texts = np.array([category_text(value) for value in model.classes], dtype=object)
    score = predicted if spec.task == "binary" else predicted.max(axis=1)
    return {"_score": score, "_prediction": texts[labels(spec.task, predicted)]}


def _target(spec: Spec, rows: pa.Table) -> Any:
    values: pd.Series[Any] = rows.column(spec.ingest.target).to_pandas()
    return values if spec.task == "regression" else category_texts(values)


def _target_type(spec: Spec) -> pa.DataType:
    return pa.float64() if spec.task == "regression" else pa.string()


def _write(path: Path, columns: Mapping[str, Any], kinds: Sequence[pa.DataType]) -> None:
    arrays = [
        pa.array(values, kind, from_pandas=True)
        for values, kind in zip(columns.values(), kinds, strict=True)
    ]
    part = _part(path)
    pq.write_table(pa.Table.from_arrays(arrays, names=list(columns)), part, compression="zstd")
    part.replace(path)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")
