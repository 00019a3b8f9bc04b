"""Which columns a model should not learn from, and the evidence for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from include.profile.column import Column
from include.profile.relations import find_leaks, find_repeats
from include.profile.roles import Target, is_id_name, words
from include.profile.table import Table

Kind = Literal[
    "target", "key", "time", "missing", "leakage", "repeat", "constant", "row number",
    "personal", "identifier", "text", "date", "type", "imbalance", "rows",
]  # fmt: skip

MAX_CATEGORIES = 200
_PERSONAL = re.compile(
    r"(^|_)(e_?mail|phone|mobile|ssn|iban|passport|first_?name|last_?name|surname|full_?name|"
    r"street|address|credit_?card)($|_)"
)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


@dataclass(frozen=True)
class Finding:
    """One thing worth telling about the file.

    Args:
        kind: What it is about.
        column: The column; None where it is about the file.
        message: The finding with its number, as a phrase.
        warn: A person should look at it.
    """

    kind: Kind
    column: str | None
    message: str
    warn: bool = False


def find_useless(columns: Sequence[Column]) -> list[Finding]:
    """Find columns that cannot tell anything: constant ones, row counters, lists."""
    found = []
    for c in columns:
        if c.type == "other":
            found.append(Finding("type", c.name, "holds lists or objects"))
        elif c.distinct == 0:
            found.append(Finding("constant", c.name, "every value is missing"))
        elif c.distinct == 1 and (c.nulls == 0 or c.null_share > 0.99):
            found.append(Finding("constant", c.name, f"holds nothing but {c.values[0][0]!r}"))
        elif c.counts_rows and not is_id_name(c.name):
            found.append(Finding("row number", c.name, f"counts the {c.rows:,} rows"))
    return found


def find_identifying(columns: Sequence[Column]) -> list[Finding]:
    """Find columns that tell who a row is about, or that are different in nearly every row."""
    found = []
    for c in columns:
        share = c.distinct / max(c.rows - c.nulls, 1)
        if is_personal(c):
            found.append(Finding("personal", c.name, "looks like personal data"))
        elif c.type == "timestamp":
            text = f"{c.low} to {c.high}: a date is no feature as it stands"
            found.append(Finding("date", c.name, text))
        elif is_id_name(c.name) and c.type in ("int", "string") and share > 0.5:
            text = f"{c.distinct:,} different values in {c.rows:,} rows: would be learnt by heart"
            found.append(Finding("identifier", c.name, text))
        elif c.type == "string" and (c.distinct > MAX_CATEGORIES or _is_prose(c, share)):
            text = f"{c.distinct:,} different texts in {c.rows:,} rows: too many for categories"
            found.append(Finding("text", c.name, text))
    return found


def is_personal(column: Column) -> bool:
    """Whether a column looks like personal data, by its name or by addresses among its values."""
    if column.type != "string":
        return bool(_PERSONAL.search(words(column.name))) and column.type == "int"
    shown = [str(v) for v, _ in column.values]
    mails = sum(1 for v in shown if _EMAIL.fullmatch(v))
    named = bool(_PERSONAL.search(words(column.name))) and column.distinct > MAX_CATEGORIES / 4
    return named or (bool(shown) and mails > 0.8 * len(shown))


def _is_prose(column: Column, share: float) -> bool:
    return (share > 0.5 and column.distinct > 20) or (column.length or 0) > 80


def find_related(
    table: Table, columns: Sequence[Column], roles: Sequence[Column], goal: Target
) -> list[Finding]:
    """Find columns that repeat another one (roles come first) and those that give the target away."""
    repeats = find_repeats(table, [*roles, *columns])
    found = [
        Finding("repeat", r.name, r.how) for r in repeats if r.name not in {c.name for c in roles}
    ]
    left = without(columns, found)
    for leak in find_leaks(table, left, goal.column, goal.task):
        found += [Finding("leakage", name, leak.how, warn=True) for name in leak.names]
    return first_reasons(found)


def first_reasons(findings: Iterable[Finding]) -> list[Finding]:
    """Keep the first finding of every column."""
    seen: dict[str | None, Finding] = {}
    for finding in findings:
        seen.setdefault(finding.column, finding)
    return list(seen.values())


def without(columns: Sequence[Column], findings: Sequence[Finding]) -> list[Column]:
    """Return the columns no finding is about."""
    gone = {f.column for f in findings}
    return [c for c in columns if c.name not in gone]
