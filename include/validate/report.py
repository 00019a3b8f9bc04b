"""The stage's two reports: one HTML page for people, one small JSON for programs.

The page is a single file without scripts or outside assets, so that it opens from MLflow's artifact viewer, from
the quarantine folder and from a mail. Everything that comes from data or spec is escaped.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from include.store.snapshots import Column
from include.validate.findings import Finding, column_name, count, percent, to_json
from include.validate.scan import Statistics
from include.validate.style import STYLE
from include.validate.subject import Subject

_SHOWN_FINDINGS = 200
_SHOWN_COLUMNS = 500
_SIGNS = {"error": "✕", "warn": "!", "ok": "✓"}
_WORDS = {"error": "Errors", "warn": "Warnings", "ok": "Passed"}
_CHECKS = {
    "row_count": "Rows",
    "schema": "Schema",
    "freshness": "Freshness",
    "key": "Key",
    "duplicate_rows": "Duplicate rows",
    "target": "Target",
    "missing_values": "Missing values",
    "infinite": "Infinite values",
    "constant": "Constant feature",
    "many_categories": "Many categories",
    "range": "Range",
    "new_categories": "New categories",
    "leakage": "Leakage",
    "expectation": "Expectation",
}


def write_report(subject: Subject, findings: Sequence[Finding], folder: Path) -> tuple[Path, Path]:
    """Write `report.html` and `report.json` into a folder, each at once.

    Args:
        subject: What was validated.
        findings: Errors first, then warnings, then passed checks.
        folder: Made when missing.

    Returns:
        The paths of the page and of the JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    html, json = folder / "report.html", folder / "report.json"
    _replace(html, render_html(subject, findings))
    _replace(json, render_json(subject, findings))
    return html, json


def render_json(subject: Subject, findings: Sequence[Finding]) -> str:
    """Return the report for programs: no NaN, no infinity."""
    manifest, reference = subject.manifest, subject.reference
    return to_json(
        {
            "model": manifest.model,
            "snapshot_id": manifest.snapshot_id,
            "reference_snapshot_id": reference.snapshot_id if reference else None,
            "checked_at": subject.now.isoformat(),
            "ok": not _of(findings, "error"),
            "rows": manifest.rows,
            "columns": len(manifest.columns),
            "errors": len(_of(findings, "error")),
            "warnings": len(_of(findings, "warn")),
            "findings": [f.to_dict() for f in findings],
        }
    )


def render_html(subject: Subject, findings: Sequence[Finding]) -> str:
    """Return the report for people as a whole HTML page."""
    manifest = subject.manifest
    errors, warnings = _of(findings, "error"), _of(findings, "warn")
    state = "error" if errors else "warn" if warnings else "ok"
    verdict = {"error": "Refused", "warn": "Accepted with warnings", "ok": "Accepted"}[state]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(manifest.model)}: validation {verdict.lower()}</title>",
        f"<style>{STYLE}</style></head><body><main>",
        f'<header><p class="eyebrow">Data validation</p><h1>{escape(manifest.model)}</h1>',
        f'<p class="verdict {state}"><span class="sign">{_SIGNS[state]}</span>{verdict}</p></header>',
        _facts(subject),
        _tiles(subject, errors, warnings, _of(findings, "ok")),
        _section("error", errors),
        _section("warn", warnings),
        _columns(subject, findings),
        _section("ok", _of(findings, "ok")),
        f"<footer>Checked {subject.now:%Y-%m-%d %H:%M:%S} UTC by Evergreen. Counts are over all rows; "
        "numbers of different values are approximate.</footer>",
        "</main></body></html>",
    ]
    return "\n".join(p for p in parts if p) + "\n"


def _facts(subject: Subject) -> str:
    manifest, reference = subject.manifest, subject.reference
    compared = "nothing: this is the first snapshot"
    if reference:
        compared = f"<code>{escape(reference.snapshot_id)}</code>, the champion's, {count(reference.rows, 'row')}"
    facts = [("Snapshot", f"<code>{escape(manifest.snapshot_id)}</code>")]
    facts.append(("Source", escape(manifest.source)))
    if manifest.time_start and manifest.time_end:
        facts.append(("Time", f"{_moment(manifest.time_start)} to {_moment(manifest.time_end)}"))
    facts.append(("Compared with", compared))
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return f"<dl>{rows}</dl>"


def _tiles(
    subject: Subject,
    errors: Sequence[Finding],
    warnings: Sequence[Finding],
    passed: Sequence[Finding],
) -> str:
    tiles = [
        (f"{subject.manifest.rows:,}", "rows", ""),
        (f"{len(subject.manifest.columns):,}", "columns", ""),
        (f"{len(errors):,}", _noun(len(errors), "error"), "error" if errors else ""),
        (f"{len(warnings):,}", _noun(len(warnings), "warning"), "warn" if warnings else ""),
        (f"{len(passed):,}", _noun(len(passed), "check") + " passed", ""),
    ]
    cells = "".join(
        f'<div class="tile {state}"><b>{value}</b><span>{name}</span></div>'
        for value, name, state in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _section(severity: str, findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    items = []
    for check, group in groupby(findings[:_SHOWN_FINDINGS], key=lambda f: f.check):
        texts = "".join(f"<p>{_message(f)}</p>" for f in group)
        name = escape(_CHECKS.get(check, check))
        items.append(
            f'<li class="{severity}"><span class="sign">{_SIGNS[severity]}</span><h3>{name}</h3><div>{texts}</div></li>'
        )
    more = len(findings) - _SHOWN_FINDINGS
    if more > 0:
        items.append(f"<li><div><p>and {more:,} more in report.json</p></div></li>")
    return (
        f'<section><h2>{_WORDS[severity]}</h2><ul class="findings">{"".join(items)}</ul></section>'
    )


def _message(finding: Finding) -> str:
    """Set the column's name and the way out apart from the rule."""
    text, lead = finding.message, ""
    where = f"{column_name(finding.column)}: " if finding.column else ""
    if where and text.startswith(where):
        text, lead = text.removeprefix(where), f"<b>{escape(str(finding.column))}</b> "
    rule, dot, fix = text.partition(". ")
    if finding.severity == "ok" or not dot:
        return lead + _unbroken(text)
    return f'{lead}{_unbroken(rule)}.<span class="fix">{_unbroken(fix)}</span>'


def _unbroken(text: str) -> str:
    """Escape a text and keep numbers on the line of their percent sign."""
    return escape(text).replace(" %", "&nbsp;%")


def _columns(subject: Subject, findings: Sequence[Finding]) -> str:
    if not subject.statistics:
        return ""
    worst: dict[str, str] = {}
    for finding in findings:  # errors come first
        if finding.severity != "ok":
            for name in _about(finding):
                worst.setdefault(name, finding.severity)
    before = {c.name: c for c in subject.reference.columns} if subject.reference else {}
    shown = list(subject.statistics.values())
    shown.sort(key=lambda s: {"error": 0, "warn": 1}.get(worst.get(s.name, ""), 2))
    rows = "".join(
        _column(subject, s, before.get(s.name), worst.get(s.name, "ok"))
        for s in shown[:_SHOWN_COLUMNS]
    )
    more = len(shown) - _SHOWN_COLUMNS
    note = (
        f'<p class="note">and {more:,} more columns without a finding of their own</p>'
        if more > 0
        else ""
    )
    heads = ("", "Column", "Role", "Type", "Missing", "Low", "High", "Different")
    head = "".join(f"<th{' class=number' if h in heads[5:] else ''}>{h}</th>" for h in heads)
    return (
        '<section><h2>Columns</h2><div class="scroll"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div>{note}</section>"
    )


def _about(finding: Finding) -> list[str]:
    """Return the columns a finding is about; a sum that leaks has several."""
    several = finding.observed.get("columns") if isinstance(finding.observed, dict) else None
    return list(several or ([finding.column] if finding.column else []))


def _column(subject: Subject, now: Statistics, before: Column | None, severity: str) -> str:
    share = now.nulls / subject.manifest.rows
    was = ""
    if before is not None and abs(before.null_share - share) >= 0.0005:
        was = f"<small>was {percent(before.null_share)}</small>"
    kind = escape(now.type)
    if before is not None and before.type != now.type:
        kind += f"<small>was {escape(before.type)}</small>"
    elif subject.reference is not None and before is None:
        kind += "<small>new</small>"
    bar = f'<span class="bar"><i style="width:{min(100.0, share * 100):.1f}%"></i></span>'
    ends = "".join(
        f'<td class="number">{_end(v)}{_was(b, v)}</td>'
        for v, b in ((now.low, before and before.low), (now.high, before and before.high))
    )
    return (
        f'<tr><td class="{severity}"><span class="sign">{_SIGNS[severity]}</span></td>'
        f"<th>{escape(now.name)}</th><td>{subject.role(now.name)}</td><td>{kind}</td>"
        f"<td>{bar}{percent(share)}{was}</td>{ends}"
        f'<td class="number">{now.distinct:,}</td></tr>'
    )


def _end(value: float | str | None) -> str:
    if value is None:
        return '<span class="none">–</span>'
    return escape(_moment(value) if isinstance(value, str) else f"{value:,.6g}")


def _was(before: object, now: object) -> str:
    if isinstance(before, float) and isinstance(now, int | float) and before != now:
        return f"<small>was {escape(f'{before:,.6g}')}</small>"
    return ""


def _moment(text: str) -> str:
    return escape(text[:19].replace("T", " "))


def _noun(number: int, noun: str) -> str:
    return noun if number == 1 else noun + "s"


def _of(findings: Iterable[Finding], severity: str) -> list[Finding]:
    return [f for f in findings if f.severity == severity]


def _replace(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a half."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
