"""The target: known in every row, and worth predicting."""

from __future__ import annotations

from typing import Any

from include.spec.loader import suggest
from include.spec.schema import Spec
from include.store.features import category_text
from include.validate.findings import Finding, Severity, column_name, count, listing, sentence
from include.validate.scan import NUMERIC, Scan, Statistics
from include.validate.subject import Subject

_CHECK = "target"
_MANY_CLASSES = (
    100  # beyond this many classes, the task is more likely a regression, or the column an id
)


def check_target(subject: Subject, scan: Scan) -> list[Finding]:
    """The target has no missing value, and as many different ones as the task needs."""
    name = subject.spec.ingest.target
    if name not in subject.statistics:
        return []  # said by the schema check
    statistics = subject.statistics[name]
    found = []
    if statistics.nulls:
        rule = f"must be known in every row, got {count(statistics.nulls, 'row')} without a value"
        fix = "Keep rows out until their outcome is known, for instance by a query or a filter at the source."
        found.append(_finding(name, "error", rule, fix, statistics.nulls, 0))
    if statistics.nulls == subject.manifest.rows:
        return found
    if subject.spec.task == "regression":
        return found + _regression(subject.spec, statistics)
    return found + _classes(subject.spec, name, scan.class_counts(name))


def _regression(spec: Spec, statistics: Statistics) -> list[Finding]:
    name = statistics.name
    if statistics.type not in NUMERIC:
        rule = f"must be a number for task regression, got type {statistics.type}"
        fix = "Name another ingest.target, or set task to binary or multiclass."
        return [_finding(name, "error", rule, fix, statistics.type, "number")]
    if statistics.low == statistics.high and not statistics.infinite:
        rule = f"must have more than one value, got only {statistics.low}"
        return [
            _finding(
                name, "error", rule, "There is nothing to learn yet; look at the source.", 1, 2
            )
        ]
    text = (
        f"from {statistics.low:.6g} to {statistics.high:.6g}"
        if isinstance(statistics.low, float) and isinstance(statistics.high, float)
        else "varies"
    )
    return [Finding(_CHECK, spec.ingest.target, "ok", text, [statistics.low, statistics.high])]


def _classes(spec: Spec, name: str, classes: list[tuple[Any, int]]) -> list[Finding]:
    values = [value for value, _ in classes]
    observed = {str(value): number for value, number in classes[:20]}
    if len(values) < 2:
        rule = f"must have more than one class, got only {values[0]!r}"
        fix = "There is nothing to learn yet: wait for rows of another class, or look at the filter at the source."
        return [_finding(name, "error", rule, fix, observed, 2)]
    if spec.task == "binary" and len(values) > 2:
        rule = f"must have exactly two classes for task binary, got {_how_many(values)}: {listing(map(str, values))}"
        fix = "Set task to multiclass, or make two classes at the source."
        return [_finding(name, "error", rule, fix, observed, 2)]
    positive = spec.ingest.positive
    if positive is not None and category_text(positive) not in map(category_text, values):
        rule = f"must hold the value of ingest.positive ({positive!r}), got {listing(map(str, values))}"
        hint = suggest(str(positive), map(str, values))
        return [
            _finding(name, "error", rule, hint or "Correct ingest.positive.", observed, positive)
        ]
    return _rare(spec, name, classes, observed)


def _rare(
    spec: Spec, name: str, classes: list[tuple[Any, int]], observed: dict[str, int]
) -> list[Finding]:
    if len(classes) > _MANY_CLASSES:
        rule = f"should have at most {_MANY_CLASSES} classes, got {_how_many(classes)}"
        fix = "Is the task a regression, or the column an id?"
        return [_finding(name, "warn", rule, fix, len(classes), _MANY_CLASSES)]
    least = 2 * spec.train.tune.folds
    rare = [(value, number) for value, number in classes if number < least]
    if rare:
        shown = ", ".join(f"{value!r} in {count(number, 'row')}" for value, number in rare[:5])
        rule = f"every class should have at least {least} rows, two for each fold, got {shown}"
        fix = "Scores of such a class mean little; collect more rows or merge classes."
        return [_finding(name, "warn", rule, fix, observed, least)]
    text = ", ".join(f"{value!r}: {number:,}" for value, number in classes[:5])
    more = f" and {len(classes) - 5} more classes" if len(classes) > 5 else ""
    return [Finding(_CHECK, name, "ok", text + more, observed)]


def _how_many(values: list[Any]) -> str:
    return f"{len(values):,}" if len(values) < 1000 else "1,000 or more"


def _finding(
    name: str, severity: Severity, rule: str, fix: str, observed: object, expected: object
) -> Finding:
    return Finding(
        _CHECK, name, severity, sentence(column_name(name), rule, fix), observed, expected
    )
