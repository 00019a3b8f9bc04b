"""Finds the strptime format of dates that are written as text, and says when day and month are ambiguous."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

_ISO = re.compile(
    r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?)?\s?(Z|[+-]\d{2}:?\d{2})?"
)
_DATES = (
    "%m/%d/%y", "%d/%m/%y", "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d",
    "%d.%m.%Y", "%d.%m.%y", "%m-%d-%Y", "%d-%m-%Y", "%m-%d-%y", "%d-%m-%y",
    "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y",
)  # fmt: skip
_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S")
_TELLING = 10  # so many values in order of time are no accident
_FORMATS = tuple(date + time for date in _DATES for time in _TIMES)


@dataclass(frozen=True)
class DateFormat:
    """How a text column writes its dates.

    Args:
        format: strptime format; None where the texts are ISO 8601, which needs none.
        evidence: What settled the order of day and month, as a phrase; empty where nothing needed settling.
        ambiguous: Nothing in the data settled it: the first of two readings was taken.
    """

    format: str | None
    evidence: str = ""
    ambiguous: bool = False


def find_format(values: Sequence[str]) -> DateFormat | None:
    """Find the one format that reads every value.

    Args:
        values: Distinct, non-missing texts in file order, trimmed; the more, the surer.

    Returns:
        None where the texts are not dates.
    """
    if not values:
        return None
    if all(_ISO.fullmatch(v) for v in values):
        return DateFormat(None)
    fitting = [f for f in _FORMATS if _reads(f, values[0]) and all(_reads(f, v) for v in values)]
    if not fitting:
        return None
    if len(fitting) == 1:
        return DateFormat(fitting[0], _deciding_value(fitting[0], values))
    rising = [f for f in fitting if _is_sorted(f, values)]
    if len(rising) == 1 and len(values) >= _TELLING:
        return DateFormat(rising[0], "only so are the rows in order of time")
    return DateFormat(fitting[0], f"{_swapped(fitting[0])} reads every value too", ambiguous=True)


def _reads(form: str, value: str) -> bool:
    try:
        datetime.strptime(value, form)  # only whether it parses
    except ValueError:
        return False
    return True


def _is_sorted(form: str, values: Sequence[str]) -> bool:
    moments = [datetime.strptime(v, form) for v in values]
    return all(a <= b for a, b in pairwise(moments))


def _swapped(form: str) -> str:
    return form.translate(str.maketrans("md", "dm"))


def _deciding_value(form: str, values: Sequence[str]) -> str:
    other = _swapped(form)
    if other not in _FORMATS:
        return ""
    settled = next((v for v in values if not _reads(other, v)), None)
    return f"{settled!r} cannot be {other}" if settled else ""
