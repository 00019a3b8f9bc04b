"""Durations, shares and the other values of a spec."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.spec.values import format_duration, parse_duration, parse_share


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("10m", timedelta(minutes=10)),
        ("1d12h", timedelta(hours=36)),
        ("2w", timedelta(days=14)),
        ("1.5h", timedelta(minutes=90)),
    ],
)
def test_duration(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "10", "10 m", "-5m", "0s", 10, None, True])
def test_bad_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_duration(text)


@given(st.integers(min_value=1, max_value=10**9))
def test_duration_survives_writing_and_reading(seconds: int) -> None:
    value = timedelta(seconds=seconds)
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize(("text", "expected"), [("20%", 0.2), (0.2, 0.2), ("0.2", 0.2), (1, 1.0)])
def test_share(text: object, expected: float) -> None:
    assert parse_share(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["many", "%", True, None, [1]])
def test_bad_share_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be a share"):
        parse_share(text)
