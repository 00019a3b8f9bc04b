"""Evidently's report of the columns compared, below our findings.

It draws from the same samples, by the methods that made the findings, so its numbers are theirs. What Evidently
cannot take is left out: columns without enough values, and constant ones.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from include.monitor.distance import pinned, register
from include.monitor.findings import Finding
from include.monitor.reference import Reference
from include.monitor.sample import Subject, subjects
from include.spec.schema import Spec

_MOST_COLUMNS = 60  # a page with more of them is slow to open
_PAGE = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head><body>{body}</body></html>'
# Evidently writes names into a script unescaped: nothing in them may end it or begin a tag.
_HARMLESS = str.maketrans({"<": "‹", ">": "›", "&": "＆"})


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
    drawn = [s for s in subjects(spec, path, reference) if s.pair and not s.pair.constant]
    if not drawn:
        return _PAGE.format(title=f"{spec.model}: monitor", body=block)
    said = {(f.check, f.column): f for f in findings}
    judged = [(s, said.get((s.check, s.name if s.check == "drift" else None))) for s in drawn]
    judged.sort(key=lambda each: -(each[1].value or 0.0) if each[1] else 0.0)
    page = _evidently(spec, judged[:_MOST_COLUMNS])
    title = f"<title>{spec.model}: monitor</title>"
    return page.replace("<head>", f"<head>{title}", 1).replace("<body>", f"<body>{block}", 1)


def _evidently(spec: Spec, judged: Sequence[tuple[Subject, Finding | None]]) -> str:
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    known, limits = register(), spec.monitor.drift
    reference: dict[str, pd.Series[Any]] = {}
    current: dict[str, pd.Series[Any]] = {}
    kinds: dict[str, list[str]] = {"numeric": [], "categorical": []}
    metrics = []
    for subject, finding in judged:
        if subject.pair is not None:
            pair, name = subject.pair, _title(subject, reference)
            reference[name], current[name] = _series(pair.reference), _series(pair.current)
            kinds[pair.kind].append(name)
            method = known[pinned(limits.method, pair.kind)]
            chance = finding is not None and finding.status != "alert"
            limit = math.inf if chance else limits.alert
            metrics.append(ValueDrift(column=name, method=method, threshold=limit))
    definition = DataDefinition(
        numerical_columns=kinds["numeric"], categorical_columns=kinds["categorical"]
    )
    run = Report(metrics, include_tests=False).run(
        Dataset.from_pandas(pd.DataFrame(current), definition),
        Dataset.from_pandas(pd.DataFrame(reference), definition),
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
