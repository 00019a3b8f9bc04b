"""The example specs fit the data they name."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from include.settings import ROOT
from include.simulator import diabetes
from include.simulator.churn import daily_batch
from include.spec.loader import load_spec
from include.spec.sources import PythonSource


@pytest.mark.parametrize("name", ["churn", "diabetes"])
def test_the_spec_is_valid_and_names_every_column_once(name: str) -> None:
    spec = load_spec(ROOT / "include" / "models" / f"{name}.yaml")
    frame = daily_batch(date(2025, 1, 1)) if name == "churn" else diabetes.load()
    ingest = spec.ingest
    assert ingest.features
    named = [ingest.target, ingest.key, ingest.time, *ingest.drop]
    named += [*ingest.features.numeric, *ingest.features.categorical]
    assert sorted(n for n in named if n) == sorted(frame.columns)
    checked = [next(iter(e.values()))["column"] for e in spec.validate_.expectations]
    assert set(checked) <= set(frame.columns)


def test_the_python_source_names_the_function() -> None:
    source = load_spec(Path(ROOT / "include" / "models" / "diabetes.yaml")).ingest.source
    assert isinstance(source, PythonSource)
    assert source.call == f"{diabetes.load.__module__}.{diabetes.load.__name__}"


def test_diabetes_is_in_natural_units() -> None:
    frame = diabetes.load()
    assert frame.shape == (442, 11)
    assert frame["age"].between(18, 80).all()
    assert frame["target"].between(25, 346).all()
