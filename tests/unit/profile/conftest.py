"""Small files with one flaw each, and the draft they lead to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from include.profile.column import Column
from include.profile.columns import read_columns
from include.profile.decide import Draft, decide
from include.profile.table import open_table

ROWS = 400


@pytest.fixture
def base() -> dict[str, Any]:
    """Two harmless features and a binary target that depends on one of them."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=ROWS)
    return {
        "x": x.round(3),
        "colour": rng.choice(["red", "green", "blue"], size=ROWS),
        "y": (x + rng.normal(size=ROWS) > 0).astype(int),
    }


@pytest.fixture
def draft_of(tmp_path: Path) -> Callable[..., Draft]:
    def make(data: dict[str, Any], ending: str = "csv", **options: Any) -> Draft:
        path = write(data, tmp_path / f"data.{ending}")
        with open_table(str(path)) as raw:
            table, columns = read_columns(raw)
            return decide(table, columns, path=str(path), **{"target": "y", **options})

    return make


@pytest.fixture
def columns_of(tmp_path: Path) -> Callable[..., dict[str, Column]]:
    def make(data: dict[str, Any], ending: str = "csv") -> dict[str, Column]:
        with open_table(str(write(data, tmp_path / f"data.{ending}"))) as raw:
            return {c.name: c for c in read_columns(raw)[1]}

    return make


def write(data: dict[str, Any], path: Path) -> Path:
    frame = pd.DataFrame(data)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True, date_format="iso")
    return path
