"""Which serving processes live, and what each of them says it has loaded.

Owns the table of replicas. It is no history: a row is overwritten by its own process only, and who has not been
heard of for a while does not count, however it ended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select, update

from include.ledger.chain import canonical, iso
from include.ledger.tables import REPLICAS, Database

_FORGOTTEN = timedelta(hours=1)  # after which the row of a killed process is removed


@dataclass(frozen=True)
class Replica:
    """One serving process, as it last spoke.

    Args:
        id: Its own, never used again by another process.
        started_at: When it began, ISO 8601 in UTC.
        seen_at: When it last spoke, ISO 8601 in UTC.
        state: What it said: `{"models": {name: {"champion", "loaded", "failures", "rollout"}}}`.
    """

    id: str
    started_at: str
    seen_at: str
    state: Mapping[str, Any]


class Replicas:
    """The part of the ledger that knows the serving processes."""

    _db: Database

    def report_replica(
        self, id: str, state: Mapping[str, Any] | None, *, started_at: datetime, now: datetime
    ) -> bool:
        """Note that a replica lives, and what it says.

        Args:
            id: The replica.
            state: JSON values; None: what it said last still holds.
            started_at: When it began, aware.
            now: The time, aware.

        Returns:
            Whether the ledger knows its state now: not where `state` is None and there is no row to keep.
        """
        at, mine = iso(now), REPLICAS.c.id == id
        said = {} if state is None else {"state": canonical(state)}
        with self._db.write(f"replica {id}") as connection:
            found = connection.execute(update(REPLICAS).where(mine).values(seen_at=at, **said))
            if found.rowcount or not said:
                return bool(found.rowcount)
            values = {"id": id, "started_at": iso(started_at), "seen_at": at, **said}
            connection.execute(REPLICAS.insert().values(values))
            gone = REPLICAS.c.seen_at < iso(now - _FORGOTTEN)
            connection.execute(delete(REPLICAS).where(gone))
        return True

    def drop_replica(self, id: str) -> None:
        """Forget a replica that ends; one the ledger does not know is fine."""
        with self._db.write(f"replica {id}") as connection:
            connection.execute(delete(REPLICAS).where(REPLICAS.c.id == id))

    def live_replicas(
        self, now: datetime, *, within: timedelta = timedelta(seconds=15)
    ) -> list[Replica]:
        """Return the replicas heard of within a span before `now`, the oldest first.

        Args:
            now: The time, aware; the replicas write their own clock's, so the clocks must agree to a few seconds.
            within: How long a silent replica still counts; replicas speak every 5 s.
        """
        query = select(REPLICAS).where(REPLICAS.c.seen_at >= iso(now - within))
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(REPLICAS.c.started_at, REPLICAS.c.id)).all()
        return [Replica(r.id, r.started_at, r.seen_at, json.loads(r.state)) for r in rows]
