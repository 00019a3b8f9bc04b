"""What a run has to tell, read from the ledger as operators leave it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from include.ledger.ledger import Ledger
from include.notify.message import Message, alerted, failed, waiting
from include.notify.news import promotion, rejection, undoing, verdict_of

NOW = datetime(2026, 1, 2, tzinfo=UTC)
RUN, OTHER = "shop__train/r2", "shop__train/r1"
INTERVAL = {"improvement": 0.0123, "low": 0.001, "high": 0.02, "confidence": 0.95}
PAGE = {
    "primary": {"metric": "roc_auc"},
    "rows": 4800,
    "challenger": {"metrics": {"roc_auc": 0.8123}},
    "champion": {"version": "1", "metrics": {"roc_auc": 0.8}},
    "baseline": {"metrics": {"roc_auc": 0.5}},
    "against_champion": INTERVAL,
    "against_baseline": {**INTERVAL, "improvement": 0.31, "low": None},
}
NUMBERS = [
    "roc_auc: 0.8123 (challenger), 0.8 (champion, version 1)",
    "Improvement 0.0123, 95% interval 0.001 to 0.02, on 4,800 rows",
]


def links(run_id: str) -> dict[str, str]:
    return {"Airflow run": "http://a/r2", "MLflow run": f"http://m/{run_id}" if run_id else ""}


def write(ledger: Ledger, kind: str, actor: str = RUN, key: str = "", **payload: Any) -> int:
    number = ledger.head("shop")
    when = NOW + timedelta(seconds=number)
    return ledger.record("shop", kind, key or f"k{number}", payload, actor, when).seq


def judge(ledger: Ledger, verdict: str, actor: str = RUN, page: Any = PAGE) -> int:
    said = {"verdict": verdict, "reason": "because.", "run_id": "m1", "page": page}
    return write(ledger, "verdict", actor, **said)


def move(ledger: Ledger, kind: str, before: str | None, after: str | None, **more: Any) -> int:
    return write(ledger, kind, **{"from": before, "to": after, "reason": "because.", **more})


@pytest.mark.parametrize("verdict", ["REJECT", "HOLD"])
def test_a_rejection_has_the_numbers_and_the_links(ledger: Ledger, verdict: str) -> None:
    seq = judge(ledger, verdict)
    message = rejection(ledger, "shop", RUN, links)
    assert message == Message(
        "rejection",
        f"{RUN}/{seq}",
        f"shop: not promoted ({verdict})",
        ("because.", *NUMBERS, "Airflow run: http://a/r2", "MLflow run: http://m/m1"),
    )


def test_a_first_model_is_compared_with_the_baseline(ledger: Ledger) -> None:
    judge(ledger, "HOLD", page={**PAGE, "champion": None})
    message = rejection(ledger, "shop", RUN, links)
    assert message
    assert message.lines[1:3] == (
        "roc_auc: 0.8123 (challenger), 0.5 (trivial baseline)",
        "Improvement 0.31, 95% interval undefined to 0.02, on 4,800 rows",
    )


def test_a_champion_that_could_not_be_scored(ledger: Ledger) -> None:
    page = {**PAGE, "champion": {"version": "1", "metrics": None}, "against_champion": None}
    judge(ledger, "HOLD", page=page)
    message = rejection(ledger, "shop", RUN, links)
    assert message
    assert message.lines[1] == "roc_auc: 0.8123 (challenger), undefined (champion, version 1)"


@pytest.mark.parametrize("verdict", ["PROMOTE", "NEEDS_APPROVAL"])
def test_a_yes_is_no_rejection(ledger: Ledger, verdict: str) -> None:
    judge(ledger, "REJECT", OTHER)
    assert rejection(ledger, "shop", RUN, links) is None
    judge(ledger, verdict)
    assert rejection(ledger, "shop", RUN, links) is None


def test_another_verdict_of_the_same_run_is_another_event(ledger: Ledger) -> None:
    judge(ledger, "HOLD")
    first = rejection(ledger, "shop", RUN, links)
    judge(ledger, "REJECT")
    second = rejection(ledger, "shop", RUN, links)
    assert first
    assert second
    assert first.key != second.key


def test_a_persons_no_is_a_rejection(ledger: Ledger) -> None:
    judge(ledger, "NEEDS_APPROVAL")
    for run, who, said in ((OTHER, "eve", "REJECT"), (RUN, "ann", "REJECT")):
        key = f"approval/f/1/{run}/{said}"
        write(ledger, "approval", who, key, verdict=said, version="2", reason="not approved")
    message = rejection(ledger, "shop", RUN, links)
    assert message
    assert message.title == "shop: version 2 was not approved"
    assert message.lines[:2] == ("Version 2 was not approved: ann", "because.")


def test_a_promotion_is_told_when_it_is_done(ledger: Ledger) -> None:
    judge(ledger, "PROMOTE")
    seq = move(ledger, "promotion", "1", "2")
    assert promotion(ledger, "shop", RUN, links) is None, "written down, but not done"
    write(ledger, "applied", move=seq)
    message = promotion(ledger, "shop", RUN, links)
    assert message
    assert message.title == "shop: version 2 is champion"
    assert message.lines[:4] == ("because.", *NUMBERS, "It replaces version 1.")
    assert promotion(ledger, "shop", OTHER, links) is None


def test_a_first_champion(ledger: Ledger) -> None:
    write(ledger, "applied", move=move(ledger, "promotion", None, "1"))
    message = promotion(ledger, "shop", RUN, links)
    assert message
    assert message.lines == ("because.", "It is the first champion.", "Airflow run: http://a/r2")


def test_what_was_taken_back_is_no_promotion(ledger: Ledger) -> None:
    write(ledger, "applied", move=move(ledger, "promotion", "1", "2"))
    assert undoing(ledger, "shop", RUN, links) is None
    move(ledger, "rollback", "2", "1")
    assert promotion(ledger, "shop", RUN, links) is None
    message = undoing(ledger, "shop", RUN, links)
    assert message
    assert (message.about, message.title) == (RUN, "shop: back to version 1")
    assert message.lines[:2] == ("Version 2 was taken back: because.", f"By {RUN}")
    move(ledger, "rollback", "1", None)
    gone = undoing(ledger, "shop", RUN, links)
    assert gone
    assert (gone.about, gone.title) == (RUN, "shop: no champion is left")


def test_a_rollback_by_somebody_else_is_not_the_runs_news(ledger: Ledger) -> None:
    write(ledger, "applied", move=move(ledger, "promotion", "1", "2"))
    write(ledger, "rollback", "ann", **{"from": "2", "to": "1", "reason": "complaints"})
    assert promotion(ledger, "shop", RUN, links) is None
    assert undoing(ledger, "shop", RUN, links) is None


def test_a_question(ledger: Ledger) -> None:
    judge(ledger, "NEEDS_APPROVAL")
    message = waiting(
        "shop",
        RUN,
        version="2",
        reason="because.",
        verdict=verdict_of(ledger, "shop", RUN),
        until="2:00:00",
        links={"Answer here": "http://a/q"},
    )
    assert message.title == "shop: version 2 waits for approval"
    end = ("No answer within 2:00:00 is a no.", "Answer here: http://a/q")
    assert message.lines == ("because.", *NUMBERS, *end)


def test_a_failure() -> None:
    message = failed("shop", RUN, reason="a task failed", task="ingest", links=links(""))
    assert message.title == "shop: shop__train failed"
    assert message.body == "a task failed\nTask ingest\nRun r2\nAirflow run: http://a/r2"


def test_a_failure_after_a_clear_is_another_event() -> None:
    def key(task: str, try_number: int) -> str:
        given = {"reason": "", "task": task, "links": {}, "try_number": try_number}
        return failed("shop", RUN, **given).key  # type: ignore[arg-type]

    tries = [("ingest", 4), ("ingest", 5), ("train", 1), ("", 0)]
    assert len({key(*each) for each in tries}) == len(tries)
    assert key("ingest", 4) == f"notified/failure/{RUN}/ingest/4"
    assert key("", 0) == f"notified/failure/{RUN}"


def test_a_forced_pass_is_another_event() -> None:
    abouts = [
        alerted("shop", run, OUTCOME, {}, forced=forced).about
        for run, forced in (("m/1", False), ("m/2", False), ("m/3", True), ("m/4", True))
    ]
    window = "3/20260101T00-1d"
    assert abouts == [window, window, f"{window}/m/3", f"{window}/m/4"]


OUTCOME = {
    "verdict": "ALERT",
    "reason": "6 of 11 features drifted",
    "window": "20260101T00-1d",
    "start": "2026-01-01",
    "end": "2026-01-02",
    "version": "3",
    "rows": 900,
    "drifts": True,
    "findings": {"ok": 5, "alert": 6},
    "wishes": [{"source": "drift", "reason": "2 of 3 windows drifted"}],
}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({}, "drift"),
        ({"drifts": False, "decays": True}, "decay"),
        ({"broken": True, "drifts": False}, "broken data"),
        ({"broken": True, "decays": True}, "broken data and decay and drift"),
        ({"drifts": False}, "alert"),
    ],
)
def test_an_alert_says_of_what(flags: dict[str, bool], words: str) -> None:
    message = alerted("shop", "shop__monitor/r", {**OUTCOME, **flags}, {})
    assert (message.title, message.about) == (f"shop: {words}", "3/20260101T00-1d")
    assert message.lines == (
        "6 of 11 features drifted",
        "Window 2026-01-01 to 2026-01-02: 900 rows",
        "Version 3",
        "Findings: 5 ok, 6 alert",
        "A retrain is asked for: 2 of 3 windows drifted",
    )


def test_an_alert_without_a_window_is_the_runs() -> None:
    message = alerted("shop", "shop__monitor/r", {"verdict": "ALERT", "reason": "odd"}, {})
    assert message.about == "shop__monitor/r"
