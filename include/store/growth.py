"""How much of a snapshot is new since another one."""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from include.store.files import Store
from include.store.snapshots import Manifest, read_table


def count_new_rows(store: Store, manifest: Manifest, before: Manifest, time: str | None) -> int:
    """Count the rows a snapshot has beyond an earlier one.

    Args:
        store: Where the snapshot is.
        manifest: The snapshot.
        before: The earlier one; only its manifest is needed.
        time: Event time column: rows after the earlier snapshot's newest count. None compares the numbers
            of rows, which a window that forgets old rows keeps low.
    """
    if time is None or before.time_end is None:
        return max(manifest.rows - before.rows, 0)
    times = read_table(store, manifest, [time]).column(0).cast(pa.timestamp("us", "UTC"))
    newest = pa.scalar(datetime.fromisoformat(before.time_end), pa.timestamp("us", "UTC"))
    return int(pc.sum(pc.greater(times, newest)).as_py() or 0)
