"""The gate's rules one by one, and what must hold for any evidence."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.evaluate.evidence import Evidence, Legacy, SliceScore
from include.evaluate.gate import Judgement, judge
from include.scoring.bootstrap import Interval
from include.spec.schema import Spec


def make_spec(approval: Any = "auto", **evaluate: Any) -> Spec:
    evaluate.setdefault("primary", {"metric": "roc_auc", "margin": 0.01})
    return Spec.model_validate(
        {
            "model": "churn",
            "task": "binary",
            "ingest": {"source": {"kind": "file", "path": "x.csv"}, "target": "churned"},
            "evaluate": evaluate,
            "register": {"approval": approval},
        }
    )


def make_interval(improvement: float, half: float = 0.005, **more: Any) -> Interval:
    found = Interval(
        metric="roc_auc",
        improvement=improvement,
        low=improvement - half,
        high=improvement + half,
        confidence=0.95,
        rows=4000,
        resamples=2000,
        undefined=0,
    )
    return replace(found, **more)


def make_evidence(better_by: float = 0.03, **more: Any) -> Evidence:
    evidence = Evidence(
        rows=4000,
        challenger={"roc_auc": 0.80 + better_by, "log_loss": 0.40, "f1": 0.6},
        baseline={"roc_auc": 0.5, "log_loss": 0.69, "f1": 0.0},
        against_baseline=make_interval(0.30 + better_by),
        champion_version="3",
        champion={"roc_auc": 0.80, "log_loss": 0.41, "f1": 0.6},
        against_champion=make_interval(better_by),
    )
    return replace(evidence, **more)


def first(**more: Any) -> Evidence:
    return make_evidence(champion_version=None, champion=None, against_champion=None, **more)


def failed(judgement: Judgement) -> list[str]:
    return [c.name for c in judgement.checks if not c.passed]


def test_a_better_challenger_is_promoted_with_numbers() -> None:
    judgement = judge(make_spec(), make_evidence())
    assert judgement.verdict == "PROMOTE"
    assert judgement.reason == (
        "roc_auc 0.83 against 0.8 of version 3, 95% interval of the improvement "
        "0.025 to 0.035, must lie above 0.01; all 3 checks passed on 4,000 rows."
    )


def test_a_manual_approval_is_waited_for() -> None:
    judgement = judge(make_spec(approval={"manual": {}}), make_evidence())
    assert judgement.verdict == "NEEDS_APPROVAL"
    assert judgement.reason.startswith("roc_auc 0.83")


def test_a_first_model_needs_minimums_and_baseline_only() -> None:
    rules = {"guardrails": {"log_loss": {"max_regression": 0}}, "legacy": {"max_regression": 0}}
    judgement = judge(make_spec(minimum={"roc_auc": 0.7}, **rules), first())
    assert judgement.verdict == "PROMOTE"
    assert [c.name for c in judgement.checks] == ["rows", "minimum.roc_auc", "baseline"]
    assert judgement.reason.startswith("first model, roc_auc 0.83 against 0.5 of the tri")


@pytest.mark.parametrize(
    ("promote", "better_by", "verdict"),
    [
        ("better", 0.03, "PROMOTE"),
        ("better", 0.012, "HOLD"),  # interval 0.007 to 0.017 straddles the margin of 0.01
        ("better", 0.0, "HOLD"),
        ("better", -0.012, "HOLD"),  # worse, but perhaps by less than matters
        ("better", -0.03, "REJECT"),
        ("not_worse", 0.0, "PROMOTE"),
        ("not_worse", -0.004, "PROMOTE"),
        ("not_worse", -0.008, "HOLD"),
        ("not_worse", -0.03, "REJECT"),
    ],
)
def test_the_interval_against_the_champion_decides(
    promote: str, better_by: float, verdict: str
) -> None:
    spec = make_spec(primary={"metric": "roc_auc", "promote": promote, "margin": 0.01})
    judgement = judge(spec, make_evidence(better_by))
    assert judgement.verdict == verdict
    assert failed(judgement) == ([] if verdict == "PROMOTE" else ["champion"])


@pytest.mark.parametrize(
    ("rules", "change", "name"),
    [
        ({"minimum": {"roc_auc": 0.9}}, {}, "minimum.roc_auc"),
        ({"minimum": {"log_loss": 0.39}}, {}, "minimum.log_loss"),
        ({}, {"against_baseline": make_interval(0.012)}, "baseline"),
        (
            {"guardrails": {"log_loss": {"max_regression": 0.02}}},
            {"champion": {"roc_auc": 0.8, "log_loss": 0.37}},
            "guardrail.log_loss",
        ),
        (
            {"slices": [{"column": "region", "max_regression": 0.05}]},
            {"slices": (SliceScore("region", "north", 300, 0.70, 0.76),)},
            "slice.region=north",
        ),
        (
            {"legacy": {"max_regression": 0.05}},
            {"legacy": Legacy(900, 0, {"roc_auc": 0.7}, {"roc_auc": 0.8})},
            "legacy.roc_auc",
        ),
        ({}, {"challenger_problem": "predicts NaN for 2 of 4,000 rows"}, "predictions"),
    ],
)
def test_each_broken_rule_rejects_and_says_so(rules: Any, change: Any, name: str) -> None:
    judgement = judge(make_spec(**rules), make_evidence(**change))
    assert judgement.verdict == "REJECT"
    assert failed(judgement) == [name]
    assert judgement.reason.endswith(".")


@pytest.mark.parametrize(
    ("rules", "change", "said"),
    [
        ({}, {"rows": 49}, "has 49 rows, 50 are needed"),
        ({}, {"champion": None, "champion_failure": "no column 'age'"}, "scored: no column 'age'"),
        ({}, {"champion": None}, "could not be scored: it has no scores"),
        ({}, {"against_champion": None}, "roc_auc is undefined on 4,000 rows"),
        ({}, {"against_baseline": None}, "roc_auc is undefined on 4,000 rows"),
        (
            {},
            {"against_champion": make_interval(0.1, low=-math.inf, high=math.inf, undefined=90)},
            "90 of 2,000 resamples leave it undefined",
        ),
        ({"minimum": {"recall": 0.1}}, {}, "recall is undefined on 4,000 rows"),
        ({"guardrails": {"recall": {"max_regression": 9}}}, {}, "recall is undefined"),
        ({"slices": [{"column": "region", "max_regression": 9}]}, {}, "'region' has no values"),
        (
            {"slices": [{"column": "region", "max_regression": 9}]},
            {"slices": (SliceScore("region", "north", 300, math.nan, 0.7),)},
            "roc_auc where region=north is undefined on 300 rows",
        ),
        (
            {"legacy": {"max_regression": 9}},
            {},
            "old holdout could not be scored: it was not given",
        ),
        (
            {"legacy": {"max_regression": 9}},
            {"legacy": Legacy(0, 0, {}, {}, "snapshot is gone.")},
            "old holdout could not be scored: snapshot is gone.",
        ),
    ],
)
def test_what_cannot_be_told_is_held_and_says_why(rules: Any, change: Any, said: str) -> None:
    judgement = judge(make_spec(**rules), make_evidence(**change))
    assert judgement.verdict == "HOLD"
    assert said in judgement.reason


def test_a_missing_slice_column_holds_a_first_model_too() -> None:
    spec = make_spec(slices=[{"column": "region", "max_regression": 0.1}])
    assert judge(spec, first()).verdict == "HOLD"
    north = SliceScore("region", "north", 300, 0.7, None)
    assert judge(spec, first(slices=(north,))).verdict == "PROMOTE"


def test_too_few_rows_hold_even_what_would_be_rejected() -> None:
    judgement = judge(make_spec(minimum={"roc_auc": 0.99}), make_evidence(0.0, rows=20))
    assert judgement.verdict == "HOLD"
    assert "20 rows" in judgement.reason
    assert "(2 more of 4 checks failed)" in judgement.reason


def test_small_slices_and_unguarded_old_holdouts_are_not_judged() -> None:
    spec = make_spec(slices=[{"column": "region", "max_regression": 0.05, "min_rows": 200}])
    change = {
        "slices": (SliceScore("region", "north", 199, 0.1, 0.9),),
        "legacy": Legacy(900, 0, {"roc_auc": 0.1}, {"roc_auc": 0.9}),
    }
    judgement = judge(spec, make_evidence(**change))
    assert judgement.verdict == "PROMOTE"
    assert [c.name for c in judgement.checks] == ["rows", "baseline", "champion"]


def test_not_worse_is_no_excuse_against_the_baseline() -> None:
    spec = make_spec(primary={"metric": "roc_auc", "promote": "not_worse", "margin": 0.5})
    judgement = judge(spec, make_evidence(0.0, against_baseline=make_interval(0.0)))
    assert judgement.verdict == "REJECT"
    assert failed(judgement) == ["baseline"]


def test_rounding_errors_decide_nothing() -> None:
    tiny = make_interval(1e-14, half=0.0)
    spec = make_spec(primary={"metric": "roc_auc"})
    assert judge(spec, make_evidence(1e-14, against_champion=tiny)).verdict == "HOLD"
    spec = make_spec(guardrails={"f1": {"max_regression": 0.05}})
    scores = {"roc_auc": 0.8, "f1": 0.80}
    mine = {"roc_auc": 0.83, "f1": 0.75}  # 0.8 - 0.75 is 0.05000000000000004
    assert judge(spec, make_evidence(champion=scores, challenger=mine)).verdict == "PROMOTE"


# --- what must hold for any evidence --------------------------------------------------------------------

UNIT = st.floats(-1, 1)
BAD = st.sampled_from([math.nan, math.inf, -math.inf])


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    return make_spec(
        primary={
            "metric": "roc_auc",
            "promote": draw(st.sampled_from(["better", "not_worse"])),
            "margin": draw(st.floats(0, 0.2)),
        },
        minimum={"roc_auc": draw(UNIT), "log_loss": draw(UNIT)},
        guardrails={"log_loss": {"max_regression": draw(st.floats(0, 1))}},
        slices=[{"column": "region", "max_regression": draw(st.floats(0, 1))}],
        legacy={"max_regression": draw(st.floats(0, 1))},
    )


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    low, middle, high = sorted(draw(st.tuples(UNIT, UNIT, UNIT)))
    return make_interval(middle, low=low, high=high)


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    def scores() -> dict[str, float]:
        return {"roc_auc": draw(UNIT), "log_loss": draw(UNIT)}

    return Evidence(
        rows=draw(st.integers(0, 200)),
        challenger=scores(),
        baseline=scores(),
        against_baseline=draw(intervals()),
        champion_version="3",
        champion=scores(),
        against_champion=draw(intervals()),
        slices=(SliceScore("region", "n", draw(st.integers(1, 300)), draw(UNIT), draw(UNIT)),),
        legacy=Legacy(500, 0, scores(), scores()),
    )


def promoting() -> tuple[Spec, Evidence]:
    """Return evidence that every rule of a demanding spec accepts."""
    spec = make_spec(
        minimum={"roc_auc": 0.7, "log_loss": 0.5},
        guardrails={"log_loss": {"max_regression": 0.1}},
        slices=[{"column": "region", "max_regression": 0.1}],
        legacy={"max_regression": 0.1},
    )
    old = Legacy(500, 0, {"roc_auc": 0.8}, {"roc_auc": 0.8})
    north = SliceScore("region", "north", 300, 0.8, 0.8)
    evidence = make_evidence(slices=(north,), legacy=old)
    assert judge(spec, evidence).verdict == "PROMOTE"
    return spec, evidence


def poisoned(evidence: Evidence, bad: float) -> list[Evidence]:
    """Return the evidence with each number the spec needs replaced by a bad one, in turn."""
    worse: list[Evidence] = []
    for field in ("challenger", "champion", "baseline"):
        for metric in ("roc_auc", "log_loss"):
            if (field, metric) != ("baseline", "log_loss"):
                worse.append(
                    replace(evidence, **{field: {**getattr(evidence, field), metric: bad}})
                )
    for field in ("against_baseline", "against_champion"):
        for end in ("improvement", "low", "high"):
            worse.append(
                replace(evidence, **{field: replace(getattr(evidence, field), **{end: bad})})
            )
    for who in ("challenger", "champion"):
        worse.append(replace(evidence, slices=(replace(evidence.slices[0], **{who: bad}),)))
        assert evidence.legacy is not None
        worse.append(replace(evidence, legacy=replace(evidence.legacy, **{who: {"roc_auc": bad}})))
    return worse


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_spoils_a_promotion(bad: float) -> None:
    spec, evidence = promoting()
    for number, spoiled in enumerate(poisoned(evidence, bad)):
        assert judge(spec, spoiled).verdict in ("HOLD", "REJECT"), number


@given(spec=specs(), evidence=evidences(), bad=BAD, data=st.data())
@settings(max_examples=200, deadline=None)
def test_nothing_that_is_not_finite_is_ever_promoted(
    spec: Spec, evidence: Evidence, bad: float, data: st.DataObject
) -> None:
    evidence = replace(evidence, slices=(replace(evidence.slices[0], rows=300),))
    spoiled = data.draw(st.sampled_from(poisoned(evidence, bad)))
    assert judge(spec, spoiled).verdict in ("HOLD", "REJECT")


@given(spec=specs(), evidence=evidences())
@settings(max_examples=200, deadline=None)
def test_a_verdict_agrees_with_its_checks(spec: Spec, evidence: Evidence) -> None:
    judgement = judge(spec, evidence)
    assert (judgement.verdict == "PROMOTE") == all(c.passed for c in judgement.checks)
    assert judgement.reason.endswith(".")
    if judgement.verdict == "REJECT":
        assert evidence.rows >= spec.evaluate.min_rows


RANK = {"REJECT": 0, "HOLD": 1, "PROMOTE": 2}


def rank(evidence: Evidence, promote: str, margin: float) -> int:
    primary = {"metric": "roc_auc", "margin": margin, "promote": promote}
    return RANK[judge(make_spec(primary=primary), evidence).verdict]


@given(found=intervals(), margins=st.tuples(st.floats(0, 0.2), st.floats(0, 0.2)).map(sorted))
@settings(max_examples=300, deadline=None)
def test_margins_demand_more_to_be_better_and_forgive_more_to_be_no_worse(
    found: Interval, margins: list[float]
) -> None:
    evidence = make_evidence(against_champion=found)
    small, large = (rank(evidence, "better", m) for m in margins)
    assert not (large == 2 and small < 2)
    strict, lax = (rank(evidence, "not_worse", m) for m in margins)
    assert strict <= lax
    assert small <= strict


@given(
    found=intervals(),
    shift=st.floats(0, 1),
    promote=st.sampled_from(["better", "not_worse"]),
    margin=st.floats(0, 0.2),
)
@settings(max_examples=300, deadline=None)
def test_a_better_challenger_is_never_judged_worse(
    found: Interval, shift: float, promote: str, margin: float
) -> None:
    better = replace(found, low=found.low + shift, high=found.high + shift)
    before, after = (
        rank(make_evidence(against_champion=i), promote, margin) for i in (found, better)
    )
    assert before <= after


@given(score=st.floats(0.01, 1), margin=st.floats(0, 0.2))
def test_identical_models_are_held(score: float, margin: float) -> None:
    same = {"roc_auc": score, "log_loss": score}
    none = make_interval(0.0, half=0.0)
    evidence = make_evidence(challenger=same, champion=dict(same), against_champion=none)
    assert rank(evidence, "better", margin) == RANK["HOLD"]
