from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.monitor.decide import Outcome, decide
from include.monitor.findings import QUALITY, Finding
from include.spec.schema import Spec

NOW, EARLIER = "20260310T000000Z", "20260201T000000Z"
STATUSES = ("ok", "warn", "alert", "insufficient_data")
CHECKS = (*sorted(QUALITY), "drift", "prediction_drift", "target_drift", "coverage", "performance")


def make_spec(
    k: int = 2, of: int = 3, share: float = 0.5, on: tuple[str, ...] = ("drift", "decay")
) -> Spec:
    return Spec.model_validate(
        {
            "model": "churn",
            "task": "binary",
            "ingest": {"source": {"kind": "file", "path": "x.csv"}, "target": "churned"},
            "monitor": {
                "drift": {
                    "share": share,
                    "critical": ["tenure"],
                    "violations": {"k": k, "of": of},
                },
                "labels": {"delay": "30d"},
                "performance": {"metric": "roc_auc", "max_drop": 0.05},
            },
            "retrain": {"on": list(on)},
        }
    )


def feature(name: str, status: Any = "ok", value: float = 0.01) -> Finding:
    return Finding("drift", name, status, f"{name} {value}", value, 0.2)


def features(drifted: int, of: int = 4) -> list[Finding]:
    return [feature(f"f{n}", "alert" if n < drifted else "ok", 0.9 - n / 10) for n in range(of)]


def finding(check: Any, status: Any = "alert", column: str | None = None) -> Finding:
    return Finding(check, column, status, f"{check} is {status}.", 0.7, 0.5)


def event(day: int, *, drifts: bool = False, broken: bool = False) -> dict[str, Any]:
    return {"window": f"202603{day:02d}T000000Z", "drifts": drifts, "broken": broken}


def sources(outcome: Outcome) -> list[str]:
    return [wish.source for wish in outcome.wishes]


QUIET = features(0)
DRIFTED = features(3)
TWICE = [event(8), event(9, drifts=True)]
WHOLE = {"window": EARLIER, "drifts": False, "broken": False}


class TestDrift:
    def test_one_violation_is_an_alert_but_no_wish(self) -> None:
        outcome = decide(make_spec(), DRIFTED, [event(8), event(9)])
        assert (outcome.verdict, outcome.drifts, outcome.wishes) == ("ALERT", True, ())
        assert outcome.reason == (
            "3 of 4 features drifted (f0 0.9 >= 0.2, f1 0.8 >= 0.2, f2 0.7 >= 0.2), "
            "in 1 of the last 3 windows (2 needed)"
        )

    def test_the_second_of_three_is_a_wish_with_the_numbers(self) -> None:
        outcome = decide(make_spec(), DRIFTED, [event(8, drifts=True), event(9)])
        assert sources(outcome) == ["drift"]
        assert outcome.wishes[0].reason == outcome.reason
        assert outcome.reason.endswith("in 2 of the last 3 windows (2 are enough)")

    def test_the_latest_must_violate(self) -> None:
        outcome = decide(make_spec(), QUIET, [event(8, drifts=True), event(9, drifts=True)])
        assert (outcome.verdict, outcome.drifts, outcome.wishes) == ("OK", False, ())

    def test_older_windows_than_n_are_forgotten(self) -> None:
        history = [event(7, drifts=True), event(8), event(9)]
        assert not decide(make_spec(), DRIFTED, history).wishes

    def test_a_broken_window_neither_counts_nor_asks(self) -> None:
        outcome = decide(make_spec(), DRIFTED, [event(8), event(9, drifts=True, broken=True)])
        assert not outcome.wishes
        outcome = decide(make_spec(), [*DRIFTED, finding("nulls", column="f1")], TWICE)
        assert (outcome.verdict, outcome.broken, outcome.drifts) == ("ALERT", True, False)
        assert not outcome.wishes
        assert outcome.reason == "broken data, so drift is not judged: nulls is alert"

    @pytest.mark.parametrize(("drifted", "violates"), [(1, False), (2, True)])
    def test_the_share_is_reached_by_as_many_as_it_says(self, drifted: int, violates: bool) -> None:
        assert decide(make_spec(), features(drifted), []).drifts is violates

    def test_features_that_cannot_be_judged_are_no_drift(self) -> None:
        thin = [feature(f"g{n}", "insufficient_data") for n in range(9)]
        assert not decide(make_spec(), [*features(1, 1), *thin], []).drifts

    def test_a_share_of_nothing_needs_a_drifted_feature(self) -> None:
        assert not decide(make_spec(share=0.0), QUIET, TWICE).drifts
        assert decide(make_spec(share=0.0), features(1), TWICE).wishes

    def test_a_critical_feature_counts_on_its_own(self) -> None:
        outcome = decide(make_spec(), [*QUIET, feature("tenure", "alert", 0.31)], TWICE)
        assert sources(outcome) == ["drift"]
        assert outcome.reason.startswith("critical features drifted (tenure 0.31 >= 0.2)")

    def test_predictions_count_on_their_own(self) -> None:
        outcome = decide(make_spec(), [*QUIET, finding("prediction_drift")], TWICE)
        assert sources(outcome) == ["drift"]
        assert "predictions drifted (0.7 >= 0.5)" in outcome.reason

    def test_the_target_does_not(self) -> None:
        outcome = decide(make_spec(), [*QUIET, finding("target_drift")], TWICE)
        assert (outcome.verdict, outcome.wishes) == ("WARN", ())

    def test_many_features_are_named_by_the_largest(self) -> None:
        outcome = decide(make_spec(), features(9, 9)[::-1], [])
        assert "(f0 0.9 >= 0.2, f1 0.8 >= 0.2" in outcome.reason
        assert "and 4 more)" in outcome.reason

    def test_history_of_this_window_and_of_later_ones_is_left_out(self) -> None:
        history = [event(10, drifts=True), event(11, drifts=True)]
        assert not decide(make_spec(), DRIFTED, history, window=NOW).wishes
        assert decide(make_spec(), DRIFTED, history).wishes

    @pytest.mark.parametrize(("day", "counts"), [(9, True), (8, True), (7, False), (1, False)])
    def test_windows_before_a_gap_do_not_count(self, day: int, counts: bool) -> None:
        outcome = decide(make_spec(), DRIFTED, [event(day, drifts=True)], window=NOW)
        assert bool(outcome.wishes) == counts
        assert f"in {1 + counts} of the last 3 windows" in outcome.reason

    def test_what_retrain_on_does_not_name_is_still_an_alert(self) -> None:
        findings = [*DRIFTED, finding("performance")]
        outcome = decide(make_spec(on=("data",)), findings, TWICE)
        assert (outcome.verdict, outcome.drifts, outcome.decays) == ("ALERT", True, True)
        assert outcome.wishes == ()


class TestDecay:
    def test_one_matured_window_is_enough(self) -> None:
        findings = [*QUIET, finding("performance")]
        outcome = decide(make_spec(), findings, [], matured=EARLIER, matured_row=WHOLE)
        assert (outcome.verdict, outcome.decays) == ("ALERT", True)
        assert [(w.source, w.reason) for w in outcome.wishes] == [("decay", "performance is alert")]

    def test_not_one_whose_data_was_broken(self) -> None:
        findings, row = [*QUIET, finding("performance")], WHOLE | {"broken": True}
        for history in ([event(9)], [row, event(9)]):
            outcome = decide(make_spec(), findings, history, matured=EARLIER, matured_row=row)
            assert (outcome.decays, outcome.wishes) == (False, ())

    def test_one_that_was_never_judged_is_left_to_people(self) -> None:
        """Short histories must not make an old window look whole."""
        findings = [*QUIET, finding("performance")]
        for history in ([], [WHOLE | {"broken": True}, event(9)], [event(9)]):
            outcome = decide(make_spec(), findings, history, window=NOW, matured=EARLIER)
            assert (outcome.verdict, outcome.wishes) == ("ALERT", ())
            assert outcome.reason == (
                "performance is alert; its window was never judged for quality, so no retrain is asked for"
            )

    @pytest.mark.parametrize("matured", [None, NOW])
    def test_one_that_is_judged_now_needs_no_row(self, matured: str | None) -> None:
        findings = [*QUIET, finding("performance")]
        outcome = decide(make_spec(), findings, [], window=NOW, matured=matured)
        assert sources(outcome) == ["decay"]

    def test_the_wish_waits_until_the_data_is_whole_again(self) -> None:
        findings = [*QUIET, finding("performance"), finding("schema")]
        outcome = decide(make_spec(), findings, [], window=NOW, matured=EARLIER, matured_row=WHOLE)
        assert (outcome.decays, outcome.broken, outcome.wishes) == (True, True, ())

    @pytest.mark.parametrize("matured", [None, NOW])
    def test_labels_without_delay_are_of_this_very_window(self, matured: str | None) -> None:
        findings = [*QUIET, finding("performance"), finding("schema")]
        assert not decide(make_spec(), findings, [], window=NOW, matured=matured).decays

    @pytest.mark.parametrize("status", ["ok", "warn", "insufficient_data"])
    def test_only_what_is_proven_counts(self, status: str) -> None:
        assert not decide(make_spec(), [*QUIET, finding("performance", status)], []).decays

    def test_both_wishes_come_together(self) -> None:
        outcome = decide(make_spec(), [*DRIFTED, finding("performance")], TWICE)
        assert sources(outcome) == ["drift", "decay"]


class TestVerdict:
    @pytest.mark.parametrize(
        ("findings", "verdict", "reason"),
        [
            ([], "INSUFFICIENT_DATA", "nothing was judged"),
            (QUIET, "OK", "nothing found in 4 checks"),
            ([feature("a", "insufficient_data")], "INSUFFICIENT_DATA", "a 0.01"),
            ([finding("volume", "ok")], "INSUFFICIENT_DATA", "nothing was judged"),
            ([*QUIET, finding("coverage", "insufficient_data")], "OK", "nothing found in 5 checks"),
            ([*QUIET, feature("b", "warn", 0.15)], "WARN", "b 0.15"),
            ([*QUIET, feature("b", "alert", 0.3)], "WARN", "b 0.3"),
            ([*QUIET, finding("coverage", "warn")], "WARN", "coverage is warn"),
            ([*QUIET, finding("coverage")], "ALERT", "coverage is alert"),
            ([finding("volume", "warn")], "WARN", "volume is warn"),
            ([finding("volume")], "ALERT", "broken data, so drift is not judged: volume is alert"),
        ],
    )
    def test_is_the_most_severe_thing(
        self, findings: list[Finding], verdict: str, reason: str
    ) -> None:
        outcome = decide(make_spec(), findings, [])
        assert (outcome.verdict, outcome.reason) == (verdict, reason)
        assert outcome.wishes == ()


# --- whatever is found ----------------------------------------------------------------------------------

some_finding = st.builds(
    Finding,
    check=st.sampled_from(CHECKS),
    column=st.sampled_from([None, "tenure", "a", "b", "c"]),
    status=st.sampled_from(STATUSES),
    message=st.just("m"),
    value=st.none() | st.floats(0, 1),
    threshold=st.none() | st.floats(0, 1),
)
past = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=6)
rules = st.tuples(st.integers(1, 5), st.integers(1, 5)).filter(lambda r: r[0] <= r[1])


@given(
    findings=st.lists(some_finding, max_size=8),
    past=past,
    rule=rules,
    on=st.sampled_from([(), ("drift",), ("decay",), ("drift", "decay")]),
    known=st.sampled_from([None, False, True]),
)
def test_rules_hold_whatever_is_found(
    findings: list[Finding],
    past: list[tuple[bool, bool]],
    rule: tuple[int, int],
    on: Any,
    known: bool | None,
) -> None:
    k, of = rule
    first = 10 - len(past)  # the last one is the day before
    history = [event(first + n, drifts=d, broken=b) for n, (d, b) in enumerate(past)]
    row = None if known is None else WHOLE | {"broken": known}
    outcome = decide(
        make_spec(k, of, on=on), findings, history, window=NOW, matured=EARLIER, matured_row=row
    )
    alerts = {f.check for f in findings if f.status == "alert"}
    assert outcome.broken == bool(alerts & QUALITY)
    assert outcome.decays == ("performance" in alerts and known is not True)
    if outcome.broken:
        assert not outcome.wishes
        assert not outcome.drifts
    recent = [d and not b for d, b in past][len(past) - (of - 1) if len(past) > of - 1 else 0 :]
    recent = recent if of > 1 else []
    confirmed = outcome.drifts and 1 + sum(recent) >= k
    assert ("drift" in sources(outcome)) == (confirmed and "drift" in on)
    wants = outcome.decays and not outcome.broken and known is False
    assert ("decay" in sources(outcome)) == (wants and "decay" in on)
    loud = outcome.broken or outcome.drifts or outcome.decays or "coverage" in alerts
    assert (outcome.verdict == "ALERT") == loud
    assert outcome.reason
    assert all(wish.reason for wish in outcome.wishes)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_every_history_of_four_windows(k: int) -> None:
    for flags in itertools.product([False, True], repeat=3):
        history = [event(n + 1, drifts=d) for n, d in enumerate(flags)]
        assert bool(decide(make_spec(k, 4), DRIFTED, history).wishes) == (1 + sum(flags) >= k)
        assert not decide(make_spec(k, 4), QUIET, history).wishes
