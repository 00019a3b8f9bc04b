"""What tests of the monitor's statistics start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.unit.monitor.live import World, make_spec


def rows(count: int, seed: int = 0) -> pd.DataFrame:
    """Return well-behaved rows: two numbers, a long-tailed one, a category."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.normal(40, 10, count),
            "use": rng.normal(0, 1, count),
            "income": rng.lognormal(0, 2, count),
            "region": rng.choice(["north", "south", "west"], count),
        }
    )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, make_spec(), rows(2000))


@pytest.fixture
def live() -> pd.DataFrame:
    return rows(600, seed=1)
