"""What the ledger's tables say: the questions behind a decision, each one query."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, RowMapping, exists, literal, select, update

from include.ledger.arbiter import BY_MONITOR, WEEK, Decision, Request
from include.ledger.chain import iso
from include.ledger.tables import DECISIONS, EVENTS, REQUESTS

if TYPE_CHECKING:
    from include.spec.schema import Retrain


#: What the key of a decision's event begins with; the run's key follows.
DECISION_KEY = "decision:"


def find_freeze(connection: Connection, model: str) -> str | None:
    """Return why a model is frozen; None where it is not."""
    query = select(EVENTS).where(
        (EVENTS.c.model == model) & EVENTS.c.kind.in_(("freeze", "unfreeze"))
    )
    row = connection.execute(query.order_by(EVENTS.c.seq.desc()).limit(1)).mappings().first()
    if row is None or row["kind"] == "unfreeze":
        return None
    return str(json.loads(row["payload"]).get("reason") or "no reason given")


def find_requests(connection: Connection, model: str, pending: bool) -> list[Request]:
    """Return a model's requests, oldest first; only those that wait where `pending` is set."""
    query = select(REQUESTS).where(REQUESTS.c.model == model).order_by(REQUESTS.c.id)
    if pending:
        query = query.where(REQUESTS.c.run_key.is_(None))
    return [to_request(row) for row in connection.execute(query).mappings()]


def find_answered(connection: Connection, model: str, as_of: str | None) -> str | None:
    """Return what answered the monitor's newest request that waits no longer; None where there is none.

    Args:
        connection: Reads.
        model: The model.
        as_of: Only requests that concern a run of this time; see `Request.concerns`.
    """
    query = select(REQUESTS).where(
        REQUESTS.c.model == model,
        REQUESTS.c.source.in_(sorted(BY_MONITOR)),
        REQUESTS.c.run_key.is_not(None),
    )
    rows = connection.execute(query.order_by(REQUESTS.c.id.desc())).mappings()
    return next((r.run_key for r in map(to_request, rows) if r.concerns(as_of)), None)


def find_waiting_models(connection: Connection, before: str) -> list[str]:
    """Return the models that have a request from before an ISO time which still waits."""
    query = select(REQUESTS.c.model).where(REQUESTS.c.run_key.is_(None), REQUESTS.c.at < before)
    return [str(name) for name in connection.execute(query.distinct()).scalars()]


def to_request(row: RowMapping) -> Request:
    """Return a row as a request."""
    names = ("id", "model", "source", "reason", "key", "at", "run_key")
    given = json.loads(row["details"]).get("as_of")
    as_of = iso(datetime.fromisoformat(given)) if given else None
    return Request(**{name: row[name] for name in names}, as_of=as_of)


def close_requests(connection: Connection, ids: Collection[int], run_key: str) -> None:
    """Note which run answered requests, or that they are `EXPIRED`."""
    if ids:
        chosen = REQUESTS.c.id.in_(ids)
        connection.execute(update(REQUESTS).where(chosen).values(run_key=run_key))


def find_retrains(
    connection: Connection, model: str, now: datetime, retrain: Retrain, *, replayed: bool
) -> list[datetime]:
    """Return when the model was retrained unasked, as far back as any rule looks.

    A run counts once it has a verdict: one that found nothing new, or failed before, has trained nothing. Two
    runs of a model are never under way at once: its Dag runs one at a time.

    Args:
        connection: Reads.
        model: The model.
        now: The time, aware.
        retrain: The spec's section.
        replayed: Count the runs as of another time, which have a calendar of their own; else all others.
    """
    since = iso(now - max(WEEK, retrain.cooldown))
    verdicts = EVENTS.alias()
    has_verdict = exists().where(
        verdicts.c.model == model,
        verdicts.c.kind == "verdict",
        verdicts.c.actor == DECISIONS.c.run_key,
    )
    query = select(DECISIONS.c.at, EVENTS.c.payload).where(
        EVENTS.c.model == DECISIONS.c.model,
        EVENTS.c.key == literal(DECISION_KEY) + DECISIONS.c.run_key,
        DECISIONS.c.model == model,
        DECISIONS.c.verdict == "RETRAIN",
        DECISIONS.c.by_hand.is_(False),
        DECISIONS.c.at >= since,
        has_verdict,
    )
    return [
        datetime.fromisoformat(at)
        for at, payload in connection.execute(query)
        if ("as_of" in json.loads(payload)) == replayed
    ]


def find_decision(connection: Connection, model: str, run_key: str) -> Decision | None:
    """Return what was decided about a run; None where nothing was yet."""
    mine = (DECISIONS.c.model == model) & (DECISIONS.c.run_key == run_key)
    row = connection.execute(select(DECISIONS).where(mine)).mappings().first()
    if row is None:
        return None
    return Decision(row["verdict"], row["reason"], tuple(json.loads(row["request_ids"])))
