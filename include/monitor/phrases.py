"""How findings write shares, counts and lists."""

from __future__ import annotations

from collections.abc import Iterable

_SHOWN_TEXT = 60


def percent(share: float) -> str:
    """Return a share as a percentage that never rounds something to 0 % or to 100 %."""
    value = share * 100
    if 0 < value < 0.01:
        return "< 0.01 %"
    if 99.99 < value < 100:
        return "> 99.99 %"
    return f"{value:.4g} %"


def count(number: int, noun: str) -> str:
    """Return `1 row` or `2,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shortened(values: Iterable[str]) -> tuple[str, ...]:
    """Return texts, long ones cut."""
    return tuple(v if len(v) <= _SHOWN_TEXT else v[:_SHOWN_TEXT] + "…" for v in values)
