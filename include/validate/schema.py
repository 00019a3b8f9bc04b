"""Exact schema: every column by name and type, against the spec and against the champion's snapshot.

Severities: a missing or retyped column that the model uses is an error, because the champion was fitted on it
and a challenger could not be compared. One that the model does not use is a warning. A new column is a warning
too: pipelines pick their columns by name, so it cannot change a prediction. So is a numeric feature that changed
between int, float and bool, because every pipeline reads numeric features as float64.
"""

from __future__ import annotations

from collections.abc import Iterator

from include.errors import DataError
from include.spec.loader import suggest
from include.store.features import resolve_features
from include.store.snapshots import Column, Manifest
from include.validate.findings import Finding, column_name, count, sentence
from include.validate.scan import NUMERIC
from include.validate.subject import Subject

_CHECK = "schema"


def check_schema(subject: Subject) -> list[Finding]:
    """Compare the snapshot's columns with the spec's and with the champion's."""
    found = [*_against_spec(subject)]
    if subject.reference is not None:
        known = {f.column for f in found}
        found += [
            f for f in _against_reference(subject, subject.reference) if f.column not in known
        ]
    if not any(f.severity == "error" for f in found):
        try:
            resolve_features(subject.spec, subject.manifest)
        except DataError as error:
            found.append(Finding(_CHECK, None, "error", str(error)))
    if found:
        return found
    against = "the first snapshot" if subject.first else "as in the champion's snapshot"
    text = f"{count(len(subject.manifest.columns), 'column')}, {against}"
    return [Finding(_CHECK, None, "ok", text, len(subject.manifest.columns))]


def _against_spec(subject: Subject) -> Iterator[Finding]:
    ingest = subject.spec.ingest
    types = {c.name: c.type for c in subject.manifest.columns}
    listed = ingest.features
    named = [("ingest.target", ingest.target), ("ingest.key", ingest.key)]
    named.append(("ingest.time", ingest.time))
    if listed:
        named += [("ingest.features.numeric", n) for n in listed.numeric]
        named += [("ingest.features.categorical", n) for n in listed.categorical]
    for key, name in named:
        if name is None:
            continue
        if name not in types:
            hint = suggest(name, types) or f"The snapshot has {', '.join(types)}."
            rule = f"must be in the data, as {key} says, got no such column"
            yield _finding(name, "error", rule, hint, None, key)
        elif key == "ingest.features.numeric" and types[name] not in NUMERIC:
            rule = f"must hold numbers, as {key} says, got type {types[name]}"
            fix = "Clean the column at the source, name its missing markers in ingest.source.missing, or list it as categorical."
            yield _finding(name, "error", rule, fix, types[name], "numeric")
        elif key == "ingest.time" and types[name] != "timestamp":
            rule = f"must be read as time, got type {types[name]}"
            fix = "Give its format in ingest.time_format, or name another column in ingest.time."
            yield _finding(name, "error", rule, fix, types[name], "timestamp")


def _against_reference(subject: Subject, reference: Manifest) -> Iterator[Finding]:
    now = {c.name: c for c in subject.manifest.columns}
    before = {c.name: c for c in reference.columns}
    for name, old in before.items():
        if name in subject.spec.ingest.drop:
            continue  # dropped on purpose since then
        if name not in now:
            new_names = [n for n in now if n not in before]
            yield _missing(subject, old, suggest(name, new_names))
        elif now[name].type != old.type:
            yield _retyped(subject, old, now[name])
    for name, column in now.items():
        if name not in before:
            rule = f"must be known from the champion's snapshot, got a new column of type {column.type}"
            fix = "To learn from it, name it in ingest.features; to keep it out, name it in ingest.drop."
            yield _finding(name, "warn", rule, fix, column.type, None)


def _missing(subject: Subject, old: Column, hint: str) -> Finding:
    used = subject.matters(old.name)
    rule = f"must be there with type {old.type}, as in the champion's snapshot, got no such column"
    if subject.role(old.name) == "feature":
        fix = "Bring it back at the source, or, if it is gone for good, list ingest.features without it."
    else:
        fix = "Bring it back at the source."
    fix = f"{hint} {fix}".strip()
    return _finding(old.name, "error" if used else "warn", rule, fix, None, old.type)


def _retyped(subject: Subject, old: Column, new: Column) -> Finding:
    rule = f"must have type {old.type}, as in the champion's snapshot, got {new.type}"
    harmless = _same_numbers(subject, old, new) or not subject.matters(old.name)
    fix = (
        "Nothing is lost: it is read as float64 either way."
        if _same_numbers(subject, old, new)
        else "Convert it at the source; if the change is meant, give the column a new name."
    )
    return _finding(old.name, "warn" if harmless else "error", rule, fix, new.type, old.type)


def _same_numbers(subject: Subject, old: Column, new: Column) -> bool:
    """Both types reach the model as the same float64."""
    numbers = old.type in NUMERIC and new.type in NUMERIC
    if subject.role(old.name) == "target":
        return numbers and subject.spec.task == "regression"
    return numbers and old.name in subject.features.numeric


def _finding(
    name: str, severity: str, rule: str, fix: str, observed: object, expected: object
) -> Finding:
    message = sentence(column_name(name), rule, fix)
    return Finding(
        _CHECK, name, "error" if severity == "error" else "warn", message, observed, expected
    )
