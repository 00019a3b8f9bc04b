"""The judge on made-up evidence: every limit, luck, and what it does when nothing can be told."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.deploy.agreement import Agreement, of_scores
from include.deploy.evidence import Evidence, Side, unreadable
from include.deploy.judge import Judgement, judge
from include.scoring.bootstrap import Interval
from include.spec.schema import Deploy, Primary

RULES = Deploy(rollout="canary", hold="10m", patience="2h", min_rows=200)
PRIMARY = Primary(metric="roc_auc", margin=0.01)
LATE, EARLY, TOO_LATE = timedelta(minutes=11), timedelta(seconds=5), timedelta(hours=3)
RANK = {"GO": 0, "WAIT": 1, "STOP": 2}


def side(rows: int = 500, seed: int = 0, **changes: Any) -> Side:
    """A version that works: a request per row, about 5 ms each, scores all over 0 to 1."""
    draw = np.random.default_rng(seed)
    whole = Side(
        requests=rows,
        rows=rows,
        units=rows,
        latencies=draw.gamma(20, 0.25, rows),
        scores=draw.beta(2, 5, rows),
    )
    return replace(whole, **changes)


def evidence(**changes: Any) -> Evidence:
    return Evidence(side(2000, 1), replace(side(500, 2), **changes))


def ask(found: Evidence, age: timedelta = LATE, rules: Deploy = RULES, **options: Any) -> Judgement:
    return judge(found, rules, PRIMARY, age=age, **options)


def test_a_good_challenger_goes_on_after_its_hold() -> None:
    said = ask(evidence())
    assert said.verdict == "GO", said.reason
    assert said.numbers["challenger"]["rows"] == 500
    assert said.numbers["shift"]["psi"] < 0.1
    early = ask(evidence(), EARLY)
    assert (early.verdict, early.reason) == ("WAIT", "the hold lasts 595 s more")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"failures": 30}, r"failed on 30 of 500 requests \(6.00%\), 1.00% allowed"),
        ({"latencies": np.full(500, 12.0)}, r"p50 12 ms, the champion's 4\.\d+ ms, 8\.\d+ ms"),
        ({"latencies": np.tile([5.0] * 8 + [90.0] * 2, 50)}, r"p95 90 ms"),
        ({"scores": np.full(500, 0.5)}, r"differ by PSI \d\.\d+, 0.5 allowed"),
        ({"scores": np.zeros(500)}, r"differ by PSI"),
    ],
)
def test_what_is_plainly_wrong_stops_at_once(changes: dict[str, Any], text: str) -> None:
    for age in (EARLY, LATE):
        said = ask(evidence(**changes), age)
        assert said.verdict == "STOP", said
        assert re.search(text, said.reason), said.reason


def test_two_failures_in_a_row_are_enough() -> None:
    """Long before there are rows: a version that answers nobody goes home within seconds."""
    nothing = Side(requests=2, failures=2)
    said = ask(Evidence(side(), nothing), EARLY)
    assert said.verdict == "STOP"
    one = ask(Evidence(side(), Side(requests=1, failures=1)), EARLY)
    assert one.verdict == "WAIT", "one may be chance"


def test_just_beyond_a_limit_waits_for_more_and_never_passes() -> None:
    found = evidence(failures=7)  # 1.4 %, of 1 % allowed
    said = ask(found)
    assert said.verdict == "WAIT"
    assert "perhaps by chance" in said.reason
    assert ask(found, TOO_LATE).verdict == "STOP"


def test_too_little_traffic_waits_and_then_stops() -> None:
    found = Evidence(side(2000, 1), side(150, 2))
    said = ask(found)
    assert said.verdict == "WAIT"
    assert "too little traffic: rows of challenger 150, 200 are needed" in said.reason
    late = ask(found, TOO_LATE)
    assert late.verdict == "STOP"
    assert late.reason.startswith("undecided after 2 h (deploy.patience): too little traffic")


@pytest.mark.parametrize(
    "found",
    [
        Evidence(Side(), Side()),
        Evidence(side(), Side()),
        Evidence(Side(), side()),
        Evidence(Side(), Side(), paired=True),
        unreadable("the store is away"),
    ],
)
def test_nothing_known_never_goes_on(found: Evidence) -> None:
    assert ask(found).verdict == "WAIT"
    assert ask(found, TOO_LATE).verdict == "STOP"


@pytest.mark.parametrize(
    "changes",
    [
        {"latencies": np.full(500, math.nan)},
        {"latencies": np.full(500, math.inf)},
        {"latencies": np.empty(0)},
        {"scores": np.full(500, math.nan)},
        {"scores": np.full(500, math.inf)},
        {"scores": np.empty(0)},
        {"scores": np.empty(0), "classes": {"yes": 500}},
        {"units": 3},
    ],
)
def test_what_is_not_finite_or_missing_never_goes_on(changes: dict[str, Any]) -> None:
    assert ask(evidence(**changes)).verdict != "GO"
    assert ask(evidence(**changes), TOO_LATE).verdict == "STOP"


def test_rows_of_few_keys_prove_no_shift() -> None:
    """One customer who asks a thousand times is one customer."""
    theirs = side(2000, 1, units=25)
    ours = side(500, 2, units=22, scores=np.random.default_rng(3).beta(2.6, 5, 500))
    assert ask(Evidence(theirs, ours)).verdict != "STOP"


def test_classes_are_compared_by_their_counts() -> None:
    theirs = side(2000, 1, scores=np.empty(0), classes={"a": 1000, "b": 600, "c": 400})
    same = side(500, 2, scores=np.empty(0), classes={"a": 255, "b": 140, "c": 105})
    assert ask(Evidence(theirs, same)).verdict == "GO"
    collapsed = side(500, 2, scores=np.empty(0), classes={"a": 500})
    assert ask(Evidence(theirs, collapsed), EARLY).verdict == "STOP"


SAME = Agreement(0.95, 0.01)


def shadow(theirs: Side, ours: Side, agreed: Agreement | None = SAME, **changes: Any) -> Evidence:
    found = Evidence(theirs, ours, paired=True, agreement=agreed, mirrored=1.0)
    return replace(found, **changes)


def test_a_shadow_is_compared_on_the_same_requests() -> None:
    theirs, ours = side(500, 1), side(500, 1, latencies=side(500, 2).latencies)
    said = ask(shadow(theirs, ours))
    assert said.verdict == "GO"
    assert said.numbers["agreement"] == 0.95
    other = replace(ours, scores=1 - ours.scores)
    assert ask(shadow(theirs, other), EARLY).verdict == "STOP"


def test_the_same_distribution_over_other_rows_stops() -> None:
    """PSI sees nothing where scores are turned around or dealt to the wrong rows."""
    draw = np.random.default_rng(0)
    scores = draw.uniform(0, 1, 500)
    for other in (1 - scores, draw.permutation(scores)):
        theirs, ours = side(500, 1, scores=scores), side(500, 1, scores=other)
        said = ask(shadow(theirs, ours, of_scores(scores, other, 500)), EARLY)
        assert said.numbers["shift"]["psi"] < 0.1
        assert said.verdict == "STOP"
        assert said.reason.startswith("it agrees with the champion by -"), said.reason
        assert said.reason.endswith(", 0.2 needed")


def test_a_version_that_learned_a_new_world_is_not_sent_home() -> None:
    """Three of the four things that matter now are others than before."""
    draw = np.random.default_rng(0)
    kept, old, new = draw.normal(size=(3, 500))
    theirs, ours = kept + old, kept + new  # correlated by one half
    agreed = of_scores(theirs, ours, 500)
    found = shadow(side(500, 1, scores=theirs), side(500, 1, scores=ours), agreed)
    assert 0.4 < agreed.value < 0.6
    assert ask(found).verdict == "GO"


def test_labels_outweigh_what_the_champion_says() -> None:
    found = shadow(side(500, 1), side(500, 1), Agreement(-0.5, 0.02))
    assert ask(found).verdict == "STOP"
    assert ask(replace(found, labels=labelled(0.02, 0.05))).verdict == "GO"
    assert ask(replace(found, labels=labelled(-0.02, 0.05))).verdict == "STOP"


@pytest.mark.parametrize(
    "agreed", [None, Agreement(math.nan, math.nan), Agreement(0.1, 0.1), Agreement(0.0, math.inf)]
)
def test_agreement_that_cannot_be_told_waits(agreed: Agreement | None) -> None:
    assert ask(shadow(side(500, 1), side(500, 1), agreed)).verdict == "WAIT"
    assert ask(shadow(side(500, 1), side(500, 1), agreed), TOO_LATE).verdict == "STOP"


def test_copies_that_were_dropped_wait() -> None:
    found = shadow(side(500, 1), side(500, 1), mirrored=0.89)
    said = ask(found)
    assert (said.verdict, said.numbers["mirrored"]) == ("WAIT", 0.89)
    assert said.reason == "it saw 89.0% of the champion's live requests, 90% are needed"
    assert ask(replace(found, mirrored=0.9)).verdict == "GO"
    assert ask(replace(found, mirrored=None)).verdict == "GO"  # only batches


def test_a_busy_champion_hides_no_slow_shadow() -> None:
    """Most of the champion's requests wait 20 ms for their turn; the shadow computes for 12 ms, the champion for 4."""
    waited = np.where(np.arange(500) % 4, 24.0, 4.0)
    busy, slow = side(500, 1, latencies=waited), side(500, 1, latencies=np.full(500, 12.0))
    said = ask(shadow(busy, slow), EARLY)
    assert said.verdict == "STOP"
    assert said.reason == "p10 12 ms, the champion's 4 ms, 7 ms allowed"
    assert ask(shadow(busy, side(500, 1, latencies=np.full(500, 5.0)))).verdict == "GO"
    assert (
        ask(Evidence(busy, slow)).verdict == "GO"
    )  # both waited: the answers are what callers feel


def test_a_batch_keeps_nobody_waiting() -> None:
    none = np.empty(0)
    found = shadow(side(500, 1, latencies=none), side(500, 1, latencies=none), mirrored=None)
    assert ask(found).verdict == "GO"


def labelled(low: float, high: float) -> Interval:
    return Interval("roc_auc", (low + high) / 2, low, high, 0.95, 400, 2000, 0)


@pytest.mark.parametrize(
    ("low", "high", "steps", "decides"),
    [
        (0.02, 0.05, "GO", "GO"),
        (-0.02, 0.05, "GO", "WAIT"),
        (-0.005, 0.005, "GO", "STOP"),  # surely no better by the margin
        (-0.05, -0.02, "STOP", "STOP"),
        (-math.inf, math.inf, "GO", "WAIT"),
        (math.nan, math.nan, "WAIT", "WAIT"),
    ],
)
def test_labels(low: float, high: float, steps: str, decides: str) -> None:
    found = replace(evidence(), labels=labelled(low, high))
    assert ask(found).verdict == steps
    assert ask(found, decides=True).verdict == decides


def test_an_ab_test_without_labels_is_not_decided() -> None:
    found = replace(evidence(), doubt="no labels yet")
    said = ask(found, decides=True)
    assert (said.verdict, said.reason) == ("WAIT", "roc_auc cannot be told: no labels yet")
    assert ask(found, TOO_LATE, decides=True).verdict == "STOP"


def test_good_ones_are_rarely_stopped_by_chance() -> None:
    """A rollout looks about ten times at each step."""
    stopped = 0
    for seed in range(200):
        found = Evidence(side(400, 2 * seed), side(60, 2 * seed + 1))
        stopped += ask(found, EARLY).verdict == "STOP"
    assert stopped <= 3


@settings(max_examples=60, deadline=None)
@given(
    requests=st.integers(1, 3000),
    failures=st.integers(0, 3000),
    more=st.integers(1, 100),
    age=st.sampled_from([EARLY, LATE, TOO_LATE]),
)
def test_more_failures_never_help(requests: int, failures: int, more: int, age: timedelta) -> None:
    def said(count: int) -> int:
        found = evidence(requests=requests, failures=min(count, requests))
        return RANK[ask(found, age).verdict]

    assert said(failures + more) >= said(failures)


@settings(max_examples=60, deadline=None)
@given(factor=st.floats(0.1, 20), more=st.floats(1, 5), rows=st.integers(1, 600))
def test_slower_never_helps(factor: float, more: float, rows: int) -> None:
    def said(times: float) -> int:
        latencies = side(rows, 2).latencies * times
        found = evidence(latencies=latencies, rows=rows, requests=rows)
        return RANK[ask(found).verdict]

    assert said(factor * more) >= said(factor)


@settings(max_examples=60, deadline=None)
@given(moved=st.floats(0, 1), more=st.floats(0, 1))
def test_further_from_the_champion_never_helps(moved: float, more: float) -> None:
    scores = side(500, 2).scores

    def said(share: float) -> int:
        mixed = np.where(np.arange(500) < share * 500, 0.999, scores)
        return RANK[ask(evidence(scores=mixed)).verdict]

    assert said(min(1.0, moved + more)) >= said(moved)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(0, 199),
    units=st.integers(0, 199),
    latency=st.floats(0.01, 100),
    age=st.timedeltas(timedelta(0), timedelta(hours=5)),
)
def test_too_few_rows_never_pass(rows: int, units: int, latency: float, age: timedelta) -> None:
    ours = Side(
        requests=rows,
        rows=rows,
        units=min(rows, units),
        latencies=np.full(rows, latency),
        scores=side(rows, 2).scores,
    )
    said = ask(Evidence(side(2000, 1), ours), age)
    assert said.verdict != "GO"
    assert age < RULES.patience or said.verdict == "STOP"
