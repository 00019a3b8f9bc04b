"""Types, missing markers and ranges, from every value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from include.profile.column import Column
from include.profile.columns import missing_texts

Columns = Callable[..., dict[str, Column]]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", "+3"], "int"),
        (["1", "2.5", "1e3"], "float"),
        (["0x1F", "1", "2"], "string"),
        (["1_000", "1", "2"], "string"),
        (["true", "False", "TRUE"], "bool"),
        (["Yes", "No", "Yes"], "string"),
        (["2024-01-01", "2024-01-02", "2024-01-03"], "timestamp"),
        (["1/31/24", "2/1/24", "2/2/24"], "timestamp"),
        (["a", "1", "2"], "string"),
        (["1", "2", "?"], "int"),
        (["1", "2", "-"], "int"),
    ],
)
def test_finds_the_type_of_texts(columns_of: Columns, values: list[str], kind: str) -> None:
    assert columns_of({"c": values, "other": 1})["c"].type == kind


@pytest.mark.parametrize("marker", ["", " ", "NA", "?", "N/A", "null", "None", "-", "-999"])
def test_finds_missing_markers_among_numbers(columns_of: Columns, marker: str) -> None:
    column = columns_of({"c": ["1.5", marker, "3", marker], "other": 1})["c"]
    assert (column.type, column.nulls, column.low, column.high) == ("float", 2, 1.5, 3.0)
    assert column.markers == ((marker.strip(), 2),)


def test_a_marker_of_one_column_holds_for_the_whole_file(columns_of: Columns) -> None:
    columns = columns_of({"n": ["1", "NA", "3"], "word": ["NA", "b", "c"]})
    assert missing_texts(list(columns.values())) == ("", "NA")
    assert columns["word"].nulls == 1


def test_words_that_may_be_values_stay_values_but_are_told(columns_of: Columns) -> None:
    column = columns_of({"region": ["NA", "EU", "NA"], "other": 1})["region"]
    assert (column.nulls, column.markers, column.doubtful) == (0, (), (("NA", 2),))


def test_a_negative_column_may_really_hold_minus_999(columns_of: Columns) -> None:
    column = columns_of({"c": ["-5", "-999", "3"], "other": 1})["c"]
    assert (column.nulls, column.low) == (0, -999.0)


def test_codes_with_leading_zeros_are_told(columns_of: Columns) -> None:
    columns = columns_of({"zip": ["01234", "99999"], "n": ["0", "10"]})
    assert columns["zip"].leading_zeros
    assert not columns["n"].leading_zeros


def test_counts_rows(columns_of: Columns) -> None:
    rng = np.random.default_rng(0)
    columns = columns_of(
        {
            "shuffled": rng.permutation(200) + 1,
            "nearly": np.arange(200) + rng.choice([0.0, 0.5], size=200),
            "sorted": np.sort(rng.random(200)),
            "measure": rng.normal(size=200),
        }
    )
    assert [c.name for c in columns.values() if c.counts_rows] == ["shuffled", "nearly"]


def test_typed_files_keep_their_types(columns_of: Columns) -> None:
    data: dict[str, Any] = {
        "digits": ["1", "2", "3"],
        "blank": ["", "a", "b"],
        "when": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"], utc=True),
        "iso": ["2024-01-01", "2024-01-02", "2024-01-03"],
        "whole": np.array([1, 2, 3], dtype="uint8"),
        "wide": [1.0, np.nan, np.inf],
        "flag": [True, False, None],
        "many": [[1], [2], [3]],
    }
    columns = columns_of(data, "parquet")
    assert {n: c.type for n, c in columns.items()} == {
        "digits": "string", "blank": "string", "when": "timestamp", "iso": "timestamp",
        "whole": "int", "wide": "float", "flag": "bool", "many": "other",
    }  # fmt: skip
    assert columns["blank"].nulls == 0
    assert (columns["wide"].nulls, columns["wide"].infinite, columns["wide"].high) == (1, 1, 1.0)


def test_reads_json_lines(columns_of: Columns) -> None:
    columns = columns_of({"n": [1, 2], "t": ["a", "b"], "f": [True, False]}, "jsonl")
    assert [c.type for c in columns.values()] == ["int", "string", "bool"]


def test_names_that_differ_in_case_only_stay_apart(columns_of: Columns) -> None:
    columns = columns_of({"a": [1, 2], "A": ["x", "y"]}, "parquet")
    assert {n: c.type for n, c in columns.items()} == {"a": "int", "A": "string"}
