"""What people hear of a challenger that was sent home."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from include.ledger.ledger import Ledger
from include.notify.news import rejection, undoing

RUN = "shop__train/r2"


def rolled(ledger: Ledger, mode: str, outcome: str | None, actor: str = RUN) -> None:
    said = {"id": "r", "version": "2", "mode": mode, "share": 0.1, "step": 0}
    rows: list[tuple[str, dict[str, Any]]] = [("begin", {"champion": "1"})]
    if outcome:
        rows.append(("end", {"outcome": outcome, "reason": "it failed on 3 of 3 requests"}))
    for action, more in rows:
        payload = said | {"action": action} | more
        ledger.record("shop", "rollout", action, payload, actor, datetime.now(UTC))
    verdict = {"verdict": "PROMOTE", "reason": "better", "run_id": "m", "page": None}
    ledger.record("shop", "verdict", "verdict", verdict, RUN, datetime.now(UTC))


def links(run_id: str) -> dict[str, str]:
    return {"MLflow run": f"http://m/{run_id}"}


@pytest.mark.parametrize(
    ("mode", "tells", "silent", "kind"),
    [
        ("canary", undoing, rejection, "rollback"),
        ("ab", undoing, rejection, "rollback"),
        ("shadow", rejection, undoing, "rejection"),
    ],
)
def test_one_message_of_the_fitting_kind(
    ledger: Ledger, mode: str, tells: Any, silent: Any, kind: str
) -> None:
    rolled(ledger, mode, "STOPPED")
    message = tells(ledger, "shop", RUN, links)
    assert (message.kind, message.about) == (kind, f"{RUN}/2")
    assert message.title == "shop: version 2 goes home, version 1 stays"
    assert message.lines == ("it failed on 3 of 3 requests", "MLflow run: http://m/m")
    assert silent(ledger, "shop", RUN, links) is None


@pytest.mark.parametrize("outcome", [None, "PROMOTED", "ABANDONED"])
def test_nothing_where_nobody_was_sent_home(ledger: Ledger, outcome: str | None) -> None:
    rolled(ledger, "canary", outcome)
    assert undoing(ledger, "shop", RUN, links) is None


def test_nothing_of_another_runs_rollout(ledger: Ledger) -> None:
    rolled(ledger, "canary", "STOPPED", actor="shop__train/r1")
    assert undoing(ledger, "shop", RUN, links) is None
