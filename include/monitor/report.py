"""`report`: what a pass found, as a small JSON for programs and a page for people.

The page is our findings, and below them Evidently's report, drawn from the samples the findings were made on, with
our methods made known to it: both show the same numbers. It is one file without outside assets. Everything that comes
from data or spec is escaped.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from include.monitor.charts import with_charts
from include.monitor.findings import Finding, worst
from include.monitor.page import render_findings
from include.monitor.reference import Reference
from include.monitor.windows import Window
from include.scoring.rows import count_rows
from include.spec.schema import Spec

JSON_NAME, HTML_NAME = "report.json", "report.html"


def write_report(
    spec: Spec,
    out: Path,
    *,
    version: str,
    window: Window,
    findings: Sequence[Finding],
    html: bool,
    path: Path,
    reference: Reference,
) -> list[Path]:
    """Write `report.json`, and `report.html` where it is asked for or something was found.

    Args:
        spec: The model's.
        out: Folder; made when missing.
        version: The version looked at.
        window: The stretch of time.
        findings: What all checks found.
        html: True for a page in any case.
        path: What `collect` wrote.
        reference: What the rows were compared with.

    Returns:
        The files written.

    Raises:
        DataError: The window's file or the reference cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = count_rows(path)
    written = [out / JSON_NAME]
    _replace(written[0], _json(spec, version, window, rows, findings))
    if html or worst(findings) in ("warn", "alert"):
        block = render_findings(spec, version, window, rows, findings)
        written.append(out / HTML_NAME)
        _replace(written[1], with_charts(block, spec, path, reference, findings))
    return written


def _json(spec: Spec, version: str, window: Window, rows: int, findings: Sequence[Finding]) -> str:
    data = {
        "model": spec.model,
        "version": version,
        "window": window.key,
        "start": window.start.isoformat(),
        "end": window.end.isoformat(),
        "rows": rows,
        "worst": worst(findings),
        "findings": [{name: _plain(v) for name, v in asdict(f).items()} for f in findings],
    }
    return json.dumps(data, ensure_ascii=False, allow_nan=False, indent=1)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _replace(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a half."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
