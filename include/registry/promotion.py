"""Who is champion: promotion, rollback, undoing, nomination. Every move is a ledger row; see `moves` for the order."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from include.errors import ConflictError
from include.ledger.chain import Event
from include.ledger.ledger import Ledger
from include.registry.moves import (
    CHALLENGER,
    CHAMPION,
    EXTERNAL,
    PREVIOUS,
    PROMOTION,
    ROLLBACK,
    TRIES,
    State,
    Writer,
    before,
    extend,
)
from include.registry.pins import Pin, ensure_standing, ensure_unpinned
from include.registry.rollouts import ensure_not_sent_home

if TYPE_CHECKING:
    from include.registry.gateway import Registry


def promote(
    registry: Registry,
    ledger: Ledger,
    name: str,
    version: str,
    *,
    expected: str | None,
    key: str,
    reason: str,
    actor: str,
    now: datetime,
    rollout: str | None = None,
) -> Event:
    """Make a version champion, if the champion is still the one it was judged against.

    Args:
        registry: The registry.
        ledger: The ledger.
        name: The model.
        version: The version that won.
        expected: The champion it was judged against; None for no champion.
        key: Same for every attempt of this promotion.
        reason: Why, for people.
        actor: Who, as a user's name or a Dag run.
        now: The time, aware.
        rollout: Id of the rollout that led here, which must not have been stopped; None where none did.

    Returns:
        The promotion's event; for a version that is champion already, the event that made it so.

    Raises:
        PinnedError: A pin stands, and the version is not champion already; nothing was changed.
        ConflictError: Another version is champion, or the rollout was stopped; nothing was changed.
        ModelError: The version does not exist or is not Evergreen's.
        ServiceError: MLflow or the ledger is away. Calling again finishes what was begun.
    """

    def target(state: State) -> str:
        if state.shown != version:
            ensure_unpinned(ledger, name)
            if rollout is not None:
                ensure_not_sent_home(ledger, name, rollout)
        if state.shown in (expected, version):
            return version
        by_hand = "" if state.shown == state.written else f" (moved by hand from {state.written})"
        raise ConflictError(
            f"MLflow model {name!r}",
            f"alias {CHAMPION} must be at {expected}, got {state.shown}{by_hand}",
            "Evaluate the challenger against the present champion.",
        )

    return Writer(registry, ledger, name, actor, now).move(PROMOTION, key, reason, target)


def rollback(
    registry: Registry,
    ledger: Ledger,
    name: str,
    *,
    to: str | None,
    key: str,
    reason: str,
    actor: str,
    now: datetime,
) -> Event:
    """Return to an earlier champion.

    A rollback from 3 to 2 makes 1 the previous champion, so that a second rollback goes further back and not
    forward again.

    Args:
        registry: The registry.
        ledger: The ledger.
        name: The model.
        to: The version; None for the previous champion.
        key: Same for every attempt of this rollback.
        reason: Why, for people.
        actor: Who.
        now: The time, aware.

    Raises:
        ConflictError: There is no previous champion, or `to` is champion already.
        ModelError: The version does not exist or is not Evergreen's.
        ServiceError: MLflow or the ledger is away. Calling again finishes what was begun.
    """

    def target(state: State) -> str:
        return way_back(name, state, to)

    return Writer(registry, ledger, name, actor, now).move(ROLLBACK, key, reason, target)


def way_back(name: str, state: State, to: str | None) -> str:
    """Return the version a rollback goes to.

    Args:
        name: The model.
        state: What is so.
        to: The version asked for; None for the previous champion.

    Raises:
        ConflictError: There is no previous champion, or `to` is champion already.
    """
    reigns = extend(state.reigns, EXTERNAL, state.shown)
    goal = to or before(reigns) or state.aliases.get(PREVIOUS)
    if goal is None or goal == state.shown:
        raise ConflictError(
            f"MLflow model {name!r}",
            f"a rollback needs another version than the champion {state.shown}, "
            f"got {'no earlier champion' if goal is None else goal}",
            f"Name one with `--to`; `evergreen history {name}` lists them.",
        )
    return goal


def bring_back(
    registry: Registry,
    ledger: Ledger,
    name: str,
    pinned: Pin,
    *,
    key: str,
    reason: str,
    actor: str,
    now: datetime,
) -> Event:
    """Make the version of a pin champion; one that is champion already stays, and nothing is written.

    Args:
        registry: The registry.
        ledger: The ledger.
        name: The model.
        pinned: The pin, which must be the newest.
        key: Same for every attempt of this move.
        reason: Why, for people.
        actor: Who.
        now: The time, aware.

    Raises:
        ConflictError: Somebody pinned another version since, or released this one.
        ModelError: The version does not exist or is not Evergreen's.
        ServiceError: MLflow or the ledger is away. Calling again finishes what was begun.
    """

    def target(_: State) -> str:
        ensure_standing(ledger, name, pinned)
        return pinned.version

    return Writer(registry, ledger, name, actor, now).move(ROLLBACK, key, reason, target)


def undo(
    registry: Registry,
    ledger: Ledger,
    name: str,
    *,
    move: Event,
    key: str,
    reason: str,
    actor: str,
    now: datetime,
) -> Event:
    """Take one move back if nobody moved since; after a first promotion, no champion is left.

    Args:
        registry: The registry.
        ledger: The ledger.
        name: The model.
        move: What `promote` or `rollback` returned.
        key: Same for every attempt of this undoing.
        reason: Why, for people.
        actor: Who.
        now: The time, aware.

    Raises:
        ConflictError: Somebody moved since.
        ServiceError: MLflow or the ledger is away. Calling again finishes what was begun.
    """

    def target(state: State) -> str | None:
        if state.move is None or state.move.seq != move.seq or state.shown != state.written:
            raise ConflictError(
                f"MLflow model {name!r}",
                f"the last move must be event {move.seq} to be taken back, got a later one",
                "Leave it: somebody decided since.",
            )
        back: str | None = move.payload["from"]
        return back

    return Writer(registry, ledger, name, actor, now).move(ROLLBACK, key, reason, target)


def nominate(
    registry: Registry,
    ledger: Ledger,
    name: str,
    version: str,
    *,
    key: str,
    actor: str,
    now: datetime,
) -> Event:
    """Make a version the challenger; the newest nomination holds, and a champion never is challenger.

    Args:
        registry: The registry.
        ledger: The ledger.
        name: The model.
        version: The version.
        key: Same for every attempt of this nomination.
        actor: Who.
        now: The time, aware.
    """
    event = ledger.record(name, CHALLENGER, key, {"to": version}, actor, now)
    newest = ledger.events(name, CHALLENGER, limit=1)[-1]
    aliases = registry.aliases(name)
    if newest.seq == event.seq and aliases.get(CHAMPION) != version:
        registry.set_alias(name, CHALLENGER, version, expected=aliases.get(CHALLENGER))
    return event


def reconcile(
    registry: Registry, ledger: Ledger, name: str, *, actor: str, now: datetime
) -> Event | None:
    """Finish a pending move, and write down an alias that was moved by hand.

    Returns:
        The newest move; None for a model that never had a champion.
    """
    writer = Writer(registry, ledger, name, actor, now)
    for _ in range(TRIES):
        state = writer.settled()
        if state.shown == state.written:
            break
        try:
            writer.adopt(state)
        except ConflictError:
            continue
    return writer.look().move
