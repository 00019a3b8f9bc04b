"""What tests of the monitor's statistics start from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.unit.monitor.live import World, make_spec, rows


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, make_spec(), rows(2000))


@pytest.fixture
def live() -> pd.DataFrame:
    return rows(600, seed=1)
