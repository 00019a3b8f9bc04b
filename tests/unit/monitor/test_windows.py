from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.monitor.windows import Window, latest_window, start_of

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
LENGTHS = st.timedeltas(min_value=timedelta(minutes=1), max_value=timedelta(days=30))
TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))


@pytest.mark.parametrize(
    ("length", "delay", "start"),
    [
        (timedelta(days=1), timedelta(0), datetime(2026, 2, 28, tzinfo=UTC)),
        (timedelta(hours=1), timedelta(0), datetime(2026, 3, 1, 11, tzinfo=UTC)),
        (timedelta(days=1), timedelta(days=30), datetime(2026, 1, 29, tzinfo=UTC)),
    ],
)
def test_the_newest_window_that_has_ended(length, delay, start):
    assert latest_window(NOW, length, delay=delay) == Window(start, start + length)


def test_a_window_that_ends_now_has_ended():
    end = datetime(2026, 3, 1, tzinfo=UTC)
    assert latest_window(end, timedelta(days=1)).end == end


def test_windows_lie_in_utc_whatever_the_zone_of_now():
    moved = NOW.astimezone(timezone(timedelta(hours=9)))
    assert latest_window(moved, timedelta(days=1)).key == "20260228T000000Z"


@given(now=TIMES, length=LENGTHS, delay=LENGTHS)
def test_every_moment_belongs_to_one_window_that_is_looked_at_once(now, length, delay):
    window = latest_window(now, length, delay=delay)
    assert window.end - window.start == length
    assert timedelta(0) <= now - delay - window.end < length
    following = latest_window(now + length, length, delay=delay)
    assert following.start == window.end
    assert following.key > window.key
    assert start_of(window.key) == window.start.replace(microsecond=0)


def test_keys_and_texts():
    window = latest_window(NOW, timedelta(hours=1))
    assert window.key == "20260301T110000Z"
    assert str(window) == "2026-03-01 11:00 to 2026-03-01 12:00 UTC"
