from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.errors import ServiceError
from include.ledger.ledger import Ledger
from include.registry.rollouts import Rollout
from include.serving.engine import Engine
from include.serving.replicas import Reporter, describe, replica_id
from include.serving.served import Failure, Served, Wanted, serve
from tests.unit.serving.registry import wait_for

CHURN = Wanted({"champion": "3", "challenger": "8"}, Rollout("r1", "8", "canary", 0.1))


class Table:
    """What the follower would hand out."""

    def __init__(self, *models: Served) -> None:
        self.now: Mapping[str, Served] = {}
        self.set(*models)

    def set(self, *models: Served) -> None:
        self.now = {served.name: served for served in models}

    def __call__(self) -> Mapping[str, Served]:
        return self.now


class Recording:
    """A ledger in memory that can be away."""

    def __init__(self) -> None:
        self.said: list[Mapping[str, Any] | None] = []
        self.rows: set[str] = set()
        self.events: list[tuple[str, str, str]] = []
        self.away = False

    def record(self, model: str, kind: str, key: str, *_: Any) -> None:
        self.events.append((model, kind, key))

    def report_replica(
        self, id: str, state: Mapping[str, Any] | None, *, started_at: datetime, now: datetime
    ) -> bool:
        if self.away:
            raise ServiceError("Ledger", "must take part, got nothing", "Start it.")
        self.said.append(state)
        if state is not None:
            self.rows.add(id)
        return id in self.rows

    def drop_replica(self, id: str) -> None:
        if self.away:
            raise ServiceError("Ledger", "must take part, got nothing", "Start it.")
        self.rows.discard(id)


@pytest.fixture
def champion(engine: Engine) -> Served:
    """Version 3 answers; 8 does not load."""
    failure = Failure("must load, got nothing", permanent=True, attempts=1, retry_at=0.0)
    return serve("churn", CHURN, {"3": engine}, {"8": failure}, None)


@pytest.fixture
def run() -> Iterator[Callable[..., Reporter]]:
    running: list[Reporter] = []

    def start(ledger: Any, table: Table, **options: Any) -> Reporter:
        reporter = Reporter(ledger, table, beat_seconds=0.02, **options)
        running.append(reporter)
        reporter.start()
        return reporter

    yield start
    for reporter in running:
        reporter.stop()


def test_it_says_what_answers_and_what_failed(champion: Served, engine: Engine) -> None:
    both = serve("churn", CHURN, {"3": engine, "8": Eight(engine)}, {}, None)  # type: ignore[dict-item]
    nothing = serve("empty", CHURN, {}, {}, None)
    said = describe({"churn": champion, "both": both, "empty": nothing})["models"]
    assert said == {
        "churn": {
            "champion": "3",
            "loaded": ["3"],
            "failures": {"8": {"error": "must load, got nothing", "permanent": True}},
            "rollout": None,
        },
        "both": {
            "champion": "3",
            "loaded": ["3", "8"],
            "failures": {},
            "rollout": {"id": "r1", "version": "8", "mode": "canary", "share": 0.1},
        },
    }


class Eight:
    """The engine under another version."""

    def __init__(self, engine: Engine) -> None:
        self.model, self.version = engine.model, "8"


def test_it_tells_a_change_at_once_and_says_nothing_twice(
    champion: Served, run: Callable[..., Reporter]
) -> None:
    ledger, table = Recording(), Table()
    run(ledger, table)
    wait_for(lambda: len(ledger.said) > 3)
    assert ledger.said[0] == {"models": {}}
    assert set(map(str, ledger.said[1:])) == {"None"}
    table.set(champion)
    wait_for(lambda: describe(table()) in ledger.said)
    table.set(champion)  # another table that says the same
    count = len(ledger.said)
    wait_for(lambda: len(ledger.said) > count + 3)
    assert ledger.said.count(describe(table())) == 1


def test_waking_it_is_enough(champion: Served) -> None:
    ledger, table = Recording(), Table()
    reporter = Reporter(ledger, table, beat_seconds=600)
    reporter.start()
    wait_for(lambda: ledger.said)
    table.set(champion)
    reporter.wake()
    wait_for(lambda: len(ledger.said) == 2)
    reporter.stop()
    assert ledger.rows == set()


def test_a_ledger_that_is_away_is_said_once_and_told_later(
    champion: Served, run: Callable[..., Reporter], caplog: pytest.LogCaptureFixture
) -> None:
    ledger, table = Recording(), Table()
    ledger.away = True
    with caplog.at_level(logging.INFO, "evergreen.serving"):
        reporter = run(ledger, table)
        wait_for(lambda: "ledger_lost" in caplog.text)
        table.set(champion)
        reporter.wake()
        ledger.away = False
        wait_for(lambda: "ledger_back" in caplog.text)
    assert ledger.said[-1] in (None, describe(table()))
    wait_for(lambda: describe(table()) in ledger.said)
    assert caplog.text.count("ledger_lost") == 1


def test_a_row_that_somebody_removed_is_written_again(
    champion: Served, run: Callable[..., Reporter]
) -> None:
    ledger, table = Recording(), Table(champion)
    reporter = run(ledger, table)
    wait_for(lambda: reporter.id in ledger.rows)
    ledger.rows.clear()
    wait_for(lambda: reporter.id in ledger.rows)


def test_a_real_ledger_forgets_who_ends(
    champion: Served, tmp_path: Path, run: Callable[..., Reporter]
) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    reporter = run(ledger, Table(champion))
    (replica,) = wait_for(lambda: ledger.live_replicas(datetime.now(UTC)))
    assert replica.id == reporter.id
    assert replica.state == describe({"churn": champion})
    reporter.stop()
    assert ledger.live_replicas(datetime.now(UTC)) == []


def test_a_refused_version_is_recorded_once_by_all_replicas(
    tmp_path: Path, run: Callable[..., Reporter]
) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    reporters = [run(ledger, Table()) for _ in range(2)]
    for reporter in reporters:
        reporter.refused("churn", "8", "must have its digest, got another")
    wait_for(lambda: not any(reporter._refused for reporter in reporters))
    (event,) = ledger.events("churn")
    assert (event.kind, event.actor, event.payload["version"]) == ("refused", "serving", "8")
    assert event.payload["error"] == "must have its digest, got another"
    assert ledger.verify("churn").ok


def test_a_refusal_is_recorded_when_the_ledger_is_back(run: Callable[..., Reporter]) -> None:
    ledger = Recording()
    ledger.away = True
    reporter = run(ledger, Table())
    reporter.refused("churn", "8", "must load, got nothing")
    wait_for(lambda: reporter._lost)
    ledger.away = False
    wait_for(lambda: ledger.events == [("churn", "refused", "refused:8")])


def test_no_two_processes_have_one_id() -> None:
    assert replica_id() != replica_id()
    assert len(replica_id()) <= 200
