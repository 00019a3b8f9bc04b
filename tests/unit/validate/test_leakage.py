import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.validate import leakage, linear


def world(rows=600, seed=3):
    rng = np.random.default_rng(seed)
    return rng, pd.DataFrame({f"x{i}": rng.normal(size=rows) for i in range(5)})


def columns(found):
    return [f.observed["columns"] for f in found]


def test_honest_features_pass(bench, make_spec, frame, read, roles):
    assert read.passed(bench.check(make_spec(ingest=roles), frame), "leakage")


@pytest.mark.parametrize(
    ("name", "leak"),
    [
        ("ordered", lambda y, rng: y * 10 + rng.uniform(0, 9, len(y))),
        ("reversed", lambda y, rng: -y * 10 - rng.uniform(0, 9, len(y))),
        ("named", lambda y, rng: pd.Series(np.where(y, "left", "stayed"))),
        ("many names", lambda y, rng: pd.Series([f"{v}{k}" for v, k in zip(y, rng.integers(0, 5, len(y)), strict=True)])),
        ("neither low nor high", lambda y, rng: np.where(y, 1, rng.choice([0, 2], len(y)))),
        ("there or not", lambda y, rng: np.where(y, rng.normal(size=len(y)), np.nan)),
    ],
)  # fmt: skip
def test_one_feature_that_gives_a_class_away(bench, make_spec, read, name, leak):
    rng, frame = world()
    y = rng.integers(0, 2, len(frame))
    frame["leak"], frame["y"] = leak(y, rng), y
    found = read.only(bench.check(make_spec(), frame), "leakage")
    assert (found.column, found.severity) == ("leak", "error")
    assert found.observed["value"] >= 0.999
    assert "column 'leak': must not give the target away, got AUC" in found.message


def test_a_leak_among_few_positives_is_seen(bench, make_spec, read):
    rng, frame = world(4000)
    frame["y"] = (np.arange(4000) % 100 == 0).astype(int)
    frame["leak"] = frame["y"] + rng.uniform(0, 0.5, 4000)
    assert columns(read.of(bench.check(make_spec(), frame), "leakage")) == [["leak"]]


def test_a_strong_but_honest_feature_passes(bench, make_spec, read):
    rng, frame = world(4000)
    y = rng.integers(0, 2, 4000)
    frame["strong"], frame["y"] = y * 4 + rng.normal(size=4000), y  # AUC 0.998
    assert read.passed(bench.check(make_spec(), frame), "leakage")


def test_a_category_of_ids_explains_only_its_own_rows(bench, make_spec, read):
    rng, frame = world()
    frame["id"] = [f"id{i}" for i in range(len(frame))]
    frame["y"] = rng.integers(0, 2, len(frame))
    assert read.passed(bench.check(make_spec(), frame), "leakage")


@pytest.mark.parametrize("kind", ["number", "category"])
def test_a_feature_that_names_one_of_three_classes_only_is_no_leak(bench, make_spec, read, kind):
    rng, frame = world()
    y = np.arange(len(frame)) % 3
    partly = np.where(y == 0, 0, rng.integers(1, 3, len(y)))
    fully = y + rng.uniform(0, 0.5, len(y)) if kind == "number" else y
    for values, leaks in ((partly, False), (fully, True)):
        frame["x"] = values if kind == "number" else pd.Series(values).astype(str)
        frame["y"] = y
        found = read.of(bench.check(make_spec(task="multiclass"), frame), "leakage")
        assert columns(found) == [["x"]] * leaks


def test_a_rare_class_does_not_hide_a_leak(bench, make_spec, read):
    rng, frame = world()
    y = np.arange(len(frame)) % 3
    y[:4] = 3
    frame["x"], frame["word"], frame["y"] = y + rng.uniform(0, 0.5, len(y)), [f"w{v}" for v in y], y
    found = read.of(bench.check(make_spec(task="multiclass"), frame), "leakage")
    assert columns(found) == [["x"], ["word"]]


def test_huge_numbers_do_not_break_the_search(bench, make_spec, read):
    rng, frame = world()
    frame["y"] = rng.normal(size=len(frame))
    frame["x0"] *= 1e300
    assert read.passed(bench.check(make_spec(task="regression"), frame), "leakage")


@pytest.mark.parametrize(
    ("leak", "text"),
    [
        (lambda y: y, "got the target itself"),
        (lambda y: 3 * y + 5, "correlation 1.0000"),
        (lambda y: np.exp(y), "rank correlation 1.0000"),
        (lambda y: np.where(np.arange(len(y)) % 2, y * 2, np.nan), "correlation 1.0000"),
    ],
)
def test_one_feature_that_gives_a_number_away(bench, make_spec, read, leak, text):
    rng, frame = world()
    y = rng.normal(size=len(frame))
    frame["leak"], frame["y"] = leak(y), y
    found = read.only(bench.check(make_spec(task="regression"), frame), "leakage")
    assert found.column == "leak"
    assert text in found.message


def test_categories_that_spell_the_number_out(bench, make_spec, read):
    rng, frame = world()
    frame["y"] = rng.integers(0, 6, len(frame))
    frame["spelt"] = frame["y"].map({i: f"level {i}" for i in range(6)})
    found = read.only(bench.check(make_spec(task="regression"), frame), "leakage")
    assert found.column == "spelt"


def test_one_row_far_out_is_not_taken_for_a_leak(bench, make_spec, read):
    rng, frame = world()
    frame["y"] = rng.normal(size=len(frame))
    frame.loc[0, ["x0", "y"]] = 1e9
    assert read.passed(bench.check(make_spec(task="regression"), frame), "leakage")


def test_features_that_add_up_to_the_target(bench, make_spec, read):
    rng, frame = world()
    frame["casual"] = rng.poisson(30, len(frame))
    frame["registered"] = rng.poisson(100, len(frame))
    frame["y"] = frame["casual"] + frame["registered"]
    found = read.only(bench.check(make_spec(task="regression"), frame), "leakage")
    assert found.severity == "error"
    assert sorted(found.observed["columns"]) == ["casual", "registered"]
    assert "'casual'" in found.message
    assert "must not add up to the target, got" in found.message
    # Nearly is not exactly.
    frame["y"] = frame["y"] + rng.normal(size=len(frame))
    assert read.passed(bench.check(make_spec(task="regression"), frame), "leakage")


def test_a_sum_of_very_many_features_is_a_warning(bench, make_spec, read):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({f"x{i}": rng.normal(size=500) for i in range(12)})
    frame["y"] = frame.sum(axis=1)
    found = read.only(bench.check(make_spec(task="regression"), frame), "leakage")
    assert (found.severity, len(found.observed["columns"])) == ("warn", 12)


def test_the_spec_decides_about_severity(bench, make_spec, frame, read, roles):
    frame["leak"] = (frame["y"] == "yes").astype(int)
    warned = bench.check(make_spec(ingest=roles, leakage="warn"), frame)
    assert read.only(warned, "leakage").severity == "warn"
    assert warned.ok
    off = bench.check(make_spec(ingest=roles, leakage="off"), frame)
    assert read.passed(off, "leakage")
    assert "switched off" in read.of(off, "leakage", "ok")[0].message


def test_a_sample_is_the_same_every_time_and_is_stated(bench, make_spec, read, monkeypatch):
    monkeypatch.setattr(leakage, "SAMPLE", 1000)
    rng, frame = world(5000)
    frame["y"] = rng.integers(0, 2, len(frame))
    frame["leak"] = frame["y"]
    whole = bench.snapshot(frame)
    shuffled = bench.snapshot(frame.sample(frac=1, random_state=1), files=3)
    first = read.only(bench.check(make_spec(), whole), "leakage").message
    assert "a sample of " in first
    assert "of 5,000 rows, chosen by row hash" in first
    assert first == read.only(bench.check(make_spec(), shuffled), "leakage").message


def test_too_few_rows_to_tell_is_said(bench, make_spec, frame, read, roles):
    result = bench.check(make_spec(ingest=roles), frame.iloc[:20])
    assert "too few" in read.of(result, "leakage", "ok")[0].message


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    weights=st.lists(st.sampled_from([-7.5, -2, -1, 0.25, 1, 3, 100]), min_size=2, max_size=5),
    noise=st.integers(0, 8),
)
def test_any_sparse_sum_is_found_with_its_weights(seed, weights, noise):
    rng = np.random.default_rng(seed)
    features = {f"n{i}": rng.normal(size=400) * 10.0 ** rng.integers(-2, 3) for i in range(noise)}
    parts = {f"p{i}": rng.normal(50, 10, size=400) for i in range(len(weights))}
    target = sum(w * v for w, v in zip(weights, parts.values(), strict=True)) + 17
    found = linear.find_combination({**features, **parts}, target)
    assert found is not None
    assert set(found.terms) <= set(parts)
    for name, weight in found.terms.items():
        assert found.terms[name] == pytest.approx(weights[int(name[1:])], rel=0.05), weight


def test_repeated_features_do_not_hide_the_sum():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 300))
    found = linear.find_combination({"a": a, "again": a, "b": b, "same": np.ones(300)}, a + b)
    assert found is not None
    assert len(found.terms) == 2
    assert "b" in found.terms


@pytest.mark.parametrize("rows", [300, 99])
def test_the_text_of_a_combination(rows):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, rows))
    found = linear.find_combination({"a": a, "b": b}, 2 * a - b + 3)
    if rows < 100:
        assert found is None
    else:
        assert found is not None
        assert found.text == "2 × a - b + 3"
