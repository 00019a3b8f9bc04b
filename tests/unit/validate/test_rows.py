from datetime import timedelta

import pandas as pd
import pytest


def test_enough_rows_pass(bench, make_spec, frame, read):
    assert read.passed(bench.check(make_spec(min_rows=400), frame), "row_count")


def test_too_few_rows_are_an_error(bench, make_spec, frame, read):
    result = bench.check(make_spec(min_rows=401), frame)
    found = read.only(result, "row_count")
    assert (found.severity, found.observed, found.expected) == ("error", 400, 401)
    assert "must have at least 401 rows (validate.min_rows), got 400" in found.message
    assert not result.ok


def test_an_empty_snapshot_is_one_clear_error_and_no_crash(bench, make_spec, frame, read):
    spec = make_spec(
        expectations=[{"expect_column_values_to_not_be_null": {"column": "a"}}],
    )
    result = bench.check(spec, frame.iloc[:0].astype(frame.dtypes), reference=frame)
    assert read.only(result, "row_count").observed == 0
    # Great Expectations itself passes such checks on an empty frame.
    assert "empty snapshot" in read.only(result, "expectation").message


def test_a_snapshot_half_the_champions_size_is_a_warning(bench, make_spec, frame, read):
    assert read.passed(bench.check(make_spec(), frame.iloc[:200], frame), "row_count")
    found = read.only(bench.check(make_spec(), frame.iloc[:199], frame), "row_count")
    assert found.severity == "warn"


def test_key_unique_and_known(bench, make_spec, frame, read, roles):
    assert read.passed(bench.check(make_spec(ingest=roles), frame), "key")
    assert read.passed(bench.check(make_spec(ingest=roles), frame), "duplicate_rows")


def test_repeated_keys_are_named(bench, make_spec, frame, read, roles):
    frame.loc[[1, 2], "id"] = "id0"
    found = read.only(bench.check(make_spec(ingest=roles), frame), "key")
    assert found.severity == "error"
    assert "got 1 value more than once (2 rows too many), such as 'id0'" in found.message


def test_missing_keys_are_an_error(bench, make_spec, frame, read, roles):
    frame.loc[3, "id"] = None
    found = read.only(bench.check(make_spec(ingest=roles), frame), "key")
    assert (found.severity, found.observed) == ("error", 1)


@pytest.mark.parametrize("files", [1, 3])
def test_whole_rows_that_repeat_are_a_warning(bench, make_spec, frame, read, files):
    assert read.passed(bench.check(make_spec(), frame), "duplicate_rows")
    doubled = pd.concat([frame, frame.iloc[:7]], ignore_index=True)
    snapshot = bench.snapshot(doubled, files=files)
    found = read.only(bench.check(make_spec(), snapshot), "duplicate_rows")
    assert (found.severity, found.observed) == ("warn", 7)


def test_freshness_within_the_limit(bench, make_spec, frame, read, roles):
    newest = frame["at"].max().to_pydatetime()
    spec = make_spec(ingest=roles, max_age="2d")
    assert read.passed(bench.check(spec, frame, now=newest + timedelta(days=2)), "freshness")


def test_old_data_is_an_error(bench, make_spec, frame, read, roles):
    newest = frame["at"].max().to_pydatetime()
    spec = make_spec(ingest=roles, max_age="2d")
    found = read.only(bench.check(spec, frame, now=newest + timedelta(days=3)), "freshness")
    assert found.severity == "error"
    assert "must be at most 2d old (validate.max_age), got" in found.message
    assert "3 days old" in found.message


def test_rows_from_the_future_are_a_warning(bench, make_spec, frame, read, roles):
    newest = frame["at"].max().to_pydatetime()
    found = read.only(
        bench.check(make_spec(ingest=roles), frame, now=newest - timedelta(days=2)), "freshness"
    )
    assert found.severity == "warn"
    assert "future" in found.message


def test_rows_without_time_are_an_error(bench, make_spec, frame, read, roles):
    frame.loc[5, "at"] = pd.NaT
    found = read.only(bench.check(make_spec(ingest=roles), frame), "freshness")
    assert (found.severity, found.observed) == ("error", 1)
