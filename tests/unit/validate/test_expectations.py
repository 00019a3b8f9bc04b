import os
import subprocess
import sys

import pytest

from include.errors import SpecError


def between(**arguments):
    return {"expect_column_values_to_be_between": {"column": "b", **arguments}}


def test_expectations_that_hold(bench, make_spec, frame, read, capfd):
    spec = make_spec(
        expectations=[
            between(min_value=0, max_value=999),
            {"expect_column_values_to_be_in_set": {"column": "c", "value_set": ["red", "green", "blue"]}},
            {"expect_column_to_exist": {"column": "y"}},
            {"expect_table_column_count_to_equal": {"value": 6}},
            {"expect_table_row_count_to_be_between": {"min_value": 400}},
            {"expect_column_values_to_be_between": {"column": "at", "min_value": "2026-01-01T00:00:00"}},
            {"expect_column_pair_values_a_to_be_greater_than_b": {"column_A": "b", "column_B": "a", "mostly": 0.9}},
        ]
    )  # fmt: skip
    before = dict(os.environ)
    result = bench.check(spec, frame)
    assert [f.message for f in read.of(result, "expectation")] == []
    assert len(read.of(result, "expectation", "ok")) == 7
    assert dict(os.environ) == before
    assert "Calculating Metrics" not in capfd.readouterr().err


def test_a_broken_expectation_names_file_key_numbers_and_examples(bench, make_spec, frame, read):
    frame.loc[:39, "b"] = 5000
    spec = make_spec(expectations=[between(min_value=0), between(max_value=1000, mostly=0.95)])
    result = bench.check(spec, frame)
    found = read.only(result, "expectation")
    assert (found.severity, found.column) == ("error", "b")
    assert found.message.startswith("include/models/toy.yaml: validate.expectations[1]: expect_col")
    assert "got 40 of 400 values (10 %) that do not comply, such as '5000'" in found.message
    assert found.observed["unexpected_count"] == 40
    assert not result.ok


@pytest.mark.parametrize(
    ("severity", "ours"), [("critical", "error"), ("warning", "warn"), ("info", "warn")]
)
def test_severities(bench, make_spec, frame, read, severity, ours):
    spec = make_spec(expectations=[between(max_value=-1, severity=severity)])
    assert read.only(bench.check(spec, frame), "expectation").severity == ours


@pytest.mark.parametrize(
    ("expectation", "text"),
    [
        (
            {"expect_column_values_to_be_betwen": {"column": "b"}},
            r"toy.yaml: validate.expectations\[1\]: must name an expectation .* Did you mean 'expect_column_values_to_be_between'\?",
        ),
        (between(min_valu=3), r"expectations\[1\]: .*got 'min_valu'\. Did you mean 'min_value'\?"),
        (between(min_value=0, mostly=3), r"got mostly: .*less than or equal to 1"),
        ({"expect_column_values_to_not_be_null": {}}, r"got column: field required"),
        (between(min_value=0, severity="bad"), r"expectations\[1\]: .*got severity: "),
        (between(min_value=0, result_format="COMPLETE"), r"got 'result_format'"),
        ({"unexpected_rows_expectation": {}}, None),
        (
            {"expect_query_results_to_match_comparison": {}},
            r"which needs a database",
        ),
    ],
)
def test_an_expectation_that_cannot_be_run_is_an_error_of_the_spec(
    bench, make_spec, frame, expectation, text
):
    if text is None:
        with pytest.raises(ValueError, match="must be one `expect_"):
            make_spec(expectations=[expectation])
        return
    spec = make_spec(expectations=[between(min_value=0), expectation])
    with pytest.raises(SpecError, match=text):
        bench.check(spec, frame)


def test_missing_values_are_counted_but_are_no_examples(bench, make_spec, frame, read):
    frame.loc[:7, "a"] = None
    spec = make_spec(expectations=[{"expect_column_values_to_not_be_null": {"column": "a"}}])
    message = read.only(bench.check(spec, frame), "expectation").message
    assert "got 8 of 400 values (2 %) that do not comply. Fix" in message


def test_a_column_that_is_not_there(bench, make_spec, frame, read):
    spec = make_spec(
        expectations=[{"expect_column_values_to_not_be_null": {"column": "bb"}}, between(min_value=0)],
    )  # fmt: skip
    found = read.only(bench.check(spec, frame), "expectation")
    assert found.severity == "error"
    assert "got no 'bb'" in found.message


def test_a_dropped_column_is_named_but_never_shown(bench, make_spec, frame, read):
    spec = make_spec(
        ingest={"drop": ["email"]},
        expectations=[{"expect_column_values_to_not_be_null": {"column": "email"}}],
    )
    found = read.only(bench.check(spec, frame), "expectation")
    assert "'email', which ingest.drop keeps out of it" in found.message


def test_what_cannot_be_computed_does_not_pass(bench, make_spec, frame, read):
    spec = make_spec(expectations=[{"expect_column_mean_to_be_between": {"column": "c", "min_value": 0}}])  # fmt: skip
    found = read.only(bench.check(spec, frame), "expectation")
    assert found.severity == "error"
    assert "got an error: " in found.message
    assert "Traceback" not in found.message


def test_an_expectation_that_looked_at_nothing_says_so(bench, make_spec, frame, read):
    spec = make_spec(
        expectations=[between(min_value=0, row_condition='col("c") == "mauve"', condition_parser="great_expectations")],
    )  # fmt: skip
    found = read.only(bench.check(spec, frame), "expectation")
    assert found.severity == "warn"
    assert "got none with a value" in found.message


def test_a_row_condition_brings_its_column(bench, make_spec, frame, read):
    frame.loc[frame["c"] == "red", "b"] = -1
    condition = {"row_condition": 'c!="red"', "condition_parser": "pandas"}
    spec = make_spec(expectations=[between(min_value=0, **condition)])
    assert read.passed(bench.check(spec, frame), "expectation")


def test_great_expectations_is_imported_only_for_expectations():
    code = "import sys, include.validate.stage; sys.exit('great_expectations' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
