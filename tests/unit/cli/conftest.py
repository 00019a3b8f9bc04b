from pathlib import Path

import pytest
from click.testing import CliRunner

from include.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a stack that was never started, as the commands read them."""
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EVERGREEN_MODELS", str(tmp_path / "models"))
    (tmp_path / "home").mkdir()
    (tmp_path / "models").mkdir()
    return Settings()


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()
