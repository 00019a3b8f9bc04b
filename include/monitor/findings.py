"""What the monitor finds, as plain values that go into JSON, the ledger and people's hands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "alert", "insufficient_data"]
Check = Literal[
    "schema",
    "volume",
    "staleness",
    "refusals",
    "nulls",
    "range",
    "categories",
    "drift",
    "prediction_drift",
    "target_drift",
    "coverage",
    "performance",
]
#: Checks of data quality: an alert of one of these means that the data is broken, not that the world changed.
QUALITY: frozenset[str] = frozenset(
    {"schema", "volume", "staleness", "refusals", "nulls", "range", "categories"}
)
_SEVERITY: dict[Status, int] = {"ok": 0, "insufficient_data": 1, "warn": 2, "alert": 3}


@dataclass(frozen=True)
class Finding:
    """One result of one check on one window.

    Attributes:
        check: Which check.
        column: The column looked at; None where the check is of the window as a whole.
        status: What it comes to.
        message: One sentence with the numbers, for people; never a value of the data, for it is kept for ever.
        value: The number compared, in the check's own unit; None where there is none.
        threshold: What it was compared with; None where nothing was.
        examples: Values of the data that show it, for the report only.
    """

    check: Check
    column: str | None
    status: Status
    message: str
    value: float | None = None
    threshold: float | None = None
    examples: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Take examples that were read from JSON as well."""
        object.__setattr__(self, "examples", tuple(self.examples))


def worst(findings: Iterable[Finding]) -> Status:
    """Return the most severe status; `ok` for no findings."""
    return max((f.status for f in findings), key=_SEVERITY.__getitem__, default="ok")
