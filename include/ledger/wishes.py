"""Requests and decisions: who wants a retrain, and what the arbiter answered, each recorded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from include.ledger.arbiter import EXPIRED, Decision, Request, arbitrate, is_by_hand
from include.ledger.chain import append, canonical, iso
from include.ledger.queries import (
    DECISION_KEY,
    close_requests,
    find_answered,
    find_decision,
    find_freeze,
    find_requests,
    find_retrains,
    find_waiting_models,
    to_request,
)
from include.ledger.tables import DECISIONS, REQUESTS, Database

if TYPE_CHECKING:
    from include.spec.schema import Retrain


class Wishes:
    """The part of the ledger that answers wishes to retrain."""

    def __init__(self, url: str) -> None:
        self._db = Database(url)

    def request(
        self,
        model: str,
        source: str,
        reason: str,
        key: str,
        details: Mapping[str, Any],
        now: datetime,
        *,
        asked_by: str = "monitor",
    ) -> Request:
        """File a wish to retrain and record it as an event, or return the one that already has this key.

        Args:
            model: The model.
            source: Who wishes: drift, decay, or another trigger.
            reason: Why, for people.
            key: Same for every attempt to file the same wish.
            details: JSON values. One filed `as_of` another time says so here, in ISO; only runs of that time or a
                later one answer it.
            now: The time, aware.
            asked_by: Who files it.
        """
        mine = (REQUESTS.c.model == model) & (REQUESTS.c.key == key)
        body, at = canonical(details), iso(now)
        values = {"source": source, "reason": reason, "key": key, "details": body, "at": at}
        said = {"source": source, "reason": reason, "request": key, "details": details}
        with self._db.write(model) as connection:
            row = connection.execute(select(REQUESTS).where(mine)).mappings().first()
            if row is None:
                connection.execute(REQUESTS.insert().values(model=model, **values))
                row = connection.execute(select(REQUESTS).where(mine)).mappings().one()
                event = (model, "request", f"request:{key}", canonical(said), asked_by, at)
                append(connection, event, None)
        return to_request(row)

    def requests(self, model: str, *, pending: bool = True) -> list[Request]:
        """Return a model's requests, oldest first; only those nobody answered, unless told otherwise."""
        with self._db.read() as connection:
            return find_requests(connection, model, pending)

    def expire_requests(
        self,
        model: str | None,
        before: datetime,
        *,
        now: datetime | None = None,
        actor: str = "maintenance",
    ) -> list[Request]:
        """Give up the requests filed before a time that nobody answered, and record each as an event.

        Args:
            model: Whose; None for all models.
            before: Aware.
            now: The time, aware; None for the present.
            actor: Who gives them up.

        Returns:
            Those that this call gave up, oldest first per model.
        """
        limit, at, expired = iso(before), iso(now or datetime.now(UTC)), list[Request]()
        with self._db.read() as connection:
            models = find_waiting_models(connection, limit) if model is None else [model]
        for name in sorted(models):
            with self._db.write(name) as connection:
                stale = [r for r in find_requests(connection, name, True) if r.at < limit]
                for request in stale:
                    close_requests(connection, [request.id], EXPIRED)
                    said = {
                        "reason": f"nobody answered the request of {request.at[:16]}: {request.reason}",
                        "source": request.source,
                        "request": request.key,
                    }
                    key = f"request_expired:{request.key}"
                    row = (name, "request_expired", key, canonical(said), actor, at)
                    append(connection, row, None)
                expired += stale
        return expired

    def would(
        self,
        model: str,
        trigger: str,
        spec_retrain: Retrain,
        now: datetime,
        *,
        force: bool = False,
        wish: str | None = None,
        as_of: datetime | None = None,
    ) -> Decision:
        """Say how `decide` would answer a run now, and record nothing.

        Args:
            model: The model.
            trigger: schedule, data, manual, api, drift or decay.
            spec_retrain: The spec's `retrain` section.
            now: The time, aware.
            force: Go through a freeze.
            wish: Reason of a request that is taken for filed by `trigger`; None for those that are there.
            as_of: See `decide`.
        """
        assumed = [Request(0, model, trigger, wish, "", iso(now))] if wish is not None else []
        with self._db.read() as connection:
            return _weigh(connection, model, trigger, spec_retrain, (now, as_of), force, assumed)[0]

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
        as_of: datetime | None = None,
    ) -> Decision:
        """Decide whether a run may train, and record it; the same run gets the same answer again.

        Args:
            model: The model.
            run_key: The run; the same for all its attempts.
            trigger: schedule, data, manual, api, drift or decay.
            spec_retrain: The spec's `retrain` section.
            now: The time, aware: when the decision is recorded.
            force: Go through a freeze.
            wish: Why the caller wants a run, in the caller's words; kept with the decision.
            asked_by: Who wants it.
            as_of: The time the run acts as if it were, aware. Such a run answers requests that were filed as of
                that time or before, and cool-down and budget count the runs as of another time. None for a run of
                the present: it answers those of the present, and its own kind is counted.
        """
        at = iso(now)
        with self._db.write(model) as connection:
            known = find_decision(connection, model, run_key)
            if known is not None:
                return known
            times = (now, as_of)
            decision, pending = _weigh(connection, model, trigger, spec_retrain, times, force)
            connection.execute(
                DECISIONS.insert().values(
                    model=model,
                    run_key=run_key,
                    trigger=trigger,
                    by_hand=force or is_by_hand(trigger, pending),
                    verdict=decision.verdict,
                    reason=decision.reason,
                    request_ids=canonical(list(decision.request_ids)),
                    at=iso(as_of or now),
                )
            )
            close_requests(connection, decision.request_ids, run_key)
            payload = {
                "verdict": decision.verdict,
                "reason": decision.reason,
                "trigger": trigger,
                "wish": wish,
                "run": run_key,
                "requests": [r.key for r in pending if r.id in decision.request_ids],
            }
            if as_of is not None:
                payload["as_of"] = iso(as_of)
            row = (model, "decision", f"{DECISION_KEY}{run_key}", canonical(payload), asked_by, at)
            append(connection, row, None)
        return decision


def _weigh(
    connection: Connection,
    model: str,
    trigger: str,
    spec_retrain: Retrain,
    times: tuple[datetime, datetime | None],
    force: bool,
    assumed: Sequence[Request] = (),
) -> tuple[Decision, list[Request]]:
    """Return the arbiter's answer to what the ledger says, and the requests it is about.

    Args:
        connection: Reads.
        model: The model.
        trigger: What started the run.
        spec_retrain: The spec's section.
        times: The present, and the time the run acts as if it were.
        force: Go through a freeze.
        assumed: Requests that are taken for filed.
    """
    now, meant = times[1] or times[0], iso(times[1]) if times[1] else None
    waiting = [r for r in find_requests(connection, model, True) if r.concerns(meant)]
    pending = [*waiting, *assumed]
    decision = arbitrate(
        trigger=trigger,
        pending=pending,
        retrains=find_retrains(connection, model, now, spec_retrain, replayed=meant is not None),
        frozen=find_freeze(connection, model),
        retrain=spec_retrain,
        now=now,
        force=force,
        answered=find_answered(connection, model, meant),
    )
    return decision, pending
