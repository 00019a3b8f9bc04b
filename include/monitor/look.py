"""One pass of the monitor without Airflow: the same checks and the same decision, and nothing recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from include.monitor.collect import Collected, collect
from include.monitor.decide import Outcome, decide
from include.monitor.drift import check_drift
from include.monitor.findings import Finding
from include.monitor.performance import check_performance
from include.monitor.quality import check_quality
from include.monitor.reference import Reference
from include.monitor.windows import Window, latest_window
from include.spec.schema import Spec
from include.store.files import Store
from include.store.labels import labels_root, read_labels


@dataclass(frozen=True)
class Look:
    """What one pass found.

    Attributes:
        collected: The window and its rows.
        matured: The window whose labels are due; None where the spec has no labels.
        findings: What all checks found.
        outcome: What it comes to.
    """

    collected: Collected
    matured: Window | None
    findings: tuple[Finding, ...]
    outcome: Outcome


def look(
    spec: Spec,
    store: Store,
    reference: Reference,
    history: Sequence[Mapping[str, Any]],
    *,
    now: datetime,
    folder: Path,
) -> Look:
    """Judge the newest window of a version.

    Args:
        spec: The model's spec.
        store: Where the log and the labels are.
        reference: What the version learned from.
        history: Payloads of the ledger's `monitor` events of this version, oldest first, one for each window.
        now: The time, aware.
        folder: Where the window's rows go.

    Raises:
        DataError: A file cannot be read.
    """
    monitor, model = spec.monitor, spec.model
    window = latest_window(now, monitor.window)
    past = [payload for payload in history if str(payload["window"]) < window.key]
    collected = collect(spec, store, window, reference.version, out=folder)
    counts = [int(payload["rows"]) for payload in past]
    findings = check_quality(spec, collected.path, reference, window, now=now, history=counts)
    matured = labels = None
    if monitor.labels is not None:
        matured = latest_window(now, monitor.window, delay=monitor.labels.delay)
        labels = read_labels(store, model, matured.start, matured.end)
    findings += check_drift(spec, collected.path, reference, labels=labels)
    if matured is not None:
        then = collect(spec, store, matured, reference.version, out=folder / "matured")
        findings += check_performance(
            spec,
            then.path,
            read_labels(store, model, matured.start, now),
            reference,
            labels_due=any(store.list(f"{labels_root(model)}/")),
        )
    key = matured.key if matured else None
    row = next((payload for payload in reversed(past) if payload["window"] == key), None)
    outcome = decide(spec, findings, past, window=window.key, matured=key, matured_row=row)
    return Look(collected, matured, findings, outcome)
