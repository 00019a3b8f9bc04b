"""The validate stage: every check in its order, the reports, and quarantine.

A refused snapshot stays where it is, content-addressed; `quarantine` keeps its report and manifest beside it.
"""

from __future__ import annotations

import dataclasses
import logging
from datetime import datetime
from pathlib import Path

from include.errors import SnapshotError
from include.spec.schema import Spec
from include.store.files import Store
from include.store.snapshots import Manifest, snapshot_paths
from include.validate.columns import (
    check_categories,
    check_constant,
    check_infinite,
    check_missing,
    check_new_categories,
    check_ranges,
    range_bounds,
)
from include.validate.findings import Finding, ValidateResult
from include.validate.leakage import check_leakage
from include.validate.report import write_report
from include.validate.rows import check_duplicates, check_freshness, check_key, check_row_count
from include.validate.scan import Scan
from include.validate.schema import check_schema
from include.validate.subject import Subject, known_features
from include.validate.target import check_target

_ORDER = {"error": 0, "warn": 1, "ok": 2}


def validate(
    spec: Spec,
    store: Store,
    manifest: Manifest,
    *,
    now: datetime,
    out: Path,
    reference: Manifest | None = None,
) -> ValidateResult:
    """Check a snapshot and write `report.html` and `report.json`.

    Args:
        spec: The model's spec.
        store: Where the snapshot is.
        manifest: The snapshot.
        now: When the run happens, aware UTC; freshness is judged by it.
        out: Folder for the reports; made when missing, files of the same names are replaced.
        reference: The champion's snapshot; None before there is one.

    Returns:
        The findings, errors first, and the reports' paths. A bad snapshot is a result, not an exception.

    Raises:
        SpecError: An expectation of the spec does not exist or has wrong arguments.
        SnapshotError: The stored snapshot is missing or damaged.
    """
    subject = Subject(spec, manifest, reference, now, known_features(spec, manifest))
    found = [*check_row_count(subject), *check_schema(subject)]
    if spec.validate_.expectations:
        # Great Expectations tells on import what it does not document: 200 lines in the task's log.
        logging.getLogger("great_expectations._docs_decorators").setLevel(logging.WARNING)
        # Here, because the import takes seconds that a spec without expectations need not pay.
        from include.validate.expectations import check_expectations

        found += check_expectations(spec, store, manifest)
    if manifest.rows:
        with Scan(
            snapshot_paths(store, manifest), manifest.columns, _reference_paths(subject, store)
        ) as scan:
            bounds = range_bounds(reference)
            subject = dataclasses.replace(subject, statistics=scan.statistics(bounds))
            found += _check_values(subject, scan)
    findings = tuple(sorted(found, key=lambda f: _ORDER[f.severity]))
    ok = not any(f.severity == "error" for f in findings)
    html, json = write_report(subject, findings, out)
    return ValidateResult(ok, findings, html, json)


def quarantine(spec: Spec, store: Store, manifest: Manifest, result: ValidateResult) -> str:
    """Keep a refused snapshot's reports and manifest in the store; safe to repeat.

    Returns:
        Address of the folder `quarantine/<model>/<snapshot_id>`. The manifest is written last: once it is there,
        so is the rest.
    """
    folder = f"quarantine/{spec.model}/{manifest.snapshot_id}"
    store.write_bytes(f"{folder}/report.html", result.report_html.read_bytes())
    store.write_bytes(f"{folder}/report.json", result.report_json.read_bytes())
    store.write_bytes(f"{folder}/manifest.json", manifest.to_json().encode())
    return store.uri(folder)


def _check_values(subject: Subject, scan: Scan) -> list[Finding]:
    key = check_key(subject, scan)
    found = [
        *check_freshness(subject),
        *key,
        *check_duplicates(subject, scan, key),
        *check_target(subject, scan),
        *check_missing(subject),
        *check_infinite(subject),
        *check_constant(subject),
        *check_categories(subject, scan),
        *check_ranges(subject),
    ]
    if _compares_categories(subject):
        found += check_new_categories(subject, scan)
    return found + check_leakage(subject, scan)


def _compares_categories(subject: Subject) -> bool:
    reference = subject.reference
    if reference is None or not reference.rows or not subject.features.categorical:
        return False
    return reference.snapshot_id != subject.manifest.snapshot_id


def _reference_paths(subject: Subject, store: Store) -> list[Path]:
    """Return the champion's files where categories are to be compared; none when they are gone."""
    if subject.reference is None or not _compares_categories(subject):
        return []
    try:
        return snapshot_paths(store, subject.reference)
    except SnapshotError:
        return []  # old snapshots may be cleaned away; check_new_categories says that it could not compare
