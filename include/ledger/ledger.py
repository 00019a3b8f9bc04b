"""The ledger: requests, decisions, and the append-only, hash-chained events of every model.

Owns the order of things: an event is written before the world is changed to match it. Everything is idempotent
by key, so that a retried task finds its own row instead of writing a second one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, RowMapping, exists, select, update

from include.ledger.arbiter import WEEK, Decision, Request, arbitrate, is_by_hand
from include.ledger.chain import Event, append, canonical, find_event, iso, last, to_event, walk
from include.ledger.tables import DECISIONS, EVENTS, REQUESTS, Database

if TYPE_CHECKING:
    from include.spec.schema import Retrain


@dataclass(frozen=True)
class Verification:
    """What a walk along the chains found; `problem` names the first broken row, None when all is well."""

    events: int
    problem: str | None

    @property
    def ok(self) -> bool:
        """Whether every row is what it was when it was written."""
        return self.problem is None


class Ledger:
    """One ledger: `Ledger("sqlite:///ledger.db")` or `Ledger("postgresql://user:password@host/evergreen")`.

    Nothing is opened before the first call; tables are made when missing, safely when several processes start
    at once.

    Raises:
        ServiceError: From every method, when the database cannot be reached or refuses.
    """

    def __init__(self, url: str) -> None:
        self._db = Database(url)

    # --- events -----------------------------------------------------------------------------------

    def record(
        self,
        model: str,
        kind: str,
        key: str,
        payload: Mapping[str, Any],
        actor: str,
        now: datetime,
        *,
        after: int | None = None,
    ) -> Event:
        """Append an event, or return the one that already has this key.

        Args:
            model: Whose chain.
            kind: What happened: promotion, rollback, approval, freeze, ...
            key: Same for every attempt to record the same thing.
            payload: JSON values.
            actor: Who did it: a user's name, or a Dag run.
            now: The time, aware.
            after: Compare-and-set: append only if this is the chain's last `seq` (0 for an empty chain).

        Raises:
            ConflictError: The chain has moved past `after`, or the key belongs to an event of another kind.
        """
        body, at = canonical(payload), iso(now)
        with self._db.write(model) as connection:
            return append(connection, (model, kind, key, body, actor, at), after)

    def find(self, model: str, key: str) -> Event | None:
        """Return the event with this key, or None."""
        with self._db.read() as connection:
            return find_event(connection, model, key)

    def head(self, model: str) -> int:
        """Return the last `seq` of a model's chain, 0 when it is empty: what `record(after=...)` compares."""
        with self._db.read() as connection:
            return last(connection, model)[0]

    def events(
        self,
        model: str | None = None,
        kind: str | Collection[str] | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        """Return the newest `limit` events, oldest first.

        Args:
            model: Only this model's; None for all.
            kind: Only this kind, or these kinds; None for all.
            limit: How many at most; None for all.
        """
        query = select(EVENTS).order_by(EVENTS.c.id.desc())
        if model is not None:
            query = query.where(EVENTS.c.model == model)
        if kind is not None:
            kinds = [kind] if isinstance(kind, str) else list(kind)
            query = query.where(EVENTS.c.kind.in_(kinds))
        with self._db.read() as connection:
            rows = connection.execute(query.limit(limit)).mappings().all()
        return [to_event(row) for row in reversed(rows)]

    def verify(self, model: str | None = None) -> Verification:
        """Walk the chains and recompute every hash.

        A chain cut off at its end cannot be told from a shorter one by itself; keep `head` elsewhere for that.
        """
        query = select(EVENTS).order_by(EVENTS.c.model, EVENTS.c.seq)
        if model is not None:
            query = query.where(EVENTS.c.model == model)
        count = 0
        with self._db.read() as connection:
            rows = connection.execution_options(yield_per=1000).execute(query).mappings()
            for problem in walk(rows):
                if problem is not None:
                    return Verification(count, problem)
                count += 1
        return Verification(count, None)

    def freeze(self, model: str, reason: str, *, key: str, actor: str, now: datetime) -> Event:
        """Stop retraining a model until `unfreeze`; runs that are forced still go through."""
        return self.record(model, "freeze", key, {"reason": reason}, actor, now)

    def unfreeze(self, model: str, reason: str, *, key: str, actor: str, now: datetime) -> Event:
        """Let a frozen model be retrained again."""
        return self.record(model, "unfreeze", key, {"reason": reason}, actor, now)

    # --- requests and decisions -------------------------------------------------------------------

    def request(
        self,
        model: str,
        source: str,
        reason: str,
        key: str,
        details: Mapping[str, Any],
        now: datetime,
    ) -> Request:
        """File a wish to retrain, or return the one that already has this key."""
        mine = (REQUESTS.c.model == model) & (REQUESTS.c.key == key)
        body, at = canonical(details), iso(now)
        with self._db.write(model) as connection:
            row = connection.execute(select(REQUESTS).where(mine)).mappings().first()
            if row is None:
                connection.execute(
                    REQUESTS.insert().values(
                        model=model, source=source, reason=reason, key=key, details=body, at=at
                    )
                )
                row = connection.execute(select(REQUESTS).where(mine)).mappings().one()
        return _request(row)

    def requests(self, model: str, *, pending: bool = True) -> list[Request]:
        """Return a model's requests, oldest first; only those nobody answered, unless told otherwise."""
        with self._db.read() as connection:
            return _requests(connection, model, pending)

    def decide(
        self,
        model: str,
        *,
        run_key: str,
        trigger: str,
        spec_retrain: Retrain,
        now: datetime,
        force: bool = False,
        wish: str = "",
        asked_by: str = "arbiter",
    ) -> Decision:
        """Decide whether a run may train, and record it; the same run gets the same answer again.

        Args:
            model: The model.
            run_key: The run; the same for all its attempts.
            trigger: schedule, data, manual, api, drift or decay.
            spec_retrain: The spec's `retrain` section.
            now: The time, aware.
            force: Go through a freeze.
            wish: Why the caller wants a run, in the caller's words; kept with the decision.
            asked_by: Who wants it.
        """
        at = iso(now)
        with self._db.write(model) as connection:
            known = _decision(connection, model, run_key)
            if known is not None:
                return known
            pending = _requests(connection, model, True)
            decision = arbitrate(
                trigger=trigger,
                pending=pending,
                retrains=_retrains(connection, model, now, spec_retrain),
                frozen=_frozen(connection, model),
                retrain=spec_retrain,
                now=now,
                force=force,
            )
            connection.execute(
                DECISIONS.insert().values(
                    model=model,
                    run_key=run_key,
                    trigger=trigger,
                    by_hand=force or is_by_hand(trigger, pending),
                    verdict=decision.verdict,
                    reason=decision.reason,
                    request_ids=canonical(list(decision.request_ids)),
                    at=at,
                )
            )
            if decision.request_ids:
                answered = REQUESTS.c.id.in_(decision.request_ids)
                connection.execute(update(REQUESTS).where(answered).values(run_key=run_key))
            payload = {
                "verdict": decision.verdict,
                "reason": decision.reason,
                "trigger": trigger,
                "wish": wish,
                "run": run_key,
                "requests": [r.key for r in pending if r.id in decision.request_ids],
            }
            row = (model, "decision", f"decision:{run_key}", canonical(payload), asked_by, at)
            append(connection, row, None)
        return decision


def _frozen(connection: Connection, model: str) -> str | None:
    query = select(EVENTS).where(
        (EVENTS.c.model == model) & EVENTS.c.kind.in_(("freeze", "unfreeze"))
    )
    row = connection.execute(query.order_by(EVENTS.c.seq.desc()).limit(1)).mappings().first()
    if row is None or row["kind"] == "unfreeze":
        return None
    return str(json.loads(row["payload"]).get("reason") or "no reason given")


def _requests(connection: Connection, model: str, pending: bool) -> list[Request]:
    query = select(REQUESTS).where(REQUESTS.c.model == model).order_by(REQUESTS.c.id)
    if pending:
        query = query.where(REQUESTS.c.run_key.is_(None))
    return [_request(row) for row in connection.execute(query).mappings()]


def _request(row: RowMapping) -> Request:
    names = ("id", "model", "source", "reason", "key", "at", "run_key")
    return Request(**{name: row[name] for name in names})


def _retrains(
    connection: Connection, model: str, now: datetime, retrain: Retrain
) -> list[datetime]:
    """Return when the model was retrained unasked, as far back as any rule looks.

    A run counts once it has a verdict: one that found nothing new, or failed before, has trained nothing. Two
    runs of a model are never under way at once: its Dag runs one at a time.
    """
    since = iso(now - max(WEEK, retrain.cooldown))
    has_verdict = exists().where(
        EVENTS.c.model == model,
        EVENTS.c.kind == "verdict",
        EVENTS.c.actor == DECISIONS.c.run_key,
    )
    query = select(DECISIONS.c.at).where(
        DECISIONS.c.model == model,
        DECISIONS.c.verdict == "RETRAIN",
        DECISIONS.c.by_hand.is_(False),
        DECISIONS.c.at >= since,
        has_verdict,
    )
    return [datetime.fromisoformat(at) for at in connection.execute(query).scalars()]


def _decision(connection: Connection, model: str, run_key: str) -> Decision | None:
    mine = (DECISIONS.c.model == model) & (DECISIONS.c.run_key == run_key)
    row = connection.execute(select(DECISIONS).where(mine)).mappings().first()
    if row is None:
        return None
    return Decision(row["verdict"], row["reason"], tuple(json.loads(row["request_ids"])))
