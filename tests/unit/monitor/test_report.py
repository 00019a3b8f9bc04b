import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from include.monitor.findings import Finding
from include.monitor.report import write_report
from tests.unit.monitor.live import WINDOW, World, make_spec, of, rows

OK = Finding("schema", None, "ok", "every feature is there.")
ALERT = Finding("nulls", "use", "alert", "column 'use': 90 % of values are missing.", 0.9, 0.2)


class Page(HTMLParser):
    """The texts and tags of a page outside its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href")]

    def handle_data(self, data):
        if self.tags[-1:] not in (["script"], ["style"]):
            self.text += data


def write(world, frame, findings, *, html=False, **window):
    out = world.folder / "report"
    written = write_report(
        world.spec,
        out,
        version="3",
        window=WINDOW,
        findings=findings,
        html=html,
        path=world.window(frame, **window),
        reference=world.reference,
    )
    assert sorted(written) == sorted(out.iterdir())
    return {p.name: p.read_text(encoding="utf-8") for p in written}


def test_json_says_it_all_in_a_few_kilobytes(world, live):
    found = world.drift(live) + world.quality(live)
    text = write(world, live, found)["report.json"]
    data = json.loads(text)
    assert len(text) < 10_000
    assert (data["model"], data["version"], data["rows"]) == ("toy", "3", 600)
    assert (data["window"], data["worst"]) == (WINDOW.key, "ok")
    assert [f["message"] for f in data["findings"]] == [f.message for f in found]


def test_json_holds_numbers_that_are_none(world, live):
    odd = Finding("performance", None, "warn", "odd", float("nan"), float("inf"))
    data = json.loads(write(world, live, [odd])["report.json"], parse_constant=pytest.fail)
    assert data["findings"][0]["value"] == "nan"


@pytest.mark.parametrize(
    ("finding", "html", "page"),
    [(OK, False, False), (OK, True, True), (ALERT, False, True)],
)
def test_a_page_is_written_when_something_is_found_or_it_is_asked_for(
    world, live, finding, html, page
):
    assert ("report.html" in write(world, live, [finding], html=html)) == page


def test_the_page_shows_findings_first_and_charts_by_the_same_numbers(world, live):
    live["age"] += 12
    found = world.drift(live)
    text = write(world, live, found)["report.html"]
    page = Page(text)
    value = next(f.value for f in found if f.column == "age")
    assert text.index('id="evergreen"') < text.index("drawDashboard")
    assert "PSI" in page.text
    assert f"{value:.4g}" in page.text
    assert re.search(rf"Drift in column 'age'.{{0,200}}?PSI.{{0,40}}?{round(value, 3)}", text)
    assert re.search(r"Drift in column 'use'.{0,60}?drift not detected", text, re.IGNORECASE)


def test_the_page_stands_alone_and_lets_nothing_in(tmp_path):
    evil = "</script><img src=x onerror=alert(1)>&amp;"
    frame, plain = (
        pd.DataFrame({evil: np.arange(300.0), "c": [evil, "b", "c"] * 100}),
        pd.DataFrame({evil: np.arange(300.0) + 200, "c": [evil] * 300}),
    )
    world = World(tmp_path, make_spec(), frame)
    found = world.drift(plain)
    assert {f.status for f in of(found, "drift")} == {"alert"}
    text = write(world, plain, found)["report.html"]
    page = Page(text)
    assert "img" not in page.tags
    assert not page.links
    assert "onerror" in page.text  # shown as what it is
    assert "<img" not in text.split("</head>")[0]


def test_examples_are_shown_as_what_they_are(world, live):
    evil = ("</script><img src=x>", "b")
    finding = Finding("categories", "region", "warn", "1 % are new.", 0.01, 0.01, evil)
    files = write(world, live.iloc[:0], [finding])
    assert json.loads(files["report.json"])["findings"][0]["examples"] == list(evil)
    page = Page(files["report.html"])
    assert "For example </script><img src=x>, b" in page.text
    assert "img" not in page.tags


def test_a_window_without_rows_has_a_page_without_charts(world, live):
    page = Page(write(world, live.iloc[:0], [ALERT])["report.html"])
    assert "90\xa0% of values are missing" in page.text
    assert "script" not in page.tags


def test_columns_that_cannot_be_compared_are_not_drawn(world, live):
    wrong = live.drop(columns="use").assign(income=np.nan, region="north")
    world.frame["region"] = "north"
    text = write(world, wrong, [ALERT])["report.html"]
    assert set(re.findall(r"Drift in column '(\w+)'", text)) == {"age", "prediction"}


def test_extreme_numbers_and_odd_names_do_not_stop_it(tmp_path):
    reference, live = rows(400), rows(200, 1)
    for frame in (reference, live):
        frame["x.y z'\"é"] = frame["use"] * 1e300
        frame["tiny"] = frame["use"] * 1e-300
        frame["prediction"] = frame["region"]
    live["age"] = 7.0
    live.loc[:5, ["use", "x.y z'\"é"]] = [np.inf, 1.7e308]
    world = World(tmp_path, make_spec(), reference)
    text = write(world, live, world.drift(live))["report.html"]
    for name in ("tiny", "x.y z'\"é", "prediction", "prediction′", "age"):
        assert json.dumps(f"Drift in column '{name}'") in text


def test_a_column_that_evidently_cannot_draw_takes_no_other_with_it(tmp_path):
    reference, live = rows(400), rows(200, 1)
    reference["<ns>"], live["<ns>"] = np.where(reference["use"] > 0, 1e18, 2e18), 1e18
    world = World(tmp_path, make_spec(), reference)
    text = write(world, live.assign(age=live["age"] + 12), world.drift(live), html=True)[
        "report.html"
    ]
    assert "too extreme: ‹ns›." in text
    drawn = set(re.findall(r"Drift in column '([^']+)'", text))
    assert drawn == {"age", "use", "income", "region", "prediction"}
