"""Value types of the spec: durations, shares, code paths, cron expressions, time zones."""

from __future__ import annotations

import functools
import re
from datetime import timedelta
from typing import Annotated
from zoneinfo import available_timezones

from croniter import croniter
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
# Looking through the files takes 3 ms: too long for each of a thousand specs.
_time_zones = functools.cache(available_timezones)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def parse_duration(value: object) -> timedelta:
    """Parse `90s`, `10m`, `24h`, `30d`, `2w` or a sum such as `1d12h`; a timedelta passes through."""
    if isinstance(value, timedelta):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if not text or _DURATION.sub("", text):
        raise ValueError(f"must be a duration such as 90s, 10m, 24h, 30d or 1d12h, got {value!r}")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
    if seconds <= 0:
        raise ValueError(f"must be longer than zero, got {value!r}")
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """Write a duration the way a spec does: the inverse of `parse_duration`."""
    rest, parts = value.total_seconds(), []
    for unit in "dhms":
        count, rest = divmod(rest, _UNITS[unit]) if unit != "s" else (rest, 0)
        if count:
            parts.append(f"{count:g}{unit}")
    return "".join(parts) or "0s"


def parse_share(value: object) -> float:
    """Parse `20%` or `0.2` into 0.2."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"must be a share such as 20% or 0.2, got {value!r}")
    try:
        if isinstance(value, str) and value.strip().endswith("%"):
            return float(value.strip()[:-1]) / 100
        return float(value)
    except ValueError:
        raise ValueError(f"must be a share such as 20% or 0.2, got {value!r}") from None


def _check_dotted(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value):
        raise ValueError(f"must be a dotted path such as sklearn.linear_model.Ridge, got {value!r}")
    return value


def _check_cron(value: str) -> str:
    if not croniter.is_valid(value) or len(value.split()) not in (1, 5):
        raise ValueError(
            f"must be a cron expression of five fields or a preset such as @daily, got {value!r}"
        )
    return value


def _check_timezone(value: str) -> str:
    if value not in _time_zones():
        raise ValueError(f"must be an IANA time zone such as Europe/Berlin, got {value!r}")
    return value


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^(\d+(\.\d+)?[smhdw])+$", "examples": ["10m", "24h", "30d"]}
    ),
]
_SHARE_SCHEMA = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": 1},
        {"type": "string", "pattern": r"^\d+(\.\d+)?%$"},
    ]
}
Share = Annotated[
    float, BeforeValidator(parse_share), Field(ge=0, le=1), WithJsonSchema(_SHARE_SCHEMA)
]
CodePath = Annotated[str, AfterValidator(_check_dotted)]
Cron = Annotated[str, AfterValidator(_check_cron)]
TimeZone = Annotated[str, AfterValidator(_check_timezone)]
