"""The part of the prediction log that was written lately, whatever time its events carry."""

from __future__ import annotations

from datetime import datetime, timedelta

from include.store import parts
from include.store.files import Store
from include.store.predictions import predictions_root

_CLOCKS = timedelta(minutes=2)  # by which the store's clock may differ from ours


def recent_parts(store: Store, model: str, since: datetime) -> list[str]:
    """Return the parts that may hold rows logged at `since` or later; they may hold older ones, too.

    Args:
        store: Where the log is.
        model: Registered name.
        since: Aware.
    """
    root = predictions_root(model)
    old = {s.key for s in store.scan(f"{root}/") if s.written_at < since - _CLOCKS}
    return [key for key in parts.live_parts(store, root) if key not in old]
