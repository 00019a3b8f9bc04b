"""Public data with the flaws it was published with: specs from `evergreen new` train without hand-editing."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sklearn.metrics import r2_score, roc_auc_score

from include.ingest.ingest import ingest
from include.profile.new import new_spec
from include.settings import Settings
from include.spec.loader import load_spec
from include.spec.schema import Spec
from include.store.features import model_frame, resolve_features, target_array
from include.store.folder import FolderStore
from include.store.snapshots import read_frame
from include.store.split import holdout_mask, plan_split
from include.train.pipeline import build_pipeline
from include.validate.stage import validate

FOLDER = os.environ.get("EVERGREEN_REAL_DATA", "")
pytestmark = pytest.mark.skipif(
    not FOLDER, reason="EVERGREEN_REAL_DATA names no folder with the public data files"
)
NOW = datetime(2025, 1, 1, tzinfo=UTC)


def make(tmp_path: Path, name: str, file: str, target: str) -> tuple[Spec, str]:
    settings = Settings(home=tmp_path, models=tmp_path / "models")
    made = new_spec(name, str(Path(FOLDER) / file), target, settings=settings)
    return load_spec(made.path, settings), made.text


def score(spec: Spec, tmp_path: Path, estimator: str) -> float:
    """Ingest, validate and fit one default model; return its score on the holdout."""
    store = FolderStore(tmp_path / "store")
    manifest = ingest(spec, store, now=NOW, workdir=tmp_path / "work").manifest
    result = validate(spec, store, manifest, now=NOW, out=tmp_path / "report")
    assert result.ok, [f for f in result.findings if f.severity == "error"]
    frame, split = read_frame(store, manifest), plan_split(spec, store, manifest)
    features, held = resolve_features(spec, manifest), holdout_mask(frame, split)
    y, _ = target_array(frame, spec)
    x = model_frame(frame, features)
    model = build_pipeline(spec, features, estimator, {}).fit(x[~held], y[~held])
    if spec.task == "binary":
        return float(roc_auc_score(y[held], model.predict_proba(x[held])[:, 1]))
    return float(r2_score(y[held], model.predict(x[held])))


def test_bike(tmp_path: Path) -> None:
    spec, text = make(tmp_path, "bike", "bike_hour.csv", "cnt")
    ingest_ = spec.ingest
    assert (spec.task, ingest_.key) == ("regression", None)
    assert (ingest_.time, ingest_.time_format) == ("dteday", "%m/%d/%y")
    assert "'1/13/11' cannot be %d/%m/%y" in text
    assert ingest_.source.model_dump()["missing"] == ("", "NA")
    assert set(ingest_.drop) == {
        "column0", "X", "instant", "casual", "registered", "mnth2", "weekday2", "hr2",
    }  # fmt: skip
    assert "registered + casual = cnt" in text
    assert ingest_.features is not None
    assert set(ingest_.features.numeric) == {
        "season", "yr", "mnth", "hr", "holiday", "weekday", "workingday", "weathersit",
        "temp", "atemp", "hum", "windspeed",
    }  # fmt: skip
    assert not ingest_.features.categorical
    assert score(spec, tmp_path, spec.candidates[1].estimator) > 0.75


def test_telco(tmp_path: Path) -> None:
    spec, text = make(tmp_path, "telco", "telco_churn.csv", "Churn")
    ingest_ = spec.ingest
    assert (spec.task, ingest_.key, ingest_.time) == ("binary", "customerID", None)
    assert ingest_.positive == "Yes"
    assert ingest_.drop == ()
    assert "blanks mean missing: '' in TotalCharges (11)" in text
    assert ingest_.features is not None
    assert set(ingest_.features.numeric) == {
        "SeniorCitizen", "tenure", "MonthlyCharges", "TotalCharges",
    }  # fmt: skip
    assert len(ingest_.features.categorical) == 15
    assert score(spec, tmp_path, spec.candidates[1].estimator) > 0.80
