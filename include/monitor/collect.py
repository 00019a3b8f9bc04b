"""`collect`: the window's rows of the prediction log, as one Parquet file that every check reads."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from include.monitor.windows import Window
from include.spec.schema import Spec
from include.store.files import Store
from include.store.predictions import copy_window


@dataclass(frozen=True)
class Collected:
    """One window of one version.

    Attributes:
        window: The stretch of time.
        version: The version whose predictions these are.
        rows: How many.
        path: Parquet file with the prediction log's columns.
    """

    window: Window
    version: str
    rows: int
    path: Path


def collect(spec: Spec, store: Store, window: Window, version: str, *, out: Path) -> Collected:
    """Copy a window of the prediction log into `window.parquet`. Safe to repeat.

    Args:
        spec: Names the model.
        store: Where the log is.
        window: The stretch of time.
        version: Rows of other versions are left out.
        out: Folder of the file; made when missing.

    Raises:
        DataError: A part of the log cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "window.parquet"
    part = out / f".window.{uuid.uuid4().hex}.parquet"
    try:
        rows = copy_window(store, spec.model, window.start, window.end, part, version=version)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return Collected(window, version, rows, path)
