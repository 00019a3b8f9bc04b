"""The simulated world: deterministic by day, unique keys, and a truth that can nearly be learnt."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from include.simulator.churn import CONTRACTS, Drift, daily_batch, true_probability

START = date(2025, 1, 1)
NUMERIC = [
    "tenure",
    "monthly_charges",
    "usage_gb",
    "support_calls",
    "late_payments",
    "satisfaction",
]
CATEGORICAL = ["region", "plan", "contract", "payment_method"]


@pytest.fixture(scope="module")
def season() -> pd.DataFrame:
    days = [daily_batch(START + timedelta(days=d), rows=220) for d in range(90)]
    return pd.concat(days, ignore_index=True)


@given(st.dates(date(2000, 1, 1), date(2100, 1, 1)), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_a_day_is_the_same_whenever_it_is_made(day: date, seed: int) -> None:
    first = daily_batch(day, rows=20, seed=seed)
    daily_batch(day + timedelta(days=1), rows=20, seed=seed)
    pd.testing.assert_frame_equal(first, daily_batch(day, rows=20, seed=seed))
    assert not first["tenure"].equals(daily_batch(day, rows=20, seed=seed + 1)["tenure"])


def test_times_lie_within_the_day_in_order(season: pd.DataFrame) -> None:
    batch = daily_batch(START)
    assert batch["observed_at"].is_monotonic_increasing
    assert set(batch["observed_at"].dt.date) == {START}
    assert str(season["observed_at"].dt.tz) == "UTC"


def test_keys_are_unique_over_all_days(season: pd.DataFrame) -> None:
    assert season["customer_id"].is_unique
    assert season["email"].is_unique


def test_missing_values_are_partly_random_and_partly_telling(season: pd.DataFrame) -> None:
    missing = season.isna().mean()
    assert set(missing[missing > 0].index) == {"usage_gb", "satisfaction"}
    assert 0.03 < missing["usage_gb"] < 0.05
    silent = season["satisfaction"].isna()
    assert season.loc[silent, "support_calls"].mean() > season["support_calls"].mean() + 0.2


def test_churn_follows_the_true_probability(season: pd.DataFrame) -> None:
    truth = true_probability(season)
    by_tenth = season.groupby(pd.qcut(truth, 10), observed=True)["churned"].mean()
    expected = pd.Series(truth).groupby(pd.qcut(truth, 10), observed=True).mean()
    assert np.abs(by_tenth.to_numpy() - expected.to_numpy()).max() < 0.04
    assert 0.2 < season["churned"].mean() < 0.35


def test_models_come_close_to_the_best_possible_score(season: pd.DataFrame) -> None:
    train, test = season.iloc[:15_840], season.iloc[15_840:]
    best = roc_auc_score(test["churned"], true_probability(test))
    scores = {}
    for model in (
        LogisticRegression(max_iter=500),
        HistGradientBoostingClassifier(learning_rate=0.05, random_state=0),
    ):
        pipeline = make_pipeline(
            make_column_transformer(
                (make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), NUMERIC),
                (OneHotEncoder(sparse_output=False), CATEGORICAL),
            ),
            model,
        ).fit(train, train["churned"])
        guess = pipeline.predict_proba(test)[:, 1]
        scores[type(model).__name__] = roc_auc_score(test["churned"], guess)
        assert log_loss(test["churned"], guess) > log_loss(test["churned"], true_probability(test))
    linear, boosted = scores.values()
    assert 0.80 < linear < 0.85
    assert linear + 0.005 < boosted < best < 0.87
    assert best - boosted < 0.03


def test_drift_moves_inputs_and_truth_only_where_asked() -> None:
    usual = daily_batch(START, rows=2000)
    dearer = daily_batch(START, rows=2000, drift=Drift(charges=1.2))
    ratio = dearer["monthly_charges"].mean() / usual["monthly_charges"].mean()
    assert ratio == pytest.approx(1.2, abs=0.01)
    assert dearer["tenure"].equals(usual["tenure"])
    turned = Drift(concept=1.0)
    monthly = (usual["contract"] == CONTRACTS[0]).to_numpy()
    difference = true_probability(usual, turned) - true_probability(usual)
    assert (difference[monthly] < 0).all()
    assert (difference[~monthly] > 0).all()
