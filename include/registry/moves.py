"""Moving the champion alias: written down first, then done, and finished by whoever comes next.

The ledger row is the intent, appended by compare-and-set; MLflow's aliases are its projection. A move that was
written but not yet done (a killed worker, MLflow away) is pending: the retry of the same move finishes it, and
so does whoever comes next. `applied` rows mark what is done, which is how an alias moved by hand in MLflow
(done, and yet MLflow says otherwise) is told from a pending move.

MLflow has no compare-and-set of its own: a writer that slept between its look and its write could put an old
target back. Each projection therefore looks at the ledger again afterwards and repeats itself until what it
wrote is still what the ledger says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from include.errors import ConflictError, ModelError
from include.ledger.chain import Event
from include.ledger.ledger import Ledger

if TYPE_CHECKING:
    from include.registry.gateway import Registry

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous_champion", "challenger"
PROMOTION, ROLLBACK, EXTERNAL = "promotion", "rollback", "external_move"
MOVES = (PROMOTION, ROLLBACK, EXTERNAL)
TRIES = 20


@dataclass(frozen=True)
class State:
    """What ledger and MLflow say right now."""

    head: int
    move: Event | None  # newest move
    pending: bool  # it is written, but perhaps not done
    reigns: tuple[str, ...]  # champions that a rollback can return to, the present one last
    aliases: dict[str, str]

    @property
    def written(self) -> str | None:
        """Champion by the ledger."""
        return None if self.move is None else self.move.payload["to"]

    @property
    def shown(self) -> str | None:
        """Champion by MLflow."""
        return self.aliases.get(CHAMPION)


@dataclass(frozen=True)
class Writer:
    """Who moves which model's aliases, and when."""

    registry: Registry
    ledger: Ledger
    name: str
    actor: str
    now: datetime

    def look(self) -> State:
        """Read the head first: whatever is appended after that makes the compare-and-set fail."""
        head = self.ledger.head(self.name)
        moves = self.ledger.events(self.name, MOVES)
        move = moves[-1] if moves else None
        pending = (
            move is not None
            and move.kind != EXTERNAL
            and self.ledger.find(self.name, _applied(move)) is None
        )
        aliases = self.registry.aliases(self.name)
        return State(head, move, pending, _reigns(moves), aliases)

    def record(
        self, kind: str, key: str, payload: dict[str, Any], after: int | None = None
    ) -> Event:
        """Append an event to the model's chain; see `Ledger.record`."""
        return self.ledger.record(self.name, kind, key, payload, self.actor, self.now, after=after)

    def adopt(self, state: State) -> None:
        """Write down that somebody moved the champion in MLflow itself."""
        found, reigns = state.shown, extend(state.reigns, EXTERNAL, state.shown)
        payload = {
            "from": state.written,
            "to": found,
            "previous": state.aliases.get(PREVIOUS) or before(reigns),
            "reason": f"found {CHAMPION} at {found} in MLflow, the ledger said {state.written}",
        }
        self.record(EXTERNAL, f"external:{state.head}", payload, state.head)

    def finish(self, state: State) -> State:
        """Do what is written but not done; return what is so afterwards."""
        done: Event | None = None
        while state.pending and state.move is not None:
            done = state.move
            if state.shown not in (done.payload["from"], done.payload["to"]):
                raise ConflictError(
                    f"MLflow model {self.name!r}",
                    f"alias {CHAMPION} must be at {done.payload['from']} or {done.payload['to']}, "
                    f"got {state.shown}: it was moved by hand",
                    "Decide who shall be champion, and promote or roll back to it.",
                )
            if self._project_newest(done):
                self.record("applied", _applied(done), {"move": done.seq})
            state = self.look()
        while done is not None and state.move is not None and state.move.seq != done.seq:
            done = state.move  # newer than what we wrote, which may have come late: write it again
            if done.kind != EXTERNAL:
                self._project_newest(done)
            state = self.look()
        return state

    def _project_newest(self, move: Event) -> bool:
        """Bring MLflow's aliases to what a move says; False when a newer move got in between."""
        try:
            self._project(move)
        except ConflictError:
            newest = self.look().move
            if newest is None or newest.seq == move.seq:
                raise
            return False
        return True

    def _project(self, move: Event) -> None:
        registry, to = self.registry, move.payload["to"]
        aliases = registry.aliases(self.name)
        registry.set_alias(self.name, CHAMPION, to, expected=aliases.get(CHAMPION))
        previous = move.payload["previous"]
        if previous is not None and registry.get_version(self.name, previous) is None:
            previous = None  # deleted since
        registry.set_alias(self.name, PREVIOUS, previous, expected=aliases.get(PREVIOUS))
        if to is not None and aliases.get(CHALLENGER) == to:
            registry.set_alias(self.name, CHALLENGER, None, expected=to)

    def move(
        self, kind: str, key: str, reason: str, target: Callable[[State], str | None]
    ) -> Event:
        """Write and do one move.

        Args:
            kind: promotion or rollback.
            key: Same for every attempt of the same move.
            reason: Why.
            target: Says, after checking its conditions against the state, which version shall be champion.
        """
        known = self.ledger.find(self.name, key)
        if known is not None:
            self.finish(self.look())
            return known
        for _ in range(TRIES):
            state = self.settled()
            to = target(state)
            if to is not None:
                self._check_version(to)
            if state.move is not None and to == state.written == state.shown:
                return state.move
            try:
                if state.shown not in (state.written, to):
                    self.adopt(state)
                    continue
                reigns = extend(state.reigns, kind, to)
                payload = {
                    "from": state.written,
                    "to": to,
                    "previous": before(reigns),
                    "reason": reason,
                }
                event = self.record(kind, key, payload, state.head)
            except ConflictError:
                continue  # the chain grew since we looked: look again
            self.finish(self.look())
            return event
        raise restless(self.name)

    def settled(self) -> State:
        """Return a state without a pending move, adopting one that was moved by hand in between."""
        for _ in range(TRIES):
            state = self.look()
            try:
                return self.finish(state)
            except ConflictError:
                try:
                    self.adopt(self.look())
                except ConflictError:
                    continue
        return self.look()

    def _check_version(self, version: str) -> None:
        """Refuse what serving would not load: a model that has versions of ours takes no other."""
        found = self.registry.get_version(self.name, version)
        if found is not None and found.digest is not None:
            return
        if found is None or any(other.digest for other in self.registry.versions(self.name)):
            got = "none" if found is None else "one registered by somebody else"
            raise ModelError(
                f"MLflow model {self.name!r}",
                f"version {version} must be one that Evergreen registered, got {got}",
                "Choose one of `evergreen history`.",
            )


def restless(name: str) -> ConflictError:
    """Return what is raised after the last try of a compare-and-set on a model's chain."""
    return ConflictError(
        f"Ledger of {name}",
        f"must stand still for a moment, got {TRIES} changes in a row",
        "Try again; if it stays so, look who writes to it.",
    )


def _applied(move: Event) -> str:
    return f"applied:{move.seq}"


def _reigns(moves: list[Event]) -> tuple[str, ...]:
    """Return the champions a rollback can return to, the present one last."""
    reigns: tuple[str, ...] = ()
    for move in moves:
        reigns = extend(reigns, move.kind, move.payload["to"])
    return reigns


def extend(reigns: tuple[str, ...], kind: str, to: str | None) -> tuple[str, ...]:
    """Return `reigns` after one more move: a promotion pushes, going back pops."""
    if to is None:
        return reigns[:-1]
    if to in reigns and (kind != PROMOTION or reigns[-1] == to):
        return reigns[: reigns.index(to) + 1]
    return (*(v for v in reigns if v != to), to)


def before(reigns: tuple[str, ...]) -> str | None:
    """Return the champion before the present one; None when there was none."""
    return reigns[-2] if len(reigns) > 1 else None
