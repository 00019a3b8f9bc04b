import json
from datetime import timedelta
from html.parser import HTMLParser

import pytest

from include.errors import DataError, SnapshotError
from include.validate.findings import percent, plain, to_json
from include.validate.stage import quarantine


class Page(HTMLParser):
    """Collects tags, and attributes that could load something."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loads, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [v for k, v in attrs if k in ("src", "href", "srcset")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_good_snapshot_gives_two_reports(bench, make_spec, frame, roles):
    result = bench.check(make_spec(ingest=roles), frame, frame)
    assert result.ok
    assert result.summary == "0 errors, 0 warnings"
    result.raise_if_refused("toy", "x")
    report = json.loads(result.report_json.read_text())
    assert (report["ok"], report["rows"], report["errors"]) == (True, 400, 0)
    assert "Accepted" in result.report_html.read_text()


def test_the_page_is_whole_self_contained_and_escaped(bench, make_spec, frame, roles):
    nasty = "<script>alert('x')</script>"
    frame[nasty] = float("inf")
    frame.loc[:20, "c"] = "<img src=x onerror=1>"
    reference = frame.assign(c="red")
    result = bench.check(make_spec(ingest=roles), frame, reference)
    text = result.report_html.read_text()
    page = Page(text)
    assert not page.open
    assert not page.loads
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert "&lt;script&gt;" in text
    assert "&lt;img" in text
    assert "Refused" in text
    assert len(text) < 40_000


def test_errors_come_first_and_stop_the_run(bench, make_spec, frame):
    frame.loc[0, "a"] = float("inf")
    result = bench.check(make_spec(), frame)
    assert next(f.severity for f in result.findings) == "error"
    assert result.summary.startswith("1 error, 1 warning: column 'a': must hold finite numbers")
    with pytest.raises(DataError, match=r"^toy: validate: the snapshot must pass every check, got 1 error.*The whole report: here$"):  # fmt: skip
        result.raise_if_refused("toy", "here")


def test_running_twice_gives_the_same_reports(bench, make_spec, frame, roles):
    snapshot = bench.snapshot(frame, time="at", files=3)
    first = bench.check(make_spec(ingest=roles), snapshot)
    texts = first.report_html.read_text(), first.report_json.read_text()
    again = bench.check(make_spec(ingest=roles), snapshot)
    assert (again.report_html.read_text(), again.report_json.read_text()) == texts
    assert sorted(p.name for p in again.report_html.parent.iterdir()) == [
        "report.html",
        "report.json",
    ]


def test_the_findings_do_not_depend_on_the_files(bench, make_spec, frame, roles):
    before = frame.copy()
    frame.loc[3:9, "b"] = -5000
    frame.loc[3:9, "c"] = "mauve"
    spec = make_spec(ingest=roles)
    shuffled = frame.sample(frac=1, random_state=0)
    one = bench.check(spec, bench.snapshot(frame, time="at"), before)
    many = bench.check(spec, bench.snapshot(shuffled, time="at", files=4), before)
    assert [f.check for f in one.warnings] == ["range", "new_categories"]
    assert [f.to_dict() for f in one.findings] == [f.to_dict() for f in many.findings]


def test_a_damaged_snapshot_is_not_validated(bench, make_spec, frame):
    snapshot = bench.snapshot(frame)
    key = next(k for k in bench.store.list("snapshots/") if k.endswith(".parquet"))
    bench.store.write_bytes(key, b"garbage")
    with pytest.raises(SnapshotError, match="sha256"):
        bench.check(make_spec(), snapshot)


def test_quarantine_keeps_reports_and_manifest_and_can_be_repeated(bench, make_spec, frame):
    snapshot = bench.snapshot(frame)
    spec = make_spec(min_rows=1000)
    result = bench.check(spec, snapshot)
    uri = quarantine(spec, bench.store, snapshot, result)
    assert quarantine(spec, bench.store, snapshot, result) == uri
    folder = f"quarantine/toy/{snapshot.snapshot_id}"
    assert uri == bench.store.uri(folder)
    assert list(bench.store.list(folder)) == [
        f"{folder}/{name}" for name in ("manifest.json", "report.html", "report.json")
    ]
    assert json.loads(bench.store.read_bytes(f"{folder}/report.json"))["ok"] is False


def test_values_of_dropped_columns_reach_no_report(bench, make_spec, frame, roles):
    # Ingest leaves dropped columns out; what is left must not bring anything back.
    spec = make_spec(
        ingest={**roles, "drop": ["email"]},
        expectations=[{"expect_column_values_to_be_in_set": {"column": "c", "value_set": ["red"]}}],
    )
    reference = frame.assign(email="someone@example.com")
    result = bench.check(spec, frame, reference)
    for report in (result.report_html, result.report_json):
        assert "someone@example.com" not in report.read_text()


def test_now_comes_from_the_caller(bench, make_spec, frame, roles):
    newest = frame["at"].max().to_pydatetime()
    result = bench.check(make_spec(ingest=roles), frame, now=newest + timedelta(hours=1))
    assert json.loads(result.report_json.read_text())["checked_at"].startswith("2026-02-17T16:00")


def test_json_never_holds_nan():
    assert (
        to_json({"a": float("nan"), "b": [float("inf")]})
        == '{\n "a": "nan",\n "b": [\n  "inf"\n ]\n}'
    )
    assert len(plain("x" * 1000)) == 200


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.00001, "< 0.01 %"), (0.5, "50 %"), (0.99999, "> 99.99 %"), (1, "100 %")],
)
def test_shares_never_round_to_nothing_or_all(share, text):
    assert percent(share) == text
