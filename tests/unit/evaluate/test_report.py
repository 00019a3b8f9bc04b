"""The two files stay small and cannot be broken by what the data holds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from include.evaluate.evidence import SliceScore
from include.evaluate.gate import judge
from include.evaluate.report import Report, finite, write_json, write_markdown
from include.store.snapshots import Manifest
from include.store.split import Split
from tests.unit.evaluate.test_gate import make_evidence, make_spec

MANIFEST = Manifest("churn", "abc", 9, (), (), None, None, "test", "now")


def make_report(slices: list[SliceScore], **more: Any) -> Report:
    spec = make_spec(slices=[{"column": "city", "max_regression": 0.1, "min_rows": 1}])
    evidence = make_evidence(slices=tuple(slices), **more)
    split = Split("hash", "id", None, 0.2)
    return Report(spec, MANIFEST, split, "4", evidence, judge(spec, evidence), {"load": 0.25})


def test_thousands_of_slices_leave_small_files_with_every_failure_first(tmp_path: Path) -> None:
    slices = [SliceScore("city", f"c{n}", 2000 - n, 0.8, 0.8) for n in range(1500)]
    slices[1400] = SliceScore("city", "bad", 1, 0.1, 0.8)
    report = make_report(slices)
    path = write_json(report, tmp_path / "verdict.json")
    assert path.stat().st_size < 60_000
    data = json.loads(path.read_text())
    assert data["verdict"] == "REJECT"
    assert (len(data["checks"]), data["checks_left_out"]) == (100, 1403)
    assert [c["name"] for c in data["checks"] if not c["passed"]] == ["slice.city=bad"]
    assert data["slices_left_out"] == 1400
    page = write_markdown(report, tmp_path / "verdict.md").read_text()
    assert "| **no** | slice.city=bad |" in page
    assert "1,403 more checks" in page


def test_values_of_the_data_do_not_become_markdown_or_html(tmp_path: Path) -> None:
    name = "a|b\n# <script>alert(1)</script>"
    page = write_markdown(make_report([SliceScore("city", name, 9, 0.8, 0.8)]), tmp_path / "v.md")
    text = page.read_text()
    assert "<script" not in text
    assert "</script" not in text
    assert "city=a\\|b # &lt;script>" in text
    assert "\n# &lt;" not in text


def test_what_is_undefined_is_null_or_a_dash(tmp_path: Path) -> None:
    report = make_report([SliceScore("city", "x", 9, math.nan, 0.8)])
    data = json.loads(write_json(report, tmp_path / "verdict.json").read_text())
    assert data["slices"][0]["challenger"] is None
    assert "| city=x | 9 | - | 0.8 | - |" in write_markdown(report, tmp_path / "v.md").read_text()
    assert finite({"a": 1.0, "b": math.nan, "c": math.inf}) == {"a": 1.0}
    assert finite(None) == {}


def test_a_champion_without_scores_shows_its_failure(tmp_path: Path) -> None:
    report = make_report([], champion=None, champion_failure="no column 'age'")
    data = json.loads(write_json(report, tmp_path / "verdict.json").read_text())
    assert data["champion"] == {"version": "3", "metrics": None, "failure": "no column 'age'"}
    assert "| champion (3) |" not in write_markdown(report, tmp_path / "v.md").read_text()
