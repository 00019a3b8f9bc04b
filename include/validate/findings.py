"""What a check has to say: findings, the stage's result, and values that survive JSON.

Light: no check lives here, so that operators and reports can import it cheaply.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

from include.errors import DataError

Severity = Literal["ok", "warn", "error"]
_SHOWN = 5
_TEXT = 200


@dataclass(frozen=True)
class Finding:
    """One thing a check found.

    Args:
        check: Name of the check, such as `row_count` or `leakage`.
        column: Column it is about; None for the snapshot as a whole or for several columns.
        severity: `error` stops the run, `warn` does not, `ok` says that the check passed.
        message: *where: rule, got what. What to do.*
        observed: What was measured, as plain JSON values.
        expected: What the rule asks for, as plain JSON values.
    """

    check: str
    column: str | None
    severity: Severity
    message: str
    observed: Any = None
    expected: Any = None

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON values: no NaN, no NumPy, no long texts."""
        return {
            "check": self.check,
            "column": self.column,
            "severity": self.severity,
            "message": self.message,
            "observed": plain(self.observed),
            "expected": plain(self.expected),
        }


@dataclass(frozen=True)
class ValidateResult:
    """The outcome of the stage.

    Args:
        ok: True when no finding is an error.
        findings: Every finding: errors first, then warnings, then passed checks.
        report_html: Page for people; one self-contained file.
        report_json: The same for programs.
    """

    ok: bool
    findings: tuple[Finding, ...]
    report_html: Path
    report_json: Path

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop the run."""
        return tuple(f for f in self.findings if f.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings worth a look."""
        return tuple(f for f in self.findings if f.severity == "warn")

    @property
    def summary(self) -> str:
        """One line with the counts and the first errors, else the first warnings."""
        worst = self.errors or self.warnings
        counts = f"{count(len(self.errors), 'error')}, {count(len(self.warnings), 'warning')}"
        shown = " | ".join(f.message for f in worst[:_SHOWN])
        more = f" | and {len(worst) - _SHOWN} more" if len(worst) > _SHOWN else ""
        return f"{counts}: {shown}{more}" if worst else counts

    def raise_if_refused(self, model: str, report: str) -> None:
        """Stop the run when the snapshot is refused.

        Args:
            model: Name of the model.
            report: Where the reader finds the report: a path or an address.

        Raises:
            DataError: Some finding is an error; the text holds the first five.
        """
        if not self.ok:
            rule = f"the snapshot must pass every check, got {self.summary.rstrip('.')}"
            raise DataError(f"{model}: validate", rule, f"The whole report: {report}")


def sentence(where: str, rule: str, fix: str) -> str:
    """Put the parts of a finding into one message of the house form."""
    return f"{where}: {rule}. {fix}".strip()


def column_name(name: str) -> str:
    """Return how messages call a column."""
    return f"column {name!r}"


def count(number: int, noun: str) -> str:
    """Return `1 row` or `2,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """Return a share as a percentage that never rounds something to 0 % or to 100 %."""
    value = share * 100
    if 0 < value < 0.01:
        return "< 0.01 %"
    if 99.99 < value < 100:
        return "> 99.99 %"
    return f"{value:.4g} %"


def listing(names: Iterable[str], shown: int = _SHOWN) -> str:
    """Return quoted names, cut after `shown` of them."""
    every = list(names)
    more = f" and {len(every) - shown} more" if len(every) > shown else ""
    return ", ".join(repr(n) for n in every[:shown]) + more


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: NumPy unwrapped, NaN and infinities as text, texts cut."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset) or hasattr(value, "tolist"):
        return [plain(v) for v in list(value)[:50]]
    if isinstance(value, datetime | date):
        return value.isoformat()
    text = str(value)
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


def to_json(value: Any) -> str:
    """Return `value` as indented JSON without NaN."""
    return json.dumps(plain_tree(value), indent=1, ensure_ascii=False, allow_nan=False)


def plain_tree(value: Any) -> Any:
    """Return a report's tree with its leaves made plain; lists and texts keep their length."""
    if isinstance(value, Mapping):
        return {str(k): plain_tree(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_tree(v) for v in value]
    return value if isinstance(value, str) else plain(value)
