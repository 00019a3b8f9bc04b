import pytest


def test_the_same_columns_pass(bench, make_spec, frame, read):
    assert read.passed(bench.check(make_spec(), frame, frame), "schema")


def test_a_missing_feature_is_an_error_that_names_the_likely_new_name(
    bench, make_spec, frame, read
):
    result = bench.check(make_spec(), frame.rename(columns={"b": "bb"}), frame)
    missing, new = read.of(result, "schema")
    assert (missing.column, missing.severity, missing.expected) == ("b", "error", "int")
    assert "column 'b': must be there with type int" in missing.message
    assert "Did you mean 'bb'?" in missing.message or "'bb'" in new.message
    assert (new.column, new.severity, new.observed) == ("bb", "warn", "int")


def test_a_retyped_feature_is_an_error_with_both_types(bench, make_spec, frame, read):
    changed = frame.assign(b=frame["b"].astype(str))
    found = read.only(bench.check(make_spec(), changed, frame), "schema")
    assert (found.severity, found.observed, found.expected) == ("error", "string", "int")
    assert "must have type int, as in the champion's snapshot, got string" in found.message


def test_whole_numbers_that_became_fractions_are_a_warning(bench, make_spec, frame, read):
    found = read.only(bench.check(make_spec(), frame.assign(b=frame["b"] + 0.5), frame), "schema")
    assert (found.column, found.severity) == ("b", "warn")


def test_a_retyped_class_label_is_an_error_though_both_are_numbers(bench, make_spec, frame, read):
    old = frame.assign(y=(frame["y"] == "yes").astype(int))
    found = read.only(bench.check(make_spec(), old.assign(y=old["y"] * 1.0), old), "schema")
    assert (found.column, found.severity) == ("y", "error")


def test_a_missing_column_that_the_model_does_not_use_is_a_warning(bench, make_spec, frame, read):
    spec = make_spec(ingest={"features": {"numeric": ["a"]}})
    found = read.only(bench.check(spec, frame.drop(columns="b"), frame), "schema")
    assert (found.column, found.severity) == ("b", "warn")


def test_a_column_dropped_on_purpose_is_no_finding(bench, make_spec, frame, read):
    result = bench.check(make_spec(ingest={"drop": ["b"]}), frame.drop(columns="b"), frame)
    assert read.passed(result, "schema")


@pytest.mark.parametrize(
    ("ingest", "text"),
    [
        ({"target": "yy"}, "column 'yy': must be in the data, as ingest.target says"),
        ({"key": "idd"}, "column 'idd': must be in the data, as ingest.key says"),
        ({"features": {"numeric": ["aa"]}}, "column 'aa': must be in the data"),
        ({"features": {"numeric": ["c"]}}, "column 'c': must hold numbers"),
        ({"time": "c"}, "column 'c': must be read as time"),
    ],
)
def test_a_spec_that_does_not_fit_the_first_snapshot(bench, make_spec, frame, read, ingest, text):
    result = bench.check(make_spec(ingest=ingest), frame)
    found = read.of(result, "schema", "error")
    assert [text in f.message for f in found] == [True]
    assert not result.ok


def test_no_feature_left_is_an_error(bench, make_spec, frame, read):
    found = read.only(bench.check(make_spec(), frame[["y"]]), "schema")
    assert found.severity == "error"
