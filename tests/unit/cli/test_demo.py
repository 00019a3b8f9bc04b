"""The demo's upstream world."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.cli.demo import DAYS, simulate_upstream
from include.errors import SpecError
from include.settings import ROOT

NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)
SPEC = (ROOT / "include/models/churn.yaml").read_text()


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVERGREEN_MODELS", str(tmp_path))
    return tmp_path


def test_batches_end_yesterday_and_stay_as_they_are(models: Path) -> None:
    text = SPEC.replace(".evergreen/data/churn/*.parquet", str(models / "data" / "*.parquet"))
    (models / "churn.yaml").write_text(text)
    files = simulate_upstream(NOW)
    assert len(files) == DAYS
    assert files[-1].name == "2026-03-01.parquet"
    before = [f.stat().st_mtime_ns for f in files]
    assert [f.stat().st_mtime_ns for f in simulate_upstream(NOW)] == before


def test_a_spec_that_reads_elsewhere_is_said(models: Path) -> None:
    text = SPEC.replace("path: .evergreen/data/churn/*.parquet", "path: [a.csv, b.csv]")
    (models / "churn.yaml").write_text(text)
    with pytest.raises(SpecError, match="one glob of files"):
        simulate_upstream(NOW)
