"""Scenarios do what they say, on the days they say, and nothing else."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.errors import SpecError
from include.simulator.churn import Drift, daily_batch, true_probability
from include.simulator.scenarios import KEY, PERSONAL, SCENARIOS, TARGET, TIME, World

ONSET = date(2026, 3, 5)
BEFORE, AFTER = ONSET - timedelta(days=1), ONSET + timedelta(days=1)
DAY = timedelta(days=1)


def world(scenario: str, **changes: object) -> World:
    return World(scenario, ONSET, **{"rows": 300, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("scenario", sorted(set(SCENARIOS) - {"seasonal"}))
def test_before_the_onset_all_are_the_same(scenario: str) -> None:
    usual = daily_batch(BEFORE, rows=300)
    it = world(scenario)
    pd.testing.assert_frame_equal(it.batch(BEFORE), usual)
    pd.testing.assert_frame_equal(it.requests(BEFORE), usual.drop(columns=[TARGET, PERSONAL]))
    assert it.arrivals(BEFORE) == [BEFORE - it.delay]
    assert not it.is_different(BEFORE)


@given(
    scenario=st.sampled_from(sorted(SCENARIOS)),
    seed=st.integers(0, 50),
    gone=st.integers(-30, 60),
)
@settings(max_examples=25, deadline=None)
def test_a_day_depends_on_nothing_but_the_seed_and_the_day(
    scenario: str, seed: int, gone: int
) -> None:
    day = ONSET + gone * DAY
    first, again = world(scenario, seed=seed, rows=40), world(scenario, seed=seed, rows=40)
    first.requests(ONSET)
    pd.testing.assert_frame_equal(first.requests(day), again.requests(day))
    pd.testing.assert_frame_equal(first.batch(day), again.batch(day))
    assert list(first.requests(day)[KEY]) == list(first.labels(day)[KEY])
    assert PERSONAL not in first.requests(day)
    assert TARGET not in first.requests(day)


@given(scenario=st.sampled_from(sorted(SCENARIOS)))
@settings(max_examples=20, deadline=None)
def test_the_labels_of_every_day_arrive_once(scenario: str) -> None:
    it = world(scenario)
    days = [ONSET - 10 * DAY + n * DAY for n in range(80)]
    came = [known for day in days for known in it.arrivals(day)]
    assert sorted(came) == [day - it.delay for day in days]


def test_labels_are_known_just_before_the_delay_is_over() -> None:
    it = world("calm")
    late = it.labels(AFTER)[TIME] - it.customers(AFTER)[TIME]
    assert set(late) == {it.delay - timedelta(minutes=1)}


def test_a_concept_drift_changes_who_leaves_and_nothing_that_can_be_seen_before() -> None:
    it, usual = world("concept_drift"), daily_batch(AFTER, rows=300)
    pd.testing.assert_frame_equal(it.requests(AFTER), usual.drop(columns=[TARGET, PERSONAL]))
    changed = it.customers(AFTER)
    risk = true_probability(usual, Drift(concept=1.0))
    assert not changed[TARGET].equals(usual[TARGET])
    assert risk[changed[TARGET] == 1].mean() > risk[changed[TARGET] == 0].mean() + 0.1


def test_a_covariate_shift_moves_the_inputs_under_the_same_truth() -> None:
    it, usual = world("covariate_shift", rows=3000), daily_batch(AFTER, rows=3000)
    moved = it.customers(AFTER)
    assert moved["monthly_charges"].mean() > 1.25 * usual["monthly_charges"].mean()
    assert moved["support_calls"].mean() > 1.7 * usual["support_calls"].mean()
    assert abs(moved[TARGET].mean() - true_probability(moved).mean()) < 0.03


def test_seasons_come_back_and_move_little() -> None:
    it = world("seasonal", rows=1500)
    monday = date(2026, 3, 2)
    week = [len(it.customers(monday + n * DAY)) for n in range(7)]
    assert max(week[5:]) < 0.8 * min(week[:5])
    year = [it.customers(monday + 7 * n * DAY) for n in range(16)]
    calls = [day["support_calls"].mean() for day in year]
    assert calls[:8] == pytest.approx(calls[8:], rel=0.12), "a wave of eight weeks"
    assert 1.15 < max(calls) / min(calls) < 1.6
    volumes = [len(day) for day in year]
    assert 1.3 < max(volumes) / min(volumes) < 2


@pytest.mark.parametrize(
    ("seed", "column", "seen"),
    [
        (0, "usage_gb", "missing"),
        (1, "monthly_charges", "missing"),
        (2, "tenure", "text"),
        (3, "contract", "recoded"),
    ],
)
def test_a_schema_breaks_in_four_ways_and_is_mended(seed: int, column: str, seen: str) -> None:
    it = world("schema_break", seed=seed)
    broken = it.requests(AFTER)
    if seen == "missing":
        assert column not in broken
        assert column not in it.batch(AFTER)
    elif seen == "text":
        assert broken[column].str.endswith(" months").all()
    else:
        assert set(broken[column]) == {"MONTHLY", "ONE_YEAR", "TWO_YEARS"}
    pd.testing.assert_frame_equal(
        it.batch(ONSET + 14 * DAY), daily_batch(ONSET + 14 * DAY, rows=300, seed=seed)
    )
    assert it.customers(AFTER).equals(daily_batch(AFTER, rows=300, seed=seed)), "the truth stays"


def test_a_null_burst_blanks_values_but_not_the_truth() -> None:
    it = world("null_burst")
    for sent in (it.requests(AFTER), it.batch(AFTER)):
        assert sent[["usage_gb", "satisfaction"]].isna().mean().min() > 0.5
    assert it.customers(AFTER)["usage_gb"].isna().mean() < 0.1
    assert it.requests(ONSET + 14 * DAY)["usage_gb"].isna().mean() < 0.1


def test_an_outage_keeps_labels_back_and_brings_all_of_them_at_once() -> None:
    it = world("label_outage")
    assert it.arrivals(ONSET) == it.arrivals(ONSET + 20 * DAY) == []
    assert len(it.arrivals(ONSET + 21 * DAY)) == 22
    assert len(it.arrivals(ONSET + 22 * DAY)) == 1


def test_a_spike_is_over_after_two_days() -> None:
    it = world("spike")
    assert [len(it.requests(ONSET + n * DAY)) for n in (-1, 0, 1, 2)] == [300, 6000, 6000, 300]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scenario": "storm"}, "must be one of calm, .*, got 'storm'"),
        ({"rows": 0}, "at least 1 customer a day"),
        ({"delay": timedelta(hours=36)}, "labels after whole days"),
        ({"delay": timedelta(0)}, "labels after whole days"),
    ],
)
def test_refuses_a_world_that_cannot_be(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        World(**{"scenario": "calm", "onset": ONSET, **arguments})  # type: ignore[arg-type]


def test_days_begin_and_end_in_utc() -> None:
    times = world("calm").requests(AFTER)[TIME]
    start = datetime(2026, 3, 6, tzinfo=UTC)
    assert times.min() >= start
    assert times.max() < start + DAY
    assert times.is_monotonic_increasing
