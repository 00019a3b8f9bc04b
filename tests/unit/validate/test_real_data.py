"""The stage on real files, flaws included; needs EVERGREEN_REAL_DATA, a folder with them."""

import os
from pathlib import Path

import pandas as pd
import pytest

FOLDER = os.environ.get("EVERGREEN_REAL_DATA")
pytestmark = pytest.mark.skipif(
    not FOLDER, reason="EVERGREEN_REAL_DATA is not set to the folder of real data"
)


def load(name):
    return pd.read_csv(Path(str(FOLDER)) / name)


def test_bike_rentals_add_up(bench, make_spec, read):
    frame = load("bike_hour.csv")
    frame["dteday"] = pd.to_datetime(frame["dteday"], format="%m/%d/%y", utc=True)
    ingest = {"target": "cnt", "time": "dteday"}
    found = read.only(bench.check(make_spec(task="regression", ingest=ingest), frame), "leakage")
    assert sorted(found.observed["columns"]) == ["casual", "registered"]
    assert "registered + casual = cnt" in found.message
    kept = frame.drop(columns=["casual", "registered"])
    result = bench.check(make_spec(task="regression", ingest=ingest), kept)
    assert result.ok
    assert read.passed(result, "leakage")


def test_telco_customers_have_numbers_that_read_as_text(bench, make_spec, read):
    frame = load("telco_churn.csv")
    spec = make_spec(ingest={"target": "Churn", "key": "customerID", "positive": "Yes"})
    result = bench.check(spec, frame, frame)
    assert result.ok
    found = read.only(result, "many_categories")
    assert found.column == "TotalCharges"
    assert "read as numbers" in found.message
