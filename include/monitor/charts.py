"""Evidently's report of the columns compared, below our findings.

It draws from the same samples, by the methods that made the findings, so its numbers are theirs. What Evidently
cannot take is left out: columns without enough values, and constant ones.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from include.monitor.distance import Pair, pinned, register
from include.monitor.findings import Finding
from include.monitor.reference import Reference
from include.monitor.sample import Subject, subjects
from include.spec.schema import Spec

_MOST_COLUMNS = 60  # a page with more of them is slow to open
_PAGE = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head><body>{body}</body></html>'
# Evidently writes names into a script unescaped: nothing in them may end it or begin a tag.
_HARMLESS = str.maketrans({"<": "‹", ">": "›", "&": "＆"})


@dataclass(frozen=True, eq=False)
class _Column:
    """One column as Evidently gets it; `limit` is infinite where our finding is no alert."""

    name: str
    pair: Pair
    method: str
    limit: float


def with_charts(
    block: str, spec: Spec, path: Path, reference: Reference, findings: Sequence[Finding]
) -> str:
    """Return a whole page: the findings' block, then Evidently's report of the columns that can be compared.

    Args:
        block: Our findings as HTML.
        spec: Methods and thresholds.
        path: The window's rows.
        reference: What they are compared with.
        findings: What was found, so that Evidently's verdicts are ours.

    Raises:
        DataError: A file cannot be read.
    """
    columns = _columns(spec, subjects(spec, path, reference), findings)[:_MOST_COLUMNS]
    page, left_out = _draw(columns)
    if left_out:
        names = escape(", ".join(column.name for column in left_out))
        text = f"Evidently cannot draw these columns, their numbers are too extreme: {names}."
        block += f'<p style="margin:16px 24px;font:14px system-ui,sans-serif">{text}</p>'
    if not page:
        return _PAGE.format(title=f"{spec.model}: monitor", body=block)
    title = f"<title>{spec.model}: monitor</title>"
    return page.replace("<head>", f"<head>{title}", 1).replace("<body>", f"<body>{block}", 1)


def _columns(spec: Spec, found: Sequence[Subject], findings: Sequence[Finding]) -> list[_Column]:
    """Return what can be drawn, the most different first."""
    said = {(f.check, f.column): f for f in findings}
    known, limits = register(), spec.monitor.drift
    ranked: list[tuple[float, _Column]] = []
    taken: set[str] = set()
    for subject in found:
        if subject.pair is None or subject.pair.constant:
            continue
        finding = said.get((subject.check, subject.name if subject.check == "drift" else None))
        passed = finding is not None and finding.status != "alert"
        name = _title(subject, taken)
        taken.add(name)
        method = known[pinned(limits.method, subject.pair.kind)]
        column = _Column(name, subject.pair, method, math.inf if passed else limits.alert)
        ranked.append(((finding and finding.value) or 0.0, column))
    return [column for _, column in sorted(ranked, key=lambda each: -each[0])]


def _draw(columns: Sequence[_Column]) -> tuple[str, list[_Column]]:
    """Return Evidently's page, empty where there is nothing to draw, and the columns it fails on."""
    try:
        return _evidently(columns), []
    except Exception:  # noqa: BLE001  numbers such as 1e16 + 1 make its histograms raise anything
        fine = [column for column in columns if _drawable(column)]
        return _evidently(fine), [column for column in columns if column not in fine]


def _drawable(column: _Column) -> bool:
    try:
        _evidently([column])
    except Exception:  # noqa: BLE001  see above; the page names the column
        return False
    return True


def _evidently(columns: Sequence[_Column]) -> str:
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    if not columns:
        return ""
    definition = DataDefinition(
        numerical_columns=[c.name for c in columns if c.pair.kind == "numeric"],
        categorical_columns=[c.name for c in columns if c.pair.kind == "categorical"],
    )
    metrics = [ValueDrift(column=c.name, method=c.method, threshold=c.limit) for c in columns]
    # Columns differ in length, as each lost its missing values; pandas fills up and Evidently drops again.
    current = pd.DataFrame({c.name: _series(c.pair.current) for c in columns})
    reference = pd.DataFrame({c.name: _series(c.pair.reference) for c in columns})
    run = Report(metrics, include_tests=False).run(
        Dataset.from_pandas(current, definition), Dataset.from_pandas(reference, definition)
    )
    page: str = run.get_html_str(as_iframe=False)
    return page


def _title(subject: Subject, taken: Container[str]) -> str:
    """Return a name for people that no other column has."""
    name = {"drift": subject.name, "prediction_drift": "prediction", "target_drift": "target"}[
        subject.check
    ].translate(_HARMLESS)
    while name in taken:
        name += "′"
    return name


def _series(values: NDArray[Any]) -> pd.Series[Any]:
    series: pd.Series[Any] = pd.Series(values)
    return series.map(lambda text: text.translate(_HARMLESS)) if values.dtype == object else series
