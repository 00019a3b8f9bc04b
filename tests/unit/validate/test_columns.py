import numpy as np
import pandas as pd
import pytest


def test_good_columns_pass_every_check(bench, make_spec, frame, read, roles):
    result = bench.check(make_spec(ingest=roles), frame, frame)
    assert result.ok
    assert not result.warnings
    checks = {f.check for f in result.findings}
    assert checks >= {"missing_values", "infinite", "constant", "many_categories", "range"}


@pytest.mark.parametrize(("share", "complains"), [(0.25, False), (0.35, True)])
def test_more_missing_values_than_the_champion(bench, make_spec, frame, read, share, complains):
    reference = frame.copy()
    reference.loc[: len(frame) // 10 - 1, "a"] = np.nan
    frame.loc[: int(len(frame) * share) - 1, "a"] = np.nan
    found = read.of(bench.check(make_spec(), frame, reference), "missing_values")
    assert [(f.column, f.severity) for f in found] == [("a", "error")] * complains
    if complains:
        assert "the champion's 10 % (validate.max_null_increase), got 35 %" in found[0].message


def test_an_empty_column_is_an_error_from_the_first_snapshot_on(bench, make_spec, frame, read):
    found = read.only(bench.check(make_spec(), frame.assign(a=np.nan)), "missing_values")
    assert (found.column, found.severity, found.observed) == ("a", "error", 1.0)


def test_an_empty_column_the_model_does_not_use_is_a_warning(bench, make_spec, frame, read):
    spec = make_spec(ingest={"features": {"numeric": ["b"]}})
    assert read.only(bench.check(spec, frame.assign(a=np.nan)), "missing_values").severity == "warn"


def test_infinite_numbers_are_an_error(bench, make_spec, frame, read):
    frame.loc[[0, 1], "a"] = [np.inf, -np.inf]
    result = bench.check(make_spec(), frame, frame)
    found = read.only(result, "infinite")
    assert (found.column, found.severity, found.observed) == ("a", "error", 2)
    assert "Infinity" not in result.report_json.read_text()


def test_numbers_far_outside_the_champions_range_are_a_warning(bench, make_spec, frame, read):
    reference = frame.assign(b=np.arange(len(frame)) % 101)  # 0 to 100: fine from -100 to 200
    near, far = reference.copy(), reference.copy()
    near.loc[0, "b"] = 200
    far.loc[[0, 1], "b"] = [201, -999]
    assert read.passed(bench.check(make_spec(), near, reference), "range")
    found = read.only(bench.check(make_spec(), far, reference), "range")
    assert found.severity == "warn"
    assert found.observed == {"low": -999.0, "high": 201.0, "rows": 2}
    assert "(0 to 100), got -999 to 201, 2 rows far outside" in found.message


@pytest.mark.parametrize("value", ["red", None])
def test_a_constant_feature_is_a_warning_unless_it_is_sometimes_missing(
    bench, make_spec, frame, read, value
):
    frame["c"] = "red"
    frame.loc[0, "c"] = value
    found = read.of(bench.check(make_spec(), frame), "constant")
    assert [(f.column, f.severity) for f in found] == [("c", "warn")] * (value == "red")


def test_ids_among_the_categories_are_a_warning(bench, make_spec, frame, read, roles):
    assert read.passed(bench.check(make_spec(ingest=roles), frame), "many_categories")
    found = read.only(bench.check(make_spec(), frame), "many_categories")
    assert (found.column, found.severity) == ("id", "warn")


def test_numbers_read_as_text_because_of_blanks_are_recognised(
    bench, make_spec, frame, read, roles
):
    frame["c"] = [" " if i % 50 == 0 else f"{i}.5" for i in range(len(frame))]
    found = read.only(bench.check(make_spec(ingest=roles), frame), "many_categories")
    assert "98 % of its values read as numbers" in found.message
    assert "ingest.source.missing" in found.message


@pytest.mark.parametrize(("rows", "complains"), [(4, False), (5, True)])
def test_categories_the_champion_never_saw(bench, make_spec, frame, read, roles, rows, complains):
    new = frame.copy()
    new.loc[: rows - 1, "c"] = "mauve"
    found = read.of(bench.check(make_spec(ingest=roles), new, frame), "new_categories")
    assert [(f.column, f.severity) for f in found] == [("c", "warn")] * complains
    if complains:
        assert found[0].observed["examples"] == ["mauve"]


def test_a_champions_snapshot_that_was_cleaned_away_is_said(bench, make_spec, frame, read, roles):
    reference = bench.snapshot(frame, time="at")
    for key in list(bench.store.list("snapshots/")):
        if not key.endswith("manifest.json"):
            bench.store.delete(key)
    result = bench.check(make_spec(ingest=roles), frame.iloc[5:], reference)
    assert "got no files of it" in read.only(result, "new_categories").message
    assert result.ok


def test_columns_whose_names_differ_in_case_or_hold_quotes_are_told_apart(
    bench, make_spec, frame, read
):
    odd = frame.assign(A=1.0, **{"'; drop \"t": np.arange(len(frame)), "ünïcode": "x"})
    result = bench.check(make_spec(), odd)
    assert sorted(f.column for f in read.of(result, "constant")) == ["A", "ünïcode"]


def test_more_columns_than_one_query_takes(bench, make_spec, frame, read):
    rng = np.random.default_rng(1)
    wide = pd.DataFrame({f"x{i}": rng.normal(size=len(frame)) for i in range(230)})
    wide.loc[3, "x229"] = np.inf
    wide["y"] = frame["y"]
    found = read.only(bench.check(make_spec(), wide), "infinite")
    assert (found.column, found.observed) == ("x229", 1)
