"""Checks of the snapshot as a whole: rows, key, duplicates, freshness."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from include.spec.values import format_duration
from include.validate.findings import Finding, column_name, count, listing, percent, sentence
from include.validate.scan import Scan
from include.validate.subject import Subject

_SHRUNK = 0.5  # a snapshot of less than half the champion's rows is worth a look
_CLOCK_SLACK = timedelta(
    days=1
)  # time zones and clocks differ; more than a day is an error of the data


def check_row_count(subject: Subject) -> list[Finding]:
    """There are enough rows, and not far fewer than the champion had."""
    rows, least = subject.manifest.rows, subject.spec.validate_.min_rows
    if rows < least:
        rule = f"must have at least {count(least, 'row')} (validate.min_rows), got {rows:,}"
        fix = "Wait for more data, widen ingest.window, or lower validate.min_rows."
        return [Finding("row_count", None, "error", sentence("snapshot", rule, fix), rows, least)]
    before = subject.reference.rows if subject.reference else 0
    if rows < before * _SHRUNK:
        rule = (
            f"must not shrink below half of the champion's snapshot ({before:,} rows), got {rows:,}"
        )
        fix = "Look for files or days that are missing."
        return [Finding("row_count", None, "warn", sentence("snapshot", rule, fix), rows, before)]
    text = f"{count(rows, 'row')}, at least {least:,} wanted"
    return [Finding("row_count", None, "ok", text, rows, least)]


def check_key(subject: Subject, scan: Scan) -> list[Finding]:
    """No row lacks its key, and no key occurs twice."""
    key = subject.spec.ingest.key
    if key is None or key not in subject.statistics:
        return []
    found = []
    nulls = subject.statistics[key].nulls
    if nulls:
        rule = f"must name every row (ingest.key), got {count(nulls, 'row')} without a value"
        fix = "Fix the source; labels could not be joined to these rows."
        found.append(Finding("key", key, "error", sentence(column_name(key), rule, fix), nulls, 0))
    values, extra, some = scan.repeated(key)
    if values:
        rule = (
            f"must be different in every row (ingest.key), got {count(values, 'value')} "
            f"more than once ({count(extra, 'row')} too many), such as {listing(some)}"
        )
        fix = "Keep one row for each entity at the source, or name another ingest.key."
        found.append(Finding("key", key, "error", sentence(column_name(key), rule, fix), values, 0))
    return found or [Finding("key", key, "ok", f"{key!r} is unique and never missing", 0, 0)]


def check_duplicates(subject: Subject, scan: Scan, key: Sequence[Finding]) -> list[Finding]:
    """Rows do not repeat each other in every column; `key` is what `check_key` found."""
    if key and all(f.severity == "ok" for f in key):
        # A key that is unique makes every row unique: no need to hash them all.
        return [Finding("duplicate_rows", None, "ok", "none: the key is unique", 0, 0)]
    repeated = scan.repeated_rows()
    if not repeated:
        return [Finding("duplicate_rows", None, "ok", "no row repeats another", 0, 0)]
    share = percent(repeated / subject.manifest.rows)
    rule = f"rows must not repeat each other in every column, got {count(repeated, 'repetition')} ({share})"
    fix = "A copy may land on both sides of the holdout and flatter the model; remove copies at the source."
    return [Finding("duplicate_rows", None, "warn", sentence("snapshot", rule, fix), repeated, 0)]


def check_freshness(subject: Subject) -> list[Finding]:
    """The newest row is young enough, no row is from the future, and every row has a time."""
    name = subject.spec.ingest.time
    statistics = subject.statistics.get(name) if name else None
    if name is None or statistics is None or statistics.type != "timestamp":
        return []
    where = column_name(name)
    found = []
    if statistics.nulls:
        rule = f"must be known for every row (ingest.time), got {count(statistics.nulls, 'row')} without a value"
        fix = "Fix the source; such rows can go neither into the holdout nor before it."
        found.append(
            Finding("freshness", name, "error", sentence(where, rule, fix), statistics.nulls, 0)
        )
    if statistics.high is None:
        return found
    newest = _utc(str(statistics.high))
    age = subject.now - newest
    limit = subject.spec.validate_.max_age
    if age < -_CLOCK_SLACK:
        rule = (
            f"must not lie in the future, got {newest:%Y-%m-%d %H:%M} UTC, {_days(-age)} from now"
        )
        fix = "Look at the source's time zone and clock, or at ingest.time_format."
        found.append(_freshness(name, "warn", sentence(where, rule, fix), newest, subject.now))
    if limit is not None and age > limit:
        rule = (
            f"the newest row must be at most {format_duration(limit)} old (validate.max_age), "
            f"got {newest:%Y-%m-%d %H:%M} UTC, {_days(age)} old"
        )
        fix = "Find out why no newer data arrived, or raise validate.max_age."
        found.append(_freshness(name, "error", sentence(where, rule, fix), newest, limit))
    if found:
        return found
    wanted = (
        f", at most {format_duration(limit)} wanted" if limit else "; validate.max_age is not set"
    )
    text = f"newest row {newest:%Y-%m-%d %H:%M} UTC, {_days(max(age, timedelta()))} old{wanted}"
    return [Finding("freshness", name, "ok", text, newest, None)]


def _freshness(
    name: str, severity: str, message: str, newest: datetime, expected: datetime | timedelta
) -> Finding:
    wanted = format_duration(expected) if isinstance(expected, timedelta) else expected
    return Finding(
        "freshness", name, "error" if severity == "error" else "warn", message, newest, wanted
    )


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _days(span: timedelta) -> str:
    if span < timedelta(hours=1):
        return f"{span.total_seconds() / 60:.0f} minutes"
    if span < timedelta(days=2):
        return f"{span.total_seconds() / 3600:.1f} hours"
    return f"{span.days:,} days"
