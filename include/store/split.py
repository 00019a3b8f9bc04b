"""The holdout: which rows the gate judges on, and that no version has trained on.

Owns the split's plan and its application. With a time column the holdout is the newest rows; without one,
membership is a stable hash of the key, so that a row once held out is held out for every later version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from include.errors import DataError
from include.spec.schema import Spec
from include.store.digest import hash_numbers, hash_rows, hash_text, mix
from include.store.features import category_texts, no_column, resolve_features
from include.store.files import Store
from include.store.snapshots import Manifest, read_table


@dataclass(frozen=True)
class Split:
    """How rows are told apart.

    Attributes:
        kind: `time`: the newest rows are held out; `hash`: rows are drawn by a stable hash.
        column: The time column, or the key; None means that whole rows are hashed.
        cutoff: ISO text in UTC; rows strictly after it are held out. None for `hash`.
        share: Share of rows wanted in the holdout.
        columns: The columns hashed where there is no key; else empty.
    """

    kind: Literal["time", "hash"]
    column: str | None
    cutoff: str | None
    share: float
    columns: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "columns": list(self.columns)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` returned."""
        return cls(**{**data, "columns": tuple(data.get("columns", ()))})

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns a frame must have for `holdout_mask`."""
        return (self.column,) if self.column else self.columns


def plan_split(
    spec: Spec, store: Store, manifest: Manifest, *, not_before: str | None = None
) -> Split:
    """Decide which rows of a snapshot are held out.

    Args:
        spec: Names the time, the key and the share.
        store: Where the snapshot is.
        manifest: Its manifest.
        not_before: Training cutoff of the champion as ISO text: rows up to it may have been trained on, so
            the cutoff never lies before it. None where there is no champion; ignored without a time column.

    Raises:
        DataError: All rows have the same time, or the snapshot is empty.
    """
    share = spec.evaluate.holdout
    if spec.ingest.time:
        cutoff = _time_cutoff(spec.ingest.time, share, store, manifest)
        if not_before is not None:
            cutoff = max(cutoff, _micros(not_before))
        return Split("time", spec.ingest.time, _iso(cutoff), share)
    if spec.ingest.key:
        return Split("hash", spec.ingest.key, None, share)
    columns = sorted({*resolve_features(spec, manifest).names, spec.ingest.target})
    return Split("hash", None, None, share, tuple(columns))


def _time_cutoff(column: str, share: float, store: Store, manifest: Manifest) -> int:
    where = f"model {manifest.model}: ingest.time"
    if column not in manifest.types:
        raise no_column(where, "time", column, manifest.types)
    values = read_table(store, manifest, [column]).column(0).drop_null().cast(pa.timestamp("us"))
    times = values.to_numpy().astype("datetime64[us]").view(np.int64)
    if not len(times) or times.min() == times.max():
        raise DataError(
            where,
            f"must have at least two different values to hold out the newest rows, got {len(times)} equal ones",
            "Bring more data, or remove ingest.time.",
        )
    # The small number forgives that 0.2 has no exact binary form: 10 rows at 20% hold out 2, not 1.
    kept = min(len(times) - 1, max(1, int(np.ceil(len(times) * (1 - share) - 1e-9))))
    cutoff = np.partition(times, kept - 1)[kept - 1]
    newest = times.max()
    return int(times[times < newest].max() if cutoff == newest else cutoff)


def _iso(micros: int) -> str:
    return f"{np.datetime64(micros, 'us')}Z"


def _micros(text: str) -> int:
    try:
        moment = pd.Timestamp(datetime.fromisoformat(text))
    except ValueError as error:
        raise DataError("split", f"cutoff must be ISO text, got {text!r}", "Correct it.") from error
    moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
    return int(np.datetime64(moment.tz_localize(None), "us").astype(np.int64))


def holdout_mask(frame: pd.DataFrame, split: Split) -> npt.NDArray[np.bool_]:
    """Tell which rows are held out; the same on every machine and in every version of every library.

    Args:
        frame: n rows with at least the columns `split.needs`.
        split: The plan.

    Returns:
        bool, shape (n,): True for the holdout. A row without a time is not held out.

    Raises:
        DataError: A column is missing, or the time column holds no times.
    """
    for name in split.needs:
        if name not in frame:
            raise no_column("split", "the column", name, map(str, frame.columns))
    if split.kind == "time":
        return _after(frame[split.column], split)
    if split.column:
        hashes = hash_text(pa.array(category_texts(frame[split.column]), pa.string()))
    else:
        hashes = hash_rows({name: _value_hashes(frame[name]) for name in split.columns})
    limit = min(int(split.share * 2.0**64), 2**64 - 1)
    # Snapshots are named by the same hashes; one more scrambling keeps the two uses apart.
    result: npt.NDArray[np.bool_] = mix(hashes ^ np.uint64(0x5851F42D4C957F2D)) < np.uint64(limit)
    return result


def _after(times: pd.Series[Any], split: Split) -> npt.NDArray[np.bool_]:
    if not pd.api.types.is_datetime64_any_dtype(times.dtype):
        raise DataError(
            "split",
            f"{split.column!r} must hold timestamps, got {times.dtype}",
            "Read the frame with read_frame.",
        )
    in_utc = times.dt.tz_localize("UTC") if times.dt.tz is None else times
    cutoff = pd.Timestamp(_micros(str(split.cutoff)), unit="us", tz="UTC")
    return (in_utc > cutoff).to_numpy(dtype=np.bool_)


def _value_hashes(values: pd.Series[Any]) -> npt.NDArray[np.uint64]:
    """Hash values as model input: numbers by their float64, so that a later batch of ints hashes alike."""
    if pd.api.types.infer_dtype(values, skipna=True) == "boolean":
        values = values.astype("boolean")  # one null makes a column of truth values one of objects
    if pd.api.types.is_numeric_dtype(values.dtype):
        return hash_numbers(values.to_numpy(np.float64, na_value=np.nan))
    return hash_text(pa.array(category_texts(values), pa.string()))
