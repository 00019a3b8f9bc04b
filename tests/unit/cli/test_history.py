from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from click.testing import CliRunner

from include.cli.group import evergreen
from include.ledger.ledger import Ledger
from include.settings import Settings
from include.spec.schema import Retrain

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def record_pass(ledger: Ledger, number: int, verdict: str, reason: str, version: str = "3") -> None:
    start = NOW.replace(hour=0) + timedelta(days=number)
    payload: dict[str, Any] = {
        "verdict": verdict,
        "reason": reason,
        "window": f"{start:%Y%m%dT%H%M%SZ}",
        "start": start.isoformat(),
        "end": (start + timedelta(days=1)).isoformat(),
        "version": version,
        "rows": 1200,
        "as_of": None,
    }
    key = f"monitor/{version}/{payload['window']}"
    at = NOW + timedelta(days=number)
    ledger.record("churn", "monitor", key, payload, "churn__monitor/m", at)


def lines(*arguments: str) -> list[str]:
    result = CliRunner().invoke(evergreen, ["history", "churn", *arguments])
    assert result.exit_code == 0, result.output
    return [line.strip() for line in result.stdout.splitlines()]


def test_a_retrain_from_the_first_sign_to_the_answer(settings: Settings) -> None:
    ledger = Ledger(settings.ledger_dsn)
    record_pass(ledger, 0, "ALERT", "6 of 11 features drifted")
    key = "drift/3/20260302T000000Z"
    details = {"version": "3", "as_of": NOW.isoformat()}
    ledger.request("churn", "drift", "6 of 11", key, details, NOW, asked_by="churn__monitor/m")
    rules = Retrain()
    for run in ("churn__train/retrain__3__w", "churn__train/retrain__3__v"):
        ledger.decide("churn", run_key=run, trigger="drift", spec_retrain=rules, now=NOW, as_of=NOW)
    ledger.request("churn", "decay", "auc 0.7", "decay/3/w", {}, NOW)
    ledger.expire_requests("churn", NOW + timedelta(days=9), now=NOW + timedelta(days=9))
    told = lines()
    assert told[0] == (
        "2026-03-02 12:00:00  monitor     ALERT, version 3, 2026-03-02 00:00 to 2026-03-03 00:00, "
        "1,200 rows: 6 of 11 features drifted"
    )
    assert told[2] == "2026-03-02 12:00:00  request     drift: 6 of 11"
    assert told[3] == "by churn__monitor/m"
    assert told[4].endswith(
        "decision    RETRAIN: triggered by drift; drift: 6 of 11 (as of 2026-03-02 12:00)"
    )
    assert told[6].endswith(
        "decision    SKIP: the monitor's request was answered already by churn__train/retrain__3__w "
        "(as of 2026-03-02 12:00)"
    )
    assert told[10].endswith(
        "request expired  decay: nobody answered the request of 2026-03-02T12:00: auc 0.7"
    )


def test_quiet_passes_in_a_row_are_one_line(settings: Settings) -> None:
    ledger = Ledger(settings.ledger_dsn)
    for number in range(40):
        record_pass(ledger, number, "OK", "nothing found in 20 checks")
    record_pass(ledger, 40, "WARN", "tenure 0.15")
    record_pass(ledger, 41, "WARN", "tenure 0.16")
    record_pass(ledger, 42, "OK", "nothing found in 20 checks")
    record_pass(ledger, 43, "OK", "nothing found in 20 checks", version="4")
    told = lines()
    assert told[0].startswith("2026-04-10 12:00:00  monitor     40 windows in a row OK, version 3")
    assert [line for line in told if "WARN" in line] == [told[1], told[3]]
    assert "1 windows" not in "".join(told)
    assert len([line for line in told if "OK" in line]) == 3
    assert lines("-n", "1")[0].endswith("1,200 rows: nothing found in 20 checks")
    shown = json.loads("\n".join(lines("--json", "-n", "44")))
    assert len(shown["events"]) == 44  # programs get every one
