from pathlib import Path

import pytest

from include.settings import Settings
from include.stack.layout import Layout, get_layout, prepare


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = get_layout(tmp_path / "a home")
    prepare(layout)
    return layout


@pytest.fixture
def settings(layout: Layout) -> Settings:
    return Settings(home=layout.home)
