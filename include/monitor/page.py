"""The findings of a pass as a block of HTML, styled without touching what stands below it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from include.monitor.findings import Finding, Status, worst
from include.monitor.phrases import count
from include.monitor.windows import Window
from include.spec.schema import Spec

_SHOWN = 500
_ORDER: tuple[Status, ...] = ("alert", "warn", "insufficient_data", "ok")
_SIGNS: dict[Status, str] = {"alert": "✕", "warn": "!", "insufficient_data": "?", "ok": "✓"}
_WORDS: dict[Status, str] = {
    "alert": "Alert",
    "warn": "Warning",
    "insufficient_data": "Not enough data",
    "ok": "Nothing found",
}
_CHECKS = {
    "schema": "Schema",
    "volume": "Volume",
    "staleness": "Staleness",
    "refusals": "Refused requests",
    "nulls": "Missing values",
    "range": "Range",
    "categories": "Categories",
    "drift": "Drift",
    "prediction_drift": "Drift of predictions",
    "target_drift": "Drift of the target",
    "coverage": "Label coverage",
    "performance": "Performance",
}
_STYLE = """
body{margin:0}
#evergreen{--page:#f6f7f5;--card:#fff;--ink:#1c2420;--soft:#5c6a63;--line:#e0e5e1;--alert:#b3261e;--alert-bg:#fceeed;
--warn:#8a5a00;--warn-bg:#fdf4e0;--ok:#1f6f43;--ok-bg:#e8f4ec;--insufficient_data:#4a5568;--insufficient_data-bg:#edf0f3;
background:var(--page);color:var(--ink);padding:28px 24px 32px;
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
#evergreen *{box-sizing:border-box}
#evergreen>div{max-width:1200px;margin:0 auto}
#evergreen .eyebrow{margin:0;color:var(--soft);font-size:13px}
#evergreen h1{margin:0 16px 0 0;font-size:28px;line-height:1.2;overflow-wrap:anywhere;display:inline-block}
#evergreen .verdict{display:inline-flex;align-items:center;gap:8px;padding:4px 14px 4px 6px;border-radius:99px;
font-weight:600;vertical-align:6px}
#evergreen .sign{display:inline-flex;width:22px;height:22px;border-radius:50%;align-items:center;justify-content:center;
font-weight:700;font-size:13px;line-height:1}
#evergreen .alert .sign,#evergreen .verdict.alert{color:var(--alert);background:var(--alert-bg)}
#evergreen .warn .sign,#evergreen .verdict.warn{color:var(--warn);background:var(--warn-bg)}
#evergreen .ok .sign,#evergreen .verdict.ok{color:var(--ok);background:var(--ok-bg)}
#evergreen .insufficient_data .sign,#evergreen .verdict.insufficient_data{color:var(--insufficient_data);
background:var(--insufficient_data-bg)}
#evergreen dl{display:grid;grid-template-columns:max-content 1fr;gap:3px 16px;margin:16px 0 20px;font-size:14px}
#evergreen dt{color:var(--soft)}#evergreen dd{margin:0}
#evergreen .scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:10px}
#evergreen table{border-collapse:collapse;width:100%;font-size:14px}
#evergreen th,#evergreen td{padding:7px 12px;text-align:left;vertical-align:top;border-top:1px solid var(--line)}
#evergreen thead th{border-top:0;color:var(--soft);font-weight:500;font-size:13px}
#evergreen tbody th{font-weight:600;white-space:nowrap}
#evergreen td:first-child,#evergreen thead th:first-child{padding-right:0;width:34px}
#evergreen td.text{overflow-wrap:anywhere;min-width:300px}
#evergreen .number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
#evergreen .note{color:var(--soft);font-size:13px;margin:10px 0 0}
#evergreen td .note{margin:2px 0 0}
"""


def render_findings(
    spec: Spec, version: str, window: Window, rows: int, findings: Sequence[Finding]
) -> str:
    """Return the block, escaped, the most severe findings first.

    Args:
        spec: The model's.
        version: The version looked at.
        window: The stretch of time.
        rows: Rows of the window.
        findings: What all checks found.
    """
    state = worst(findings)
    ordered = sorted(findings, key=lambda f: _ORDER.index(f.status))
    heads = ("", "Check", "Finding", "Value", "Limit")
    head = "".join(f"<th{' class=number' if h in heads[3:] else ''}>{h}</th>" for h in heads)
    more = len(ordered) - _SHOWN
    note = f"<p class=note>and {more:,} more in report.json</p>" if more > 0 else ""
    facts = {
        "Version": version,
        "Window": str(window),
        "Rows": count(rows, "row"),
        "Found": _summary(findings),
    }
    listed = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    return (
        f'<style>{_STYLE}</style><div id="evergreen"><div><p class="eyebrow">Monitor</p>'
        f"<h1>{escape(spec.model)}</h1>"
        f'<span class="verdict {state}"><span class="sign">{_SIGNS[state]}</span>{_WORDS[state]}</span>'
        f'<dl>{listed}</dl><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(map(_row, ordered[:_SHOWN]))}</tbody></table></div>{note}</div></div>"
    )


def _row(finding: Finding) -> str:
    return (
        f'<tr class="{finding.status}"><td><span class="sign">{_SIGNS[finding.status]}</span></td>'
        f"<th>{escape(_CHECKS[finding.check])}</th>"
        f'<td class="text">{_unbroken(finding.message)}{_examples(finding)}</td>'
        f'<td class="number">{_number(finding.value)}</td>'
        f'<td class="number">{_number(finding.threshold)}</td></tr>'
    )


def _examples(finding: Finding) -> str:
    shown = ", ".join(f"<code>{escape(example)}</code>" for example in finding.examples)
    return f'<p class="note">For example {shown}</p>' if shown else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"


def _unbroken(text: str) -> str:
    """Escape a text and keep numbers on the line of their percent sign."""
    return escape(text).replace(" %", "&nbsp;%")


def _summary(findings: Iterable[Finding]) -> str:
    statuses = [f.status for f in findings]
    said = [f"{statuses.count(s):,} {_WORDS[s].lower()}" for s in _ORDER if s in statuses]
    return ", ".join(said) or "nothing"
