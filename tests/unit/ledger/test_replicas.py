from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from include.errors import DataError

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
STATE = {"models": {"churn": {"champion": "7", "loaded": ["7", "8"], "failures": {}}}}


def report(ledger, id="host/1/a", state=STATE, now=NOW):
    return ledger.report_replica(id, state, started_at=NOW, now=now)


def live(ledger, now=NOW, **options):
    return [replica.id for replica in ledger.live_replicas(now, **options)]


def test_a_report_is_read_back(ledger):
    assert report(ledger)
    (replica,) = ledger.live_replicas(NOW + timedelta(seconds=14))
    assert (replica.id, replica.state) == ("host/1/a", STATE)
    assert replica.started_at == replica.seen_at == NOW.isoformat(timespec="microseconds")


def test_a_sign_of_life_keeps_what_was_said(ledger):
    report(ledger)
    assert report(ledger, state=None, now=NOW + timedelta(seconds=30))
    (replica,) = ledger.live_replicas(NOW + timedelta(seconds=40))
    assert replica.state == STATE
    assert replica.started_at < replica.seen_at


def test_a_change_replaces_what_was_said(ledger):
    report(ledger)
    report(ledger, state={"models": {}})
    assert [replica.state for replica in ledger.live_replicas(NOW)] == [{"models": {}}]


def test_a_sign_of_life_of_nobody_known_asks_for_the_state(ledger):
    assert not report(ledger, state=None)
    assert live(ledger) == []


def test_who_is_silent_ages_out_and_comes_back(ledger):
    report(ledger, "host/1/a")
    report(ledger, "host/2/b", now=NOW + timedelta(seconds=20))
    assert live(ledger, NOW + timedelta(seconds=20)) == ["host/2/b"]
    assert live(ledger, NOW + timedelta(seconds=20), within=timedelta(minutes=1)) == [
        "host/1/a",
        "host/2/b",
    ]
    report(ledger, "host/1/a", state=None, now=NOW + timedelta(seconds=21))
    assert live(ledger, NOW + timedelta(seconds=21)) == ["host/1/a", "host/2/b"]


def test_who_ends_is_forgotten_at_once(ledger):
    report(ledger, "host/1/a")
    report(ledger, "host/2/b")
    ledger.drop_replica("host/1/a")
    ledger.drop_replica("host/1/a")
    assert live(ledger) == ["host/2/b"]


def test_rows_of_killed_processes_do_not_pile_up(ledger):
    report(ledger, "host/1/a")
    later = NOW + timedelta(hours=2)
    report(ledger, "host/2/b", now=later)
    assert live(ledger, later, within=timedelta(days=1)) == ["host/2/b"]


def test_many_may_report_at_once(ledger):
    def beat(number):
        for _ in range(5):
            assert report(ledger, f"host/{number}/x")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(beat, range(6)))
    assert len(live(ledger)) == 6


def test_what_is_no_json_is_refused(ledger):
    with pytest.raises(DataError, match="must be JSON values"):
        report(ledger, state={"models": float("nan")})
