"""Formats of written dates."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.profile.dates import find_format

DAYS = [date(2011, 1, 1) + timedelta(days=d) for d in range(60)]


@pytest.mark.parametrize(
    ("form", "values"),
    [
        ("%m/%d/%y", [f"{d.month}/{d.day}/{d:%y}" for d in DAYS]),
        ("%d/%m/%Y", [f"{d:%d/%m/%Y}" for d in DAYS]),
        ("%d.%m.%Y %H:%M", [f"{d:%d.%m.%Y} 07:30" for d in DAYS]),
        ("%m-%d-%Y %I:%M %p", [f"{d:%m-%d-%Y} 11:05 PM" for d in DAYS]),
        ("%d-%b-%Y", [f"{d:%d-%b-%Y}" for d in DAYS]),
        ("%Y/%m/%d", [f"{d:%Y/%m/%d}" for d in DAYS]),
    ],
)
def test_finds_the_format(form: str, values: list[str]) -> None:
    found = find_format(values)
    assert found is not None
    assert (found.format, found.ambiguous) == (form, False)


def test_says_which_value_settles_day_and_month() -> None:
    found = find_format(["1/2/11", "1/13/11"])
    assert found is not None
    assert found.evidence == "'1/13/11' cannot be %d/%m/%y"


def test_rows_in_order_of_time_settle_it() -> None:
    found = find_format([f"{d:02}/{m:02}/2020" for m in (2, 3) for d in range(1, 7)])
    assert found is not None
    assert (found.format, found.ambiguous) == ("%d/%m/%Y", False)
    assert found.evidence == "only so are the rows in order of time"


def test_says_when_nothing_settles_it() -> None:
    found = find_format(["05/01/2020", "01/02/2020", "03/01/2020"])
    assert found is not None
    assert found.ambiguous
    assert found.evidence == "%d/%m/%Y reads every value too"


@pytest.mark.parametrize(
    "values", [["2024-01-31"], ["2024-01-31T10:00:00Z", "2024-01-31 10:00:00.5+02:00"]]
)
def test_iso_needs_no_format(values: list[str]) -> None:
    found = find_format(values)
    assert found is not None
    assert found.format is None


@pytest.mark.parametrize("values", [[], ["red"], ["1/1/11", "red"], ["1/1/11", "1/1/2011"], ["12"]])
def test_other_texts_are_no_dates(values: list[str]) -> None:
    assert find_format(values) is None


@given(st.lists(st.dates(date(1970, 1, 1), date(2068, 12, 31)), min_size=1))
def test_the_format_found_reads_every_value_right_or_says_it_may_not(days: list[date]) -> None:
    found = find_format([f"{d:%m/%d/%Y}" for d in days])
    assert found is not None
    assert found.ambiguous or found.evidence or found.format == "%m/%d/%Y"
    if any(d.day > 12 for d in days):
        assert (found.format, found.ambiguous) == ("%m/%d/%Y", False)
