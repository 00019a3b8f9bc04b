"""The stored input example is typical, and nobody's."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from include.store.example import example_frame
from include.store.features import Features
from include.store.files import Store
from include.store.snapshots import Manifest

FEATURES = Features(("age", "calls", "empty"), ("plan", "nothing"))


def test_rows_are_medians_and_frequent_values(
    folder_store: Store, commit: Callable[[Store, pa.Table], Manifest]
) -> None:
    table = pa.table(
        {
            "age": pa.array([10.0, 20.0, 30.0, 40.0, None]),
            "calls": pa.array([0, 1, 1, 7, 9]),
            "empty": pa.array([None] * 5, pa.float64()),
            "plan": pa.array(["a", "b", "b", "c", None]),
            "nothing": pa.array([None] * 5, pa.string()),
        }
    )
    example = example_frame(folder_store, commit(folder_store, table), FEATURES)
    assert list(example.columns) == list(FEATURES.names)
    assert len(example) == 3
    assert set(example["calls"]) == {1.0, 7.0}  # whole numbers stay whole
    assert set(example["age"]) <= {10.0, 20.0, 30.0, 40.0}
    assert example["plan"].tolist()[0] == "b"
    assert np.isnan(example["empty"]).all()
    assert example["nothing"].isna().all()
