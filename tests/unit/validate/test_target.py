import numpy as np
import pytest


def test_two_classes_pass(bench, make_spec, frame, read):
    assert read.passed(bench.check(make_spec(), frame), "target")


def test_an_unknown_target_is_an_error(bench, make_spec, frame, read):
    frame.loc[[0, 1, 2], "y"] = None
    found = read.only(bench.check(make_spec(), frame), "target")
    assert (found.severity, found.observed) == ("error", 3)


def test_a_target_without_any_value_is_an_error_and_no_crash(bench, make_spec, frame, read):
    result = bench.check(make_spec(), frame.assign(y=None))
    assert read.only(result, "target").observed == len(frame)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_single_class_is_an_error(bench, make_spec, frame, read, task):
    found = read.only(bench.check(make_spec(task=task), frame.assign(y="no")), "target")
    assert found.severity == "error"
    assert "must have more than one class, got only 'no'" in found.message


def test_three_classes_are_too_many_for_binary_only(bench, make_spec, frame, read):
    frame.loc[:99, "y"] = "maybe"
    found = read.only(bench.check(make_spec(), frame), "target")
    assert found.severity == "error"
    assert "exactly two classes for task binary, got 3" in found.message
    assert read.passed(bench.check(make_spec(task="multiclass"), frame), "target")


def test_a_positive_class_that_never_occurs_is_an_error(bench, make_spec, frame, read):
    found = read.only(bench.check(make_spec(ingest={"positive": "Yes"}), frame), "target")
    assert "must hold the value of ingest.positive ('Yes')" in found.message
    assert "Did you mean 'yes'?" in found.message


def test_a_positive_class_is_compared_as_the_training_compares_it(bench, make_spec, frame, read):
    numbers = frame.assign(y=(frame["y"] == "yes").astype(int))
    assert read.passed(bench.check(make_spec(ingest={"positive": "1"}), numbers), "target")
    truths = numbers.assign(y=numbers["y"] == 1)
    assert read.passed(bench.check(make_spec(ingest={"positive": "true"}), truths), "target")
    assert "ingest.positive (1)" in (
        read.only(bench.check(make_spec(ingest={"positive": 1}), truths), "target").message
    )


def test_a_rare_class_is_a_warning(bench, make_spec, frame, read):
    frame["y"] = "no"
    frame.loc[:4, "y"] = "yes"
    found = read.only(bench.check(make_spec(), frame), "target")
    assert (found.severity, found.expected) == ("warn", 6)


def test_very_many_classes_are_a_warning(bench, make_spec, frame, read):
    frame["y"] = np.arange(len(frame)) % 200
    assert read.only(bench.check(make_spec(task="multiclass"), frame), "target").observed == 200


def test_regression_needs_numbers_that_vary(bench, make_spec, frame, read):
    spec = make_spec(task="regression")
    assert read.passed(bench.check(spec, frame.assign(y=frame["a"] ** 2 + frame["b"])), "target")
    assert "must have more than one value, got only 3.0" in (
        read.only(bench.check(spec, frame.assign(y=3.0)), "target").message
    )
    assert "must be a number for task regression, got type string" in (
        read.only(bench.check(spec, frame), "target").message
    )
