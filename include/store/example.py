"""A typical input of a model, made from a snapshot without copying anybody's row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from include.store.features import Features, model_frame
from include.store.files import Store
from include.store.snapshots import Manifest, snapshot_paths

_QUARTILES = (0.5, 0.25, 0.75)
_LOOKED_AT = 2000


def example_frame(store: Store, manifest: Manifest, features: Features) -> pd.DataFrame:
    """Return three made-up rows: per column the median and quartiles, or the most frequent categories.

    Args:
        store: Where the snapshot is.
        manifest: Its manifest; only its first rows are looked at.
        features: The model's input.

    Returns:
        DataFrame, shape (3, n_features), as `model_frame` makes them; a column without values is missing.
    """
    first = pq.ParquetFile(snapshot_paths(store, manifest)[0])
    batch = next(first.iter_batches(batch_size=_LOOKED_AT, columns=list(features.names)))
    rows = model_frame(pa.Table.from_batches([batch]), features)
    columns: dict[str, object] = {
        name: _quartiles(rows[name].to_numpy()) for name in features.numeric
    }
    columns |= {name: _frequent(rows[name]) for name in features.categorical}
    return model_frame(pd.DataFrame({name: columns[name] for name in features.names}), features)


def _quartiles(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    known = values[np.isfinite(values)]
    if not len(known):
        return np.full(len(_QUARTILES), np.nan)
    # The nearest value there is: the median of whole numbers stays a whole number.
    return np.asarray(np.quantile(known, _QUARTILES, method="nearest"))


def _frequent(values: pd.Series) -> list[object]:
    ranked = list(values.dropna().value_counts().index[: len(_QUARTILES)]) or [None]
    return [ranked[n % len(ranked)] for n in range(len(_QUARTILES))]
