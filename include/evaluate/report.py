"""The verdict on paper: `verdict.json` for programs, `verdict.md` for people.

Owns their form. The JSON holds null where a number is undefined, never NaN, and stays small however many
slices there are.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from include.evaluate.evidence import Evidence, Scores, SliceScore
from include.evaluate.gate import Check, Judgement, number
from include.spec.metrics import METRICS
from include.spec.schema import Spec
from include.store.snapshots import Manifest
from include.store.split import Split

_FORMAT = 1
_MOST_ROWS = 100  # of checks or slices, in either file


@dataclass(frozen=True)
class Report:
    """Everything the two files say.

    Attributes:
        spec: The model's spec.
        manifest: The snapshot judged on.
        split: Its holdout.
        challenger_version: Name of the version on trial.
        evidence: What the gate looked at.
        judgement: What it said.
        seconds: Time each part took, by name.
    """

    spec: Spec
    manifest: Manifest
    split: Split
    challenger_version: str
    evidence: Evidence
    judgement: Judgement
    seconds: Mapping[str, float]


def write_json(report: Report, path: Path) -> Path:
    """Write `verdict.json`; the file is complete or absent."""
    spec, found, judgement = report.spec, report.evidence, report.judgement
    slices = _largest(found.slices)
    legacy = found.legacy
    data = {
        "format": _FORMAT,
        "model": spec.model,
        "task": spec.task,
        "verdict": judgement.verdict,
        "reason": judgement.reason,
        "rows": found.rows,
        "snapshot_id": report.manifest.snapshot_id,
        "spec_hash": spec.spec_hash,
        "split": report.split.to_dict(),
        "primary": spec.primary.model_dump(mode="json"),
        "challenger": {"version": report.challenger_version, "metrics": dict(found.challenger)},
        "champion": found.champion_version
        and {
            "version": found.champion_version,
            "metrics": None if found.champion is None else dict(found.champion),
            "failure": found.champion_failure,
        },
        "baseline": {"metrics": dict(found.baseline)},
        "against_champion": found.against_champion and asdict(found.against_champion),
        "against_baseline": found.against_baseline and asdict(found.against_baseline),
        "checks": [asdict(c) for c in _shown(judgement.checks)],
        "checks_left_out": len(judgement.checks) - len(_shown(judgement.checks)),
        "slices": [asdict(s) for s in slices],
        "slices_left_out": len(found.slices) - len(slices),
        "legacy": legacy and asdict(legacy),
        "seconds": {name: round(value, 3) for name, value in report.seconds.items()},
    }
    text = json.dumps(_plain(data), indent=1, ensure_ascii=False, allow_nan=False)
    return _write(path, text + "\n")


def write_markdown(report: Report, path: Path) -> Path:
    """Write `verdict.md`; the file is complete or absent."""
    found, judgement = report.evidence, report.judgement
    blocks = [
        f"# {report.spec.model}: {judgement.verdict}",
        _text(judgement.reason),
        "## Checks",
        _checks(judgement.checks),
        "## Metrics",
        _metrics(report),
    ]
    if found.slices:
        blocks += [f"## Slices ({report.spec.primary.metric})", _slices(report)]
    if found.legacy:
        blocks += ["## The champion's old holdout", _legacy(report)]
    blocks.append(_footer(report))
    return _write(path, "\n\n".join(blocks) + "\n")


def _checks(checks: Sequence[Check]) -> str:
    shown = _shown(checks)
    rows = [
        ("yes" if c.passed else "**no**", c.name, _number(c.observed), c.required, c.sentence)
        for c in shown
    ]
    table = _table(("passed", "check", "observed", "required", "finding"), rows)
    left = len(checks) - len(shown)
    return f"{table}\n\n{left:,} more checks passed or are in `verdict.json`." if left else table


def _metrics(report: Report) -> str:
    found, rows = report.evidence, []
    other = found.champion if found.champion is not None else found.baseline
    for metric in METRICS[report.spec.task]:
        mine, theirs = found.challenger.get(metric), other.get(metric)
        difference = None if mine is None or theirs is None else mine - theirs
        cells: list[Any] = [f"**{metric}**" if metric == report.spec.primary.metric else metric]
        cells.append(_number(mine))
        if found.champion is not None:
            cells.append(_number(theirs))
        cells += [_number(difference, signed=True), _number(found.baseline.get(metric))]
        rows.append(cells)
    head = ["metric", f"challenger ({report.challenger_version})"]
    if found.champion is not None:
        head.append(f"champion ({found.champion_version})")
    return _table([*head, "difference", "trivial baseline"], rows)


def _slices(report: Report) -> str:
    least = {s.column: s.min_rows for s in report.spec.evaluate.slices}
    rows = [
        (
            f"{s.column}={s.value}",
            f"{s.rows:,}",
            _number(s.challenger),
            _number(s.champion),
            _number(None if s.champion is None else s.challenger - s.champion, signed=True),
            "judged" if s.rows >= least[s.column] else f"too small (< {least[s.column]:,} rows)",
        )
        for s in _largest(report.evidence.slices)
    ]
    return _table(("slice", "rows", "challenger", "champion", "difference", ""), rows)


def _legacy(report: Report) -> str:
    old, metric = report.evidence.legacy, report.spec.primary.metric
    if old is None or old.failure:
        return _text(f"Could not be scored: {old.failure if old else 'not given'}")
    mine, theirs = old.challenger.get(metric), old.champion.get(metric)
    role = "guards" if report.spec.evaluate.legacy else "is reported only"
    seen = (
        f"; the challenger may have trained on {old.seen:,} of them, which flatters it"
        if old.seen
        else ""
    )
    return (
        f"{metric} {_number(mine)} (challenger) against {_number(theirs)} (champion) on "
        f"{old.rows:,} rows{seen}. It {role}."
    )


def _footer(report: Report) -> str:
    split, found = report.split, report.evidence
    how = f"newest rows, after {split.cutoff}" if split.kind == "time" else "drawn by a stable hash"
    drawn = found.against_champion or found.against_baseline
    resamples = f"{drawn.resamples:,} paired bootstrap resamples" if drawn else "no resamples"
    return (
        f"Holdout: {found.rows:,} rows of snapshot `{report.manifest.snapshot_id}`, {how}; {resamples}; "
        f"{sum(report.seconds.values()):.1f} s."
    )


def _shown(checks: Sequence[Check]) -> list[Check]:
    """Keep the failed checks before the passed ones when there are too many, in their order."""
    kept = sorted(checks, key=lambda check: check.passed)[:_MOST_ROWS]
    chosen = {id(check) for check in kept}
    return [check for check in checks if id(check) in chosen]


def _largest(slices: Sequence[SliceScore]) -> list[SliceScore]:
    return sorted(slices, key=lambda s: (s.column, -s.rows, s.value))[:_MOST_ROWS]


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_text(str(cell)) for cell in line)} |" for line in lines)


def _text(text: str) -> str:
    """Keep values from the data from becoming Markdown structure or HTML."""
    flat = " ".join(text.split()).replace("|", "\\|")
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", flat)


def _number(value: float | None, *, signed: bool = False) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return ("+" if signed and value > 0 else "") + number(value)


def finite(scores: Scores | None) -> dict[str, float]:
    """Return the scores that are defined."""
    return {name: value for name, value in (scores or {}).items() if math.isfinite(value)}


def _plain(value: Any) -> Any:
    """Replace what JSON cannot say by null, all the way down."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: Path, text: str) -> Path:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return path
