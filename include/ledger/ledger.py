"""The ledger: requests, decisions (`include.ledger.wishes`), API keys (`include.ledger.keys`), and the append-only, hash-chained events of every model.

Owns the order of things: an event is written before the world is changed to match it. Everything is idempotent
by key, so that a retried task finds its own row instead of writing a second one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from include.ledger.chain import Event, append, canonical, find_event, iso, last, to_event, walk
from include.ledger.keys import ApiKeys
from include.ledger.queries import DECISION_KEY
from include.ledger.replicas import Replicas
from include.ledger.tables import EVENTS
from include.ledger.wishes import Wishes


@dataclass(frozen=True)
class Verification:
    """What a walk along the chains found; `problem` names the first broken row, None when all is well."""

    events: int
    problem: str | None

    @property
    def ok(self) -> bool:
        """Whether every row is what it was when it was written."""
        return self.problem is None


class Ledger(Wishes, ApiKeys, Replicas):
    """One ledger: `Ledger("sqlite:///ledger.db")` or `Ledger("postgresql://user:password@host/evergreen")`.

    Nothing is opened before the first call; tables are made when missing, safely when several processes start
    at once.

    Raises:
        ServiceError: From every method, when the database cannot be reached or refuses.
    """

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
        *,
        prefix: str = "",
    ) -> list[Event]:
        """Return the newest `limit` events, oldest first.

        Args:
            model: Only this model's; None for all.
            kind: Only this kind, or these kinds; None for all.
            limit: How many at most; None for all.
            prefix: Only events whose key begins with this.
        """
        query = select(EVENTS).order_by(EVENTS.c.id.desc())
        if model is not None:
            query = query.where(EVENTS.c.model == model)
        if kind is not None:
            kinds = [kind] if isinstance(kind, str) else list(kind)
            query = query.where(EVENTS.c.kind.in_(kinds))
        if prefix:
            query = query.where(EVENTS.c.key.startswith(prefix, autoescape=True))
        with self._db.read() as connection:
            rows = connection.execute(query.limit(limit)).mappings().all()
        return [to_event(row) for row in reversed(rows)]

    def is_replay(self, model: str, run_key: str) -> bool:
        """Tell whether a run that was decided about acts as of another time."""
        decided = self.find(model, f"{DECISION_KEY}{run_key}")
        return decided is not None and decided.payload.get("as_of") is not None

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
