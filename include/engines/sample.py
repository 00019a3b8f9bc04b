"""The held-out rows on which engines are compared: evenly spread, bounded in number."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from include.store.features import model_frame
from include.store.files import Store
from include.store.inputs import Features
from include.store.snapshots import Manifest, read_frame, snapshot_paths
from include.store.split import Split, holdout_mask

MOST_ROWS = 10_000


def holdout_sample(
    store: Store, manifest: Manifest, split: Split, features: Features, *, most: int = MOST_ROWS
) -> pd.DataFrame:
    """Return held-out rows as a model frame, `most` at most.

    Args:
        store: Where the snapshot is.
        manifest: The snapshot.
        split: Which rows are held out.
        features: The columns wanted.
        most: Bound on the rows.

    Raises:
        SnapshotError: A file is missing or damaged.
    """
    held = np.flatnonzero(holdout_mask(read_frame(store, manifest, list(split.needs)), split))
    if len(held) > most:
        held = held[np.linspace(0, len(held) - 1, most).astype(np.int64)]
    parts, start = [], 0
    for path in snapshot_paths(store, manifest):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=list(features.names)):
                stop = start + batch.num_rows
                mine = held[(held >= start) & (held < stop)] - start
                parts.append(pa.Table.from_batches([batch]).take(pa.array(mine)))
                start = stop
    return model_frame(pa.concat_tables(parts), features)
