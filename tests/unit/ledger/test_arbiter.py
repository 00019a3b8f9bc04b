from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.ledger.arbiter import EXPIRED, Request, arbitrate
from include.spec.schema import Retrain

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
RULES = Retrain(cooldown="24h", max_per_week=3)


def request(number=1, source="drift"):
    return Request(number, "churn", source, "psi 0.4", f"k{number}", NOW.isoformat())


def decide(
    trigger="schedule",
    pending=(),
    retrains=(),
    frozen=None,
    force=False,
    rules=RULES,
    answered=None,
):
    return arbitrate(
        trigger=trigger,
        pending=pending,
        retrains=retrains,
        frozen=frozen,
        retrain=rules,
        now=NOW,
        force=force,
        answered=answered,
    )


def ago(**delta):
    return NOW - timedelta(**delta)


def test_trains_when_nothing_speaks_against_it_and_merges_what_waits():
    decision = decide(pending=[request(1), request(2, "decay")])
    assert decision.verdict == "RETRAIN"
    assert decision.request_ids == (1, 2)
    assert "drift: psi 0.4; decay: psi 0.4" in decision.reason


@pytest.mark.parametrize("trigger", ["schedule", "data", "drift", "decay"])
def test_cools_down(trigger):
    waits = [request()] if trigger in ("drift", "decay") else []
    early = decide(trigger, waits, retrains=[ago(hours=22, minutes=54)])
    assert early.verdict == "SKIP"
    assert early.reason == "cooling down until 2026-03-02T13:06:00+00:00"
    assert decide(trigger, waits, retrains=[ago(hours=24)]).verdict == "RETRAIN"


@pytest.mark.parametrize("trigger", ["drift", "decay"])
@pytest.mark.parametrize(
    ("answered", "reason"),
    [
        (
            "churn__train/nightly",
            "the monitor's request was answered already by churn__train/nightly",
        ),
        (EXPIRED, "the monitor's request expired before anybody answered it"),
        (None, "no request of the monitor waits for an answer"),
    ],
)
def test_a_run_of_the_monitor_without_a_request_has_nothing_to_do(trigger, answered, reason):
    decision = decide(trigger, answered=answered, retrains=[ago(hours=1)])
    assert (decision.verdict, decision.reason) == ("SKIP", reason)
    assert decide(trigger, answered=answered, force=True).verdict == "RETRAIN"
    assert decide(trigger, [request(3, "api")], answered=answered).verdict == "RETRAIN"
    # what waits is answered, whichever of the two it is
    assert decide("drift", [request(3, "decay")], answered=answered).request_ids == (3,)


def test_nobody_else_needs_a_request():
    for trigger in ("schedule", "data", "manual", "api"):
        assert decide(trigger, answered="churn__train/nightly").verdict == "RETRAIN"


def test_a_nightly_run_that_starts_a_moment_earlier_than_yesterday_trains():
    nights = [ago(days=day, seconds=-0.4) for day in (1, 3, 7)]
    assert decide(retrains=nights).verdict == "RETRAIN"


def test_a_short_cooldown_is_not_eaten_up_by_the_slack():
    rules = Retrain(cooldown="5m", max_per_week=9)
    assert decide(retrains=[ago(minutes=4)], rules=rules).verdict == "SKIP"
    assert decide(retrains=[ago(minutes=4, seconds=31)], rules=rules).verdict == "RETRAIN"


def test_weekly_budget_counts_seven_days():
    past = [ago(days=2), ago(days=4), ago(days=6, hours=22)]
    assert "3 of 3 retrains" in decide(retrains=past).reason
    assert decide(retrains=[*past[:2], ago(days=7)]).verdict == "RETRAIN"


@pytest.mark.parametrize("trigger", ["manual", "api"])
def test_by_hand_passes_cooldown_and_budget(trigger):
    assert decide(trigger, retrains=[ago(hours=h) for h in range(1, 9)]).verdict == "RETRAIN"


def test_a_waiting_request_by_hand_passes_too():
    assert decide(pending=[request(7, "api")], retrains=[ago(hours=1)]).request_ids == (7,)


@pytest.mark.parametrize("trigger", ["schedule", "manual"])
def test_frozen_skips_everybody_unless_forced(trigger):
    decision = decide(trigger, frozen="audit", pending=[request()])
    assert (decision.verdict, decision.request_ids) == ("SKIP", ())
    assert "frozen: audit" in decision.reason
    assert decide(trigger, frozen="audit", force=True).verdict == "RETRAIN"


@given(
    hours=st.lists(st.integers(0, 400), max_size=12),
    trigger=st.sampled_from(["schedule", "data", "drift", "decay"]),
    cooldown=st.integers(1, 72),
    budget=st.integers(1, 9),
)
def test_unasked_retrains_never_break_a_rule(hours, trigger, cooldown, budget):
    rules = Retrain(cooldown=f"{cooldown}h", max_per_week=budget)
    past = [ago(hours=h) for h in hours]
    waits = [request()] if trigger in ("drift", "decay") else []
    decision = decide(trigger, waits, retrains=past, rules=rules)
    # A spring night is an hour shorter, and a schedule is never on the second.
    due = cooldown - min(65 / 60, cooldown / 10)
    allowed = all(h >= due for h in hours) and sum(h < 168 - 65 / 60 for h in hours) < budget
    assert (decision.verdict == "RETRAIN") is allowed
