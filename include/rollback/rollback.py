"""Back to an earlier version, so that it stays: tested first, pinned, moved, and confirmed by who serves.

Owns the order, which is what makes a kill at any point harmless: nothing is written before the version has passed its
load test; the pin comes before the move, so that no promotion gets in between; and each step is found done by a
repeat. A repeat under the same key is the same rollback. A repeat under another one, by a person whose command died,
goes to the version that is pinned already, never further back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from include.errors import ConflictError, ModelError, ServiceError
from include.registry.moves import MOVES, TRIES, State, Writer, restless
from include.registry.pins import Pin, ensure_standing, find_pin, pin, pin_before, pin_of, release
from include.registry.promotion import bring_back, undo, way_back
from include.registry.rollouts import current, end, settle
from include.rollback.replicas import Replies, last_words, wait_for_replicas
from include.rollback.trial import load_test

if TYPE_CHECKING:
    from include.ledger.chain import Event
    from include.ledger.ledger import Ledger
    from include.registry.gateway import Registry

#: A replica polls every 1.5 s and then loads: a minute is long, and a person waits.
PATIENCE = timedelta(seconds=60)


@dataclass(frozen=True)
class Rollback:
    """Who asks for a rollback of what, and with which parts it is done.

    Args:
        registry: The registry.
        ledger: The ledger.
        name: The model.
        cache: Folder of downloaded versions.
        key: Same for every attempt of this rollback.
        reason: Why, for people.
        actor: Who.
        clock: The time, aware.
        sleep: Waits, in seconds.
        patience: How long to wait for the live replicas.
    """

    registry: Registry
    ledger: Ledger
    name: str
    cache: Path
    key: str
    reason: str
    actor: str
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]
    patience: timedelta = PATIENCE


@dataclass(frozen=True)
class RollbackResult:
    """A rollback that was made.

    Args:
        model: The model.
        version: Its champion now.
        previous: The one it replaced; None for no champion.
        move: The ledger's row of the move.
        replies: What the live replicas say; nobody is in it where none lives.
        seconds: From the first look to the last reply.
    """

    model: str
    version: str
    previous: str | None
    move: Event
    replies: Replies
    seconds: float

    @property
    def said(self) -> str:
        """Who confirmed it, and how long that took, as a sentence."""
        many = len(self.replies.answering)
        if not many and not self.replies.refused and not self.replies.behind:
            return f"No serving process lives, so nobody confirmed it ({self.seconds:.1f} s)."
        who = "1 serving process answers" if many == 1 else f"{many} serving processes answer"
        return f"{who} with it, {self.seconds:.1f} s after the question."

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "model": self.model,
            "from": self.previous,
            "to": self.version,
            "seq": self.move.seq,
            "replicas": list(self.replies.answering),
            "refused": dict(self.replies.refused),
            "behind": dict(self.replies.behind),
            "seconds": round(self.seconds, 2),
        }

    def require_all(self) -> None:
        """Raise unless every live replica answers with the version; the champion stays moved all the same.

        Raises:
            ModelError: A replica refuses the version.
            ServiceError: A replica has not followed in time; asking again waits again.
        """
        missing = {**self.replies.refused, **self.replies.behind}
        if not missing:
            return
        got = "; ".join(f"{replica}: {why}" for replica, why in sorted(missing.items()))
        many = len(missing) + len(self.replies.answering)
        kind = ModelError if self.replies.refused else ServiceError
        raise kind(
            f"model {self.model} version {self.version}",
            f"must be answered with by all {many} live replicas, got {len(missing)} that do not ({got})",
            "It is champion and pinned: mend or restart those replicas, they follow by themselves.",
        )


def roll_back(ask: Rollback, to: str | None = None) -> RollbackResult:
    """Bring an earlier version back and keep it there.

    Args:
        ask: What, why, by whom.
        to: The version. None: the one that is pinned, else the previous champion.

    Raises:
        ConflictError: There is no version to go back to, or somebody decided since.
        ModelError: The version failed its load test, and nothing was moved; or every live replica refused it, and
            the champion was moved back.
        ServiceError: MLflow or the ledger is away. Asking again under the same key finishes what was begun.
    """
    began = ask.clock()
    heard = last_words(ask.ledger, began)
    move = _moved(ask, to)
    version = str(move.payload["to"])
    if ask.ledger.find(ask.name, _back_key(ask)) is not None:
        _take_back(ask, move, "it was taken back before")
    replies = wait_for_replicas(
        ask.ledger,
        ask.name,
        version,
        heard=heard,
        moved=move.key == ask.key,
        check=lambda: _ensure_newest(ask, move),
        clock=ask.clock,
        sleep=ask.sleep,
        patience=ask.patience,
    )
    if replies.refused_by_all and move.key == ask.key:
        said = "; ".join(f"{replica}: {why}" for replica, why in sorted(replies.refused.items()))
        _take_back(ask, move, said)
    seconds = (ask.clock() - began).total_seconds()
    return RollbackResult(ask.name, version, move.payload["from"], move, replies, seconds)


def _moved(ask: Rollback, to: str | None) -> Event:
    """Test, pin, end a rollout, move; or find the move made, finish it, and leave alone what came later."""
    made = ask.ledger.find(ask.name, ask.key)
    if made is not None and ask.ledger.find(ask.name, _back_key(ask)) is None:
        _ensure_newest(ask, made)
    pinned = _pinned(ask, to)
    if made is None:
        ensure_standing(ask.ledger, ask.name, pinned)
        _end_rollout(ask, pinned)
    return bring_back(
        ask.registry,
        ask.ledger,
        ask.name,
        pinned,
        key=ask.key,
        reason=ask.reason,
        actor=ask.actor,
        now=ask.clock(),
    )


def _pinned(ask: Rollback, to: str | None) -> Pin:
    """Choose the version, test it and pin it, all three of one moment: a chain that grows meanwhile is read again."""
    known, tested = _known_pin(ask), set[str]()
    if known is not None:
        return known
    for _ in range(TRIES):
        state = Writer(ask.registry, ask.ledger, ask.name, ask.actor, ask.clock()).settled()
        standing = find_pin(ask.ledger, ask.name)
        version = _target(ask.name, state, standing, to)
        if standing is not None and version == standing.version == state.shown:
            return standing
        if version not in tested:
            load_test(ask.registry, ask.name, version, ask.cache)
            tested.add(version)
        try:
            return pin(
                ask.ledger,
                ask.name,
                version,
                reason=ask.reason,
                key=_pin_key(ask),
                actor=ask.actor,
                now=ask.clock(),
                after=state.head,
            )
        except ConflictError:
            continue
    raise restless(ask.name)


def _target(name: str, state: State, standing: Pin | None, to: str | None) -> str:
    if standing is not None and to in (None, standing.version):
        return standing.version
    return way_back(name, state, to)


def _end_rollout(ask: Rollback, pinned: Pin) -> None:
    """End what goes on; where nothing does, make sure that serving knows."""
    going_on = current(ask.ledger, ask.name)
    if going_on is None:
        settle(ask.registry, ask.ledger, ask.name)
        return
    end(
        ask.registry,
        ask.ledger,
        ask.name,
        going_on.rollout.id,
        outcome="STOPPED",
        reason=f"rolled back to version {pinned.version}: {ask.reason}",
        actor=ask.actor,
        now=ask.clock(),
    )


def _ensure_newest(ask: Rollback, move: Event) -> None:
    newest = ask.ledger.events(ask.name, MOVES, 1)[-1]
    if newest.seq != move.seq:
        raise ConflictError(
            f"model {ask.name}",
            f"must still have the champion of event {move.seq}, version {move.payload['to']}, got event "
            f"{newest.seq}: {newest.kind} to version {newest.payload['to']} by {newest.actor}",
            "Somebody decided since: look at the history, and decide anew.",
        )


def _take_back(ask: Rollback, move: Event, why: str) -> NoReturn:
    """Return to what the replicas answer with, and to the pin there was.

    Raises:
        ModelError: Always, once it is done.
    """
    version, before = move.payload["to"], move.payload["from"]
    where, rule = (
        f"model {ask.name} version {version}",
        f"must be loadable by serving, got a refusal of every replica ({why})",
    )
    reason, now = f"no replica takes version {version}", ask.clock()
    try:
        undo(
            ask.registry,
            ask.ledger,
            ask.name,
            move=move,
            key=_back_key(ask),
            reason=reason,
            actor=ask.actor,
            now=now,
        )
    except ConflictError as error:
        raise ConflictError(
            where,
            f"{rule}; and the move could not be taken back: {error.rule}",
            f"Look at `evergreen history {ask.name}` and decide who shall be champion.",
        ) from error
    _release(ask, before, reason, now)
    raise ModelError(
        where, rule, f"The champion is version {before} again: choose another version."
    )


def _release(ask: Rollback, champion: str | None, reason: str, now: datetime) -> None:
    """Release our pin, or put the one back that it replaced, if that held the champion of now."""
    ours = _known_pin(ask)
    standing = find_pin(ask.ledger, ask.name)
    if ours is None or standing is None or standing.seq != ours.seq:
        return
    earlier = pin_before(ask.ledger, ask.name, ours)
    back_to = earlier if earlier is not None and earlier.version == champion else None
    key = f"{ask.key}/{'unpin' if back_to is None else 'repin'}"
    try:
        release(
            ask.ledger,
            ask.name,
            ours,
            back_to=back_to,
            reason=reason,
            key=key,
            actor=ask.actor,
            now=now,
        )
    except ConflictError:
        standing = find_pin(ask.ledger, ask.name)
        if standing is not None and standing.seq == ours.seq:
            raise  # nobody decided otherwise: the chain did not hold still


def _known_pin(ask: Rollback) -> Pin | None:
    event = ask.ledger.find(ask.name, _pin_key(ask))
    return pin_of(event) if event is not None else None


def _pin_key(ask: Rollback) -> str:
    return f"{ask.key}/pin"


def _back_key(ask: Rollback) -> str:
    return f"{ask.key}/back"
