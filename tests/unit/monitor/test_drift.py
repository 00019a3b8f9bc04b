from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from include.monitor import sample
from include.monitor.distance import Pair, distance, pinned, pooled
from include.monitor.drift import check_drift
from include.scoring.significance import adjusted, homogeneity, proportions, same_distribution
from tests.unit.monitor.live import WINDOW, World, make_spec, of, rows, status, stirred

METHODS = ["psi", "jensenshannon", "ks", "wasserstein"]


def test_the_same_distribution(world, live):
    found = world.drift(live)
    assert {f.status for f in found} == {"ok"}
    assert {f.column for f in of(found, "drift")} == set(live.columns)
    assert len(of(found, "prediction_drift")) == 1


@pytest.mark.parametrize("method", METHODS)
def test_drift_is_found_where_it_is(tmp_path, live, method):
    world = World(tmp_path, make_spec(drift={"method": method}), rows(2000))
    live["age"] += 12
    live["region"] = np.where(np.arange(600) < 420, "north", live["region"])
    found = world.drift(live)
    drifted = {f.column for f in of(found, "drift") if f.status == "alert"}
    assert drifted == {"age", "region"}
    assert all(f.value >= 0.2 == f.threshold for f in found if f.status == "alert")


@pytest.mark.parametrize("method", METHODS)
def test_false_alarms_are_rare_on_the_same_distribution(tmp_path, method):
    """The case in which Evidently by itself reports drift in 14 of 20 windows."""

    def frame(count: int, seed: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        return pd.DataFrame(
            {f"n{i}": rng.normal(size=count) for i in range(10)}
            | {f"l{i}": rng.lognormal(0, 2, count) for i in range(4)}
            | {f"c{i}": rng.choice(list("abcdefgh"), count) for i in range(4)}
            | {"many": rng.zipf(1.6, count).astype(str), "rare": (rng.random(count) < 0.02) + 0.0}
        )

    alarms = 0
    for seed in range(10):
        world = World(tmp_path, make_spec(drift={"method": method}), frame(900, seed))
        alarms += bool(stirred(world.drift(frame(300, 1000 + seed))))
    assert alarms == 0


def test_a_small_difference_in_a_large_window_is_no_drift(tmp_path):
    world = World(tmp_path, make_spec(), rows(20_000))
    found = world.drift(rows(20_000, 1).assign(use=lambda f: f["use"] + 0.15))
    use = of(found, "drift", "use")[0]
    assert use.status == "ok"
    assert 0.01 < use.value < 0.1


def test_a_large_value_that_could_be_chance_is_no_drift(tmp_path):
    world = World(tmp_path, make_spec(min_rows=50), rows(120))
    found = [f for s in range(8) for f in world.drift(rows(60, 100 + s))]
    chance = [f for f in found if f.value is not None and f.value >= 0.2]
    assert chance
    assert all(f.status == "ok" and "could be chance in 60 rows" in f.message for f in chance)


# --- what Evidently alone gets wrong --------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_feature_on_a_tiny_scale(tmp_path, live, method):
    world = World(tmp_path, make_spec(drift={"method": method}), rows(2000))
    world.frame["use"] *= 1e-9
    assert status(world.drift(live.assign(use=live["use"] * 1e-9)), "drift", "use") == "ok"
    moved = live.assign(use=(live["use"] + 20) * 1e-9)
    assert status(world.drift(moved), "drift", "use") == "alert"


@pytest.mark.parametrize("method", METHODS)
def test_one_outlier_hides_nothing_and_alarms_nobody(tmp_path, live, method):
    world = World(tmp_path, make_spec(drift={"method": method}), rows(2000))
    live.loc[0, ["age", "use"]] = 1e12
    age = of(world.drift(live), "drift", "age")[0]
    assert (age.status, age.value < 0.15) == ("ok", True)
    live["use"] += 1
    assert status(world.drift(live), "drift", "use") == "alert"


def test_a_long_tail_hides_nothing(world, live):
    live["income"] *= np.exp(2)  # one standard deviation of its logarithm
    assert status(world.drift(live), "drift", "income") == "alert"


def test_a_mark_that_only_live_data_has(world, live):
    world.frame["use"] = np.where(np.arange(2000) % 5, 0.0, world.frame["use"].abs())
    live["use"] = np.where(np.arange(600) % 5, 0.0, live["use"].abs())
    assert status(world.drift(live), "drift", "use") == "ok"
    live.loc[:89, "use"] = -1.0
    assert status(world.drift(live), "drift", "use") == "alert"


def test_constant_columns(world, live):
    world.frame["use"], world.frame["region"] = 1.0, "north"
    found = world.drift(live.assign(use=1.0, region="north"))
    assert {status(found, "drift", n) for n in ("use", "region")} == {"ok"}
    moved = world.drift(live.assign(use=2.0, region="south"))
    assert {status(moved, "drift", n) for n in ("use", "region")} == {"alert"}
    varied = world.drift(live)
    assert {status(varied, "drift", n) for n in ("use", "region")} == {"alert"}


def test_columns_that_cannot_be_compared_take_no_other_with_them(world, live):
    live["age"] += 12
    wrong = live.drop(columns="region").assign(use=np.nan, income=np.inf)
    found = world.drift(wrong)
    unknown = {n: status(found, "drift", n) for n in ("use", "income", "region")}
    assert set(unknown.values()) == {"insufficient_data"}
    assert status(found, "drift", "age") == "alert"
    text = world.drift(live, replace={"use": pa.array(["x"] * 600)})
    assert status(text, "drift", "use") == "insufficient_data"


def test_missing_values_and_infinities_are_left_out(world, live):
    live["use"] = live["use"].mask(np.arange(600) % 2 == 0)
    live.loc[1:21:2, "use"] = [np.inf, -np.inf] * 5 + [np.inf]
    assert not stirred(world.drift(live))


def test_too_few_rows(world):
    found = world.drift(rows(99))
    assert [(f.check, f.column, f.status) for f in found] == [
        ("drift", None, "insufficient_data"),
        ("prediction_drift", None, "insufficient_data"),
    ]
    assert world.drift(rows(0))[0].value == 0


@pytest.mark.parametrize("name", ["a b", "q\"uo'te", "x.y", "ünï 🌲", "Age", "_score", "%s {} $1"])
def test_odd_names(tmp_path, name):
    odd, plain = rows(2000), rows(600, 1)
    world = World(tmp_path, make_spec(), odd.rename(columns={"use": name}))
    moved = plain.assign(use=plain["use"] + 1).rename(columns={"use": name})
    if name == "_score":  # the log has a column of its own by this name
        world.frame = world.frame.drop(columns=name)
    found = {f.column: f.status for f in of(world.drift(moved), "drift")}
    assert found.get(name, "alert") == "alert"
    assert found["age"] == "ok"


# --- predictions and target -----------------------------------------------------------------------------


def test_predictions_drift(world, live):
    found = world.drift(live, score=World.spread(600) ** 2)
    assert status(found, "prediction_drift") == "alert"
    assert not stirred(of(found, "drift"))


def test_predictions_of_classes(tmp_path, live):
    world = World(tmp_path, make_spec("multiclass"), rows(2000))
    assert status(world.drift(live), "prediction_drift") == "ok"
    assert status(world.drift(live, score=np.full(600, 0.9)), "prediction_drift") == "alert"


def labels(values: list[str]) -> pa.Table:
    return pa.table({"label": values})


def test_the_target_drifts(world, live):
    same = world.drift(live, labels=labels(["yes", "no"] * 100))
    assert status(same, "target_drift") == "ok"
    moved = world.drift(live, labels=labels(["yes"] * 180 + ["no"] * 20))
    assert status(moved, "target_drift") == "alert"
    few = of(world.drift(live, labels=labels(["yes"] * 99)), "target_drift")
    assert [(f.status, f.value) for f in few] == [("insufficient_data", 99)]


def test_the_target_of_a_regression_drifts(tmp_path, live):
    target = np.random.default_rng(0).normal(100, 20, 2000)
    world = World(tmp_path, make_spec("regression"), rows(2000), target=target)
    texts = [repr(float(v)) for v in np.random.default_rng(1).normal(100, 20, 500)]
    assert status(world.drift(live, labels=labels(texts)), "target_drift") == "ok"
    moved = [repr(float(t) + 20) for t in texts]
    assert status(world.drift(live, labels=labels(moved)), "target_drift") == "alert"


# --- the sample -----------------------------------------------------------------------------------------


def test_large_windows_are_sampled_the_same_way_whatever_their_order(world, monkeypatch):
    monkeypatch.setattr(sample, "SAMPLE_ROWS", 500)
    live = rows(5000, 1)
    path = world.window(live)
    once = sample.subjects(world.spec, path, world.reference)
    assert all(450 < len(s.pair.current) <= 500 for s in once)
    table = pa.parquet.read_table(path)
    pa.parquet.write_table(table.take(np.random.default_rng(0).permutation(5000)), path)
    again = sample.subjects(world.spec, path, world.reference)
    for one, other in zip(once, again, strict=True):
        assert (one.pair.current == other.pair.current).all()
    other = sample.subjects(world.spec, path, world.reference, seed=1)
    assert any(len(a.pair.current) != len(b.pair.current) for a, b in zip(once, other, strict=True))


def test_rows_that_came_at_once_are_sampled_too(world, live):
    times = [WINDOW.start + timedelta(hours=2)] * len(live)
    assert check_drift(world.spec, world.window(live, times=times), world.reference)


# --- the statistics themselves --------------------------------------------------------------------------


def numeric(reference: np.ndarray, current: np.ndarray) -> Pair:
    return Pair("numeric", reference, current)


def test_psi_is_the_textbooks():
    reference = np.repeat(np.arange(10.0), 100)
    current = np.repeat(np.arange(10.0), np.array([50, 150] + [100] * 8))
    expected = (0.05 - 0.1) * np.log(0.05 / 0.1) + (0.15 - 0.1) * np.log(0.15 / 0.1)
    assert distance(numeric(reference, current), "psi").value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reference", "current", "share"), [(50_000, 500, 1 / 500), (50_000, 40_000, 1e-4)]
)
def test_an_empty_bin_counts_as_what_the_smaller_sample_can_show(reference, current, share):
    pair = numeric(np.repeat([0.0, 1.0], reference // 2), np.zeros(current))
    share = share / (1 + share)
    expected = (0.5 - share) * np.log(0.5 / share) + (0.5 - share) * np.log((1 - share) / 0.5)
    assert distance(pair, "psi").value == pytest.approx(expected, rel=1e-3)


def test_a_category_that_becomes_a_little_frequent_is_seen_and_is_no_alert(tmp_path):
    world = World(tmp_path, make_spec(), rows(20_000))
    live = rows(600, 1)
    live.loc[:17, "region"] = "east"
    finding = of(world.drift(live), "drift", "region")[0]
    assert finding.status == "ok"
    assert 0.02 < finding.value < 0.1
    live.loc[:89, "region"] = "east"
    assert status(world.drift(live), "drift", "region") == "alert"


def test_ks_is_the_largest_gap():
    value, chance = same_distribution(np.arange(100.0), np.arange(100.0) + 25)
    assert value == pytest.approx(0.25)
    assert chance < 0.01
    assert distance(numeric(np.arange(100.0), np.arange(100.0) + 25), "ks").value == value


def test_wasserstein_is_in_standard_deviations():
    base = np.random.default_rng(0).normal(0, 3e-7, 5000)
    assert distance(numeric(base, base + 6e-7), "wasserstein").value == pytest.approx(2, rel=0.05)


def test_rare_categories_share_groups_that_grow_with_them():
    few = np.array(["a"] * 600 + ["b"] * 390 + ["c"] * 5 + ["d"] * 5, dtype=object)
    before, now = pooled(few, np.array(["a", "c", "never seen"], dtype=object))
    assert set(before) == {"a", "b", "(others 1)"}
    assert list(now) == ["a", "(others 1)", "(others 1)"]
    many = np.array([f"v{i}" for i in range(1000)], dtype=object)
    assert len(set(pooled(many, many)[0])) == 10


def test_categories_keep_psi_and_else_take_jensen_shannon():
    assert [pinned(m, "categorical") for m in METHODS] == ["psi"] + ["jensenshannon"] * 3
    assert [pinned(m, "numeric") for m in METHODS] == METHODS


numbers = arrays.arrays(
    np.float64,
    st.integers(50, 120),
    elements=st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 1.0]),
)


@settings(max_examples=60, deadline=None)
@given(reference=numbers, current=numbers, method=st.sampled_from(METHODS))
def test_every_pair_of_samples_has_a_distance(reference, current, method):
    found = distance(numeric(reference, current), method)
    assert np.isfinite(found.value)
    assert found.value >= 0
    assert 0 <= found.chance <= 1
    assert distance(numeric(reference, reference), method).value == pytest.approx(0, abs=1e-9)


def test_many_tests_are_corrected():
    assert adjusted([]) == []
    assert adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert adjusted([float("nan"), 0.001]) == pytest.approx([1.0, 0.002])


def test_chances_are_uniform_where_nothing_changed():
    rng = np.random.default_rng(0)
    shares = [0.3, 0.3, 0.2, 0.1, 0.095, 0.005]
    pairs = [(rng.multinomial(900, shares), rng.multinomial(300, shares)) for _ in range(400)]
    chances = np.array([homogeneity(a, b) for a, b in pairs])
    assert 0.02 < (chances < 0.05).mean() < 0.09
    hits = [(rng.binomial(300, 0.2), rng.binomial(900, 0.2)) for _ in range(400)]
    chances = np.array([proportions(a, 300, b, 900) for a, b in hits])
    assert 0.02 < (chances < 0.05).mean() < 0.09


def test_chances_are_right_where_bins_are_thin():
    rng = np.random.default_rng(0)
    shares = [0.6, 0.3998, 0.0002]
    pairs = [(rng.multinomial(20_000, shares), rng.multinomial(300, shares)) for _ in range(400)]
    assert (np.array([homogeneity(a, b) for a, b in pairs]) < 0.002).mean() < 0.015
    assert homogeneity(np.array([12_000, 8_000, 0]), np.array([174, 116, 10])) < 1e-6


def test_nothing_to_test_is_no_evidence():
    assert homogeneity(np.array([5, 0]), np.array([3, 0])) == 1
    assert proportions(0, 0, 1, 10) == proportions(0, 10, 0, 10) == 1
