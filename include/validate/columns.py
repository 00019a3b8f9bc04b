"""Checks of one column at a time: missing values, infinities, ranges, constants, categories."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from include.store.snapshots import Column, Manifest
from include.validate.findings import (
    Finding,
    Severity,
    column_name,
    count,
    listing,
    percent,
    sentence,
)
from include.validate.scan import NUMERIC, Scan, Statistics
from include.validate.subject import Subject

_NEW_CATEGORIES = 0.01  # share of rows with a category the champion never saw
_MANY = 1000  # categories that make a one-hot encoder large whatever the number of rows
_MANY_SHARE = 0.5  # more categories than half the rows: an id or free text
_MANY_LEAST = 50
_COMPARABLE = 10_000  # categories of the champion beyond which novelty says nothing
_MOSTLY_NUMBERS = 0.5


def check_missing(subject: Subject) -> list[Finding]:
    """No column is empty, and no column's share of missing values grew much over the champion's."""
    rows, limit = subject.manifest.rows, subject.spec.validate_.max_null_increase
    found = []
    for column in _present(subject):
        share = column.nulls / rows
        old = subject.reference.column(column.name) if subject.reference else None
        before = old.null_share if old else None
        if column.nulls == rows:
            rule = f"must hold values, got none in {count(rows, 'row')}"
            fix = _empty_fix(subject, column.name)
            found.append(_missing(subject, column.name, rule, fix, share, before))
        elif before is not None and share - before > limit:
            rule = (
                f"the share of missing values must not grow by more than {limit * 100:.4g} points "
                f"over the champion's {percent(before)} (validate.max_null_increase), got {percent(share)}"
            )
            fix = "Find out what stopped at the source, or raise validate.max_null_increase."
            found.append(_missing(subject, column.name, rule, fix, share, before))
    text = "no column is empty"
    if not subject.first:
        text += (
            f" or misses over {limit * 100:.4g} points more values than in the champion's snapshot"
        )
    return found or [_passed("missing_values", text)]


def check_infinite(subject: Subject) -> list[Finding]:
    """Numbers are finite."""
    found = []
    for column in _present(subject):
        if column.infinite:
            rule = f"must hold finite numbers, got {count(column.infinite, 'row')} with an infinity"
            fix = "Look for a division by zero at the source; write such values as missing."
            severity = _by_use(subject, column.name)
            message = sentence(column_name(column.name), rule, fix)
            found.append(Finding("infinite", column.name, severity, message, column.infinite, 0))
    return found or [_passed("infinite", "every number is finite")]


def range_bounds(reference: Manifest | None) -> dict[str, tuple[float, float]]:
    """Return how far each numeric column may range: the champion's range, widened by itself on both sides.

    A column that held one value may move by as much as that value (at least 1).
    """
    bounds = {}
    for column in reference.columns if reference else ():
        ends = _ends(column)
        if ends:
            low, high = ends
            width = (high - low) or max(abs(high), 1.0)
            bounds[column.name] = (low - width, high + width)
    return {n: b for n, b in bounds.items() if all(map(math.isfinite, b))}


def check_ranges(subject: Subject) -> list[Finding]:
    """Numbers stay within twice the champion's range on either side."""
    found = []
    bounds = range_bounds(subject.reference)
    for column in _present(subject, subject.features.numeric):
        if not column.outside or column.name not in bounds or subject.reference is None:
            continue
        old = subject.reference.column(column.name)
        ends = _ends(old) if old else None
        if ends is None:
            continue
        rule = (
            f"must range about as for the champion ({ends[0]:.6g} to {ends[1]:.6g}), "
            f"got {column.low:.6g} to {column.high:.6g}, {count(column.outside, 'row')} far outside"
        )
        fix = "Look for a changed unit or a marker such as -999 or 1e9."
        message = sentence(column_name(column.name), rule, fix)
        observed = {"low": column.low, "high": column.high, "rows": column.outside}
        expected = {"low": ends[0], "high": ends[1]}
        found.append(Finding("range", column.name, "warn", message, observed, expected))
    if subject.first:
        return found or [_passed("range", "no champion's snapshot to compare with yet")]
    return found or [_passed("range", "every number lies near the champion's range")]


def check_constant(subject: Subject) -> list[Finding]:
    """Every feature has at least two values."""
    found = []
    for column in _present(subject, subject.features.names):
        if column.constant:
            got = "" if column.low is None else f" ({column.low})"
            rule = f"must have more than one value, got the same{got} in every row"
            fix = "It teaches nothing; find out why at the source, or name it in ingest.drop."
            message = sentence(column_name(column.name), rule, fix)
            found.append(Finding("constant", column.name, "warn", message, column.low, None))
    return found or [_passed("constant", "every feature varies")]


def check_categories(subject: Subject, scan: Scan) -> list[Finding]:
    """Categorical features have few enough categories to learn from."""
    found = []
    for column in _present(subject, subject.features.categorical):
        present = subject.manifest.rows - column.nulls
        if column.distinct < _MANY_LEAST:
            continue
        if column.distinct <= _MANY and column.distinct <= present * _MANY_SHARE:
            continue
        rule = f"a category should recur often enough to learn from, got about {column.distinct:,} different values in {count(present, 'row')}"
        fix = "Is it an id or free text? Then name it in ingest.drop; otherwise group rare values."
        numbers = scan.numeric_share(column.name) if column.type == "string" else 0.0
        if numbers > _MOSTLY_NUMBERS:
            fix = f"{percent(numbers)} of its values read as numbers: name the markers of missing ones in ingest.source.missing, and the column in ingest.features.numeric."
        message = sentence(column_name(column.name), rule, fix)
        found.append(
            Finding("many_categories", column.name, "warn", message, column.distinct, _MANY)
        )
    return found or [_passed("many_categories", "no category looks like an id or free text")]


def check_new_categories(subject: Subject, scan: Scan) -> list[Finding]:
    """Few rows hold a category that the champion's snapshot never had.

    Without the champion's files (snapshots are cleaned away some day) it says that it could not look.
    """
    if not scan.has_reference:
        rule = "categories should be compared with the champion's snapshot, got no files of it"
        fix = "They were cleaned away or damaged; the next champion brings its own."
        message = sentence("snapshot", rule, fix)
        return [Finding("new_categories", None, "warn", message, None, None)]
    found = []
    for name, before in _comparable(subject).items():
        present = subject.manifest.rows - subject.statistics[name].nulls
        rows, some = scan.unseen(name)
        if rows <= present * _NEW_CATEGORIES:
            continue
        rule = (
            f"at most {percent(_NEW_CATEGORIES)} of rows should hold a category unknown to the champion, "
            f"got {percent(rows / present)}, such as {listing(some)}"
        )
        fix = "A new value at the source, or a new spelling of an old one?"
        message = sentence(column_name(name), rule, fix)
        observed = {"share": rows / present, "examples": some}
        found.append(
            Finding("new_categories", name, "warn", message, observed, {"known": before.distinct})
        )
    return found or [_passed("new_categories", "hardly a category the champion does not know")]


def _comparable(subject: Subject) -> Mapping[str, Column]:
    """Return the champion's columns whose categories can be compared, by name."""
    if subject.reference is None:
        return {}
    found = {}
    for column in _present(subject, subject.features.categorical):
        old = subject.reference.column(column.name)
        same = old is not None and old.type == column.type and old.null_share < 1
        if (
            old
            and same
            and (old.distinct or 0) <= _COMPARABLE
            and column.nulls < subject.manifest.rows
        ):
            found[column.name] = old
    return found


def _present(subject: Subject, names: Iterable[str] | None = None) -> list[Statistics]:
    wanted = subject.statistics if names is None else names
    return [subject.statistics[n] for n in wanted if n in subject.statistics]


def _ends(column: Column) -> tuple[float, float] | None:
    if column.type not in NUMERIC or column.low is None or column.high is None:
        return None
    low, high = float(column.low), float(column.high)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def _by_use(subject: Subject, name: str) -> Severity:
    return "error" if subject.matters(name) else "warn"


def _empty_fix(subject: Subject, name: str) -> str:
    if subject.role(name) == "feature":
        return "Fill it at the source, or name it in ingest.drop."
    return "Fill it at the source."


def _missing(
    subject: Subject, name: str, rule: str, fix: str, share: float, before: float | None
) -> Finding:
    message = sentence(column_name(name), rule, fix)
    return Finding("missing_values", name, _by_use(subject, name), message, share, before)


def _passed(check: str, text: str) -> Finding:
    return Finding(check, None, "ok", text)
