"""The rollout of a challenger: which version takes which share of a model's traffic, and where that stands.

The ledger's rows of kind `rollout` are the intent, appended by compare-and-set; the registered model's tag is their
projection, by which every serving process learns of it in the same poll as the aliases. A row that was written
while its tag was not (a killed worker, MLflow away) is made good by whoever comes next: every call here ends
with `settle`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from include.errors import ConflictError
from include.registry.moves import MOVES, PROMOTION, TRIES, restless
from include.registry.pins import ensure_unpinned

if TYPE_CHECKING:
    from include.ledger.chain import Event
    from include.ledger.ledger import Ledger
    from include.registry.gateway import Registry

Mode = Literal["canary", "shadow", "ab"]
#: ABANDONED: nobody judged it, its run ended; the only one that the same run may begin again.
Outcome = Literal["PROMOTED", "STOPPED", "SUPERSEDED", "ABANDONED"]
#: Decided against the challenger: nothing of this rollout may be promoted any more.
SENT_HOME: tuple[Outcome, ...] = ("STOPPED", "SUPERSEDED")
TAG_ROLLOUT = "evergreen.rollout"
ROLLOUT = "rollout"
_CHALLENGER = "challenger"  # the alias, and the ledger's kind of a nomination


@dataclass(frozen=True)
class Rollout:
    """How a challenger takes part in a model's traffic right now.

    Args:
        id: Same for all steps of one rollout; the salt of the routing.
        version: The challenger.
        mode: canary and ab: it answers its share; shadow: it answers nobody, its share of requests is mirrored.
        share: 0 to 1.
    """

    id: str
    version: str
    mode: Mode
    share: float

    def to_tag(self) -> str:
        """Return the tag's text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_tag(cls, text: str | None) -> Rollout | None:
        """Read a tag; None for none, and for one that is no rollout: then the champion answers everybody."""
        try:
            values = json.loads(text or "null")
            rollout = cls(
                str(values["id"]), str(values["version"]), values["mode"], float(values["share"])
            )
        except (ValueError, KeyError, TypeError):
            return None
        sane = rollout.mode in get_args(Mode) and 0 <= rollout.share <= 1
        return rollout if sane else None


@dataclass(frozen=True)
class Standing:
    """Where a rollout stands by the ledger.

    Attributes:
        rollout: With the share of the present step.
        champion: The version it is compared with.
        actor: Who began it.
        began: When.
        step: Place of the present step; -1 before the first.
        since: When the present step began.
        wish: Who wants it promoted without further judging, and why; None where nobody said so.
        outcome: How it ended; None while it goes on.
        reason: Why it ended.
        ended: When; None while it goes on.
        begun: The ledger's row of its beginning.
        seq: The ledger's newest row of it.
    """

    rollout: Rollout
    champion: str | None
    actor: str
    began: datetime
    step: int
    since: datetime
    wish: tuple[str, str] | None
    outcome: Outcome | None
    reason: str
    ended: datetime | None
    begun: int
    seq: int

    @property
    def active(self) -> bool:
        """Whether it goes on."""
        return self.outcome is None


# --- reading ------------------------------------------------------------------------------------------------


def latest(ledger: Ledger, name: str, rollout_id: str | None = None) -> Standing | None:
    """Return a model's newest rollout, ended or not; with an id, that one; None when there is none."""
    return _fold(ledger.events(name, ROLLOUT), rollout_id)


def current(ledger: Ledger, name: str) -> Standing | None:
    """Return the rollout that goes on; None when none does."""
    newest = latest(ledger, name)
    return newest if newest is not None and newest.active else None


def find_promotion(ledger: Ledger, name: str, standing: Standing) -> Event | None:
    """Return the move that made the challenger champion since it began; None where none did, or it was undone."""
    moves = ledger.events(name, MOVES, 1)
    if not moves or moves[-1].seq < standing.begun:
        return None
    said = moves[-1]
    promoted = said.kind == PROMOTION and said.payload["to"] == standing.rollout.version
    return said if promoted else None


def _fold(events: Iterable[Event], rollout_id: str | None) -> Standing | None:
    found: Standing | None = None
    for event in events:
        said, at = event.payload, datetime.fromisoformat(event.at)
        if rollout_id is not None and said["id"] != rollout_id:
            continue
        if said["action"] == "begin":
            rollout = Rollout(said["id"], said["version"], said["mode"], said["share"])
            champion, actor = said["champion"], event.actor
            seq = event.seq
            found = Standing(rollout, champion, actor, at, -1, at, None, None, "", None, seq, seq)
        elif found is not None:
            found = replace(found, seq=event.seq, **_change(found, event, at))
    return found


def _change(before: Standing, event: Event, at: datetime) -> dict[str, Any]:
    said = event.payload
    if said["action"] == "step":
        moved = replace(before.rollout, share=said["share"])
        return {"rollout": moved, "step": said["step"], "since": at}
    if said["action"] == "promote":
        return {"wish": (event.actor, said["reason"])}
    return {"outcome": said["outcome"], "reason": said["reason"], "ended": at}


# --- writing ------------------------------------------------------------------------------------------------


def begin(
    registry: Registry,
    ledger: Ledger,
    name: str,
    rollout: Rollout,
    *,
    champion: str | None,
    actor: str,
    now: datetime,
) -> Standing:
    """Begin a rollout, or find it begun.

    Args:
        registry: The registry.
        ledger: The ledger.
        name: The model.
        rollout: What begins; its id is the same for every attempt.
        champion: The version it is compared with.
        actor: Who, as a user's name or a Dag run.
        now: The time, aware.

    Raises:
        PinnedError: A pin stands.
        ConflictError: Another one goes on, or this one was decided before.
        ServiceError: MLflow or the ledger is away. Calling again finishes what was begun.
    """

    def wanted(newest: Standing | None) -> dict[str, Any] | None:
        if newest is not None and newest.rollout.id == rollout.id:
            if newest.active:
                return None
            if newest.outcome != "ABANDONED":
                raise _conflict(name, f"goes on only until it is decided, got {_said(newest)}")
        elif newest is not None and newest.active:
            raise _conflict(
                name, f"must be the only one, got version {newest.rollout.version} under way"
            )
        ensure_unpinned(ledger, name)
        return {"action": "begin", **asdict(rollout), "champion": champion, "step": -1}

    return _write(registry, ledger, name, rollout.id, wanted, actor, now)


def step(
    registry: Registry,
    ledger: Ledger,
    name: str,
    rollout_id: str,
    *,
    number: int,
    share: float,
    actor: str,
    now: datetime,
) -> Standing:
    """Give the challenger the share of a step; a step that was reached or passed before changes nothing.

    Args:
        registry: The registry.
        ledger: The ledger.
        name: The model.
        rollout_id: The rollout.
        number: Place of the step, from 0.
        share: 0 to 1.
        actor: Who.
        now: The time, aware: the step's beginning.

    Raises:
        ConflictError: The rollout does not go on.
        ServiceError: MLflow or the ledger is away. Calling again finishes what was begun.
    """

    def wanted(newest: Standing | None) -> dict[str, Any] | None:
        if newest is None or newest.rollout.id != rollout_id or not newest.active:
            raise _conflict(name, f"must go on to take a step, got {_said(newest)}")
        if newest.step >= number:
            return None
        said = asdict(newest.rollout) | {"share": share}
        return {"action": "step", **said, "step": number}

    return _write(registry, ledger, name, rollout_id, wanted, actor, now)


def end(
    registry: Registry,
    ledger: Ledger,
    name: str,
    rollout_id: str,
    *,
    outcome: Outcome,
    reason: str,
    actor: str,
    now: datetime,
) -> Standing | None:
    """End a rollout; one that has ended keeps its outcome, unless its run promoted it after all.

    What the champion's moves say goes first: a version that was made champion since, and still is, ends as
    PROMOTED whoever ends it; a killed attempt may have come no further than its move.

    Args:
        registry: The registry.
        ledger: The ledger.
        name: The model.
        rollout_id: The rollout.
        outcome: How it ended.
        reason: Why, for people.
        actor: Who.
        now: The time, aware.

    Returns:
        How it stands; None where it never began.

    Raises:
        ServiceError: MLflow or the ledger is away. Calling again finishes what was begun.
    """

    def wanted(newest: Standing | None) -> dict[str, Any] | None:
        if newest is None or newest.rollout.id != rollout_id:
            return None
        if not newest.active and (newest.outcome, outcome) != ("ABANDONED", "PROMOTED"):
            return None
        said = {"outcome": outcome, "reason": reason, "step": newest.step}
        if promotion := find_promotion(ledger, name, newest):
            said |= {"outcome": "PROMOTED", "reason": promotion.payload["reason"]}
        return {"action": "end", **asdict(newest.rollout), **said}

    return _written(registry, ledger, name, rollout_id, wanted, actor, now)


def wish_promotion(
    ledger: Ledger, name: str, *, reason: str, actor: str, now: datetime
) -> Standing:
    """Write down that a person wants the rollout under way to end in a promotion; its run does it.

    Raises:
        ConflictError: None goes on.
    """

    def wanted(newest: Standing | None) -> dict[str, Any] | None:
        if newest is None or not newest.active:
            raise _conflict(name, f"must go on to be promoted, got {_said(newest)}")
        if newest.wish is not None:
            return None
        return {"action": "promote", **asdict(newest.rollout), "reason": reason}

    _append(ledger, name, wanted, actor, now)
    found = current(ledger, name)
    if found is None:
        raise _conflict(name, "must go on to be promoted, got its end in this moment")
    return found


def settle(registry: Registry, ledger: Ledger, name: str) -> None:
    """Bring the registry to what the ledger says of a model's rollout. Safe to repeat.

    The challenger that was sent home loses its alias, unless it was nominated again since.
    """
    for _ in range(TRIES):
        newest = latest(ledger, name)
        going_on = newest is not None and newest.active
        _write_tag(registry, name, newest.rollout.to_tag() if newest and going_on else None)
        if newest is not None and newest.outcome in SENT_HOME:
            _retire(registry, ledger, name, newest)
        if (
            latest(ledger, name) == newest
        ):  # else somebody wrote in between: ours may have come late
            return
    raise restless(name)


def ensure_not_sent_home(ledger: Ledger, name: str, rollout_id: str) -> None:
    """Refuse to promote what was stopped; for reading and writing as with `pins.ensure_unpinned`.

    Raises:
        ConflictError: By whom, and why.
    """
    standing = latest(ledger, name, rollout_id)
    if standing is not None and standing.outcome in SENT_HOME:
        raise _conflict(name, f"must not be stopped to be promoted, got {_said(standing)}")


# --- inside -------------------------------------------------------------------------------------------------

_Wanted = Callable[[Standing | None], dict[str, Any] | None]


def _write(
    registry: Registry,
    ledger: Ledger,
    name: str,
    rollout_id: str,
    wanted: _Wanted,
    actor: str,
    now: datetime,
) -> Standing:
    found = _written(registry, ledger, name, rollout_id, wanted, actor, now)
    if found is None:
        raise _conflict(name, f"must be in the ledger, got no row of {rollout_id}")
    return found


def _written(
    registry: Registry,
    ledger: Ledger,
    name: str,
    rollout_id: str,
    wanted: _Wanted,
    actor: str,
    now: datetime,
) -> Standing | None:
    _append(ledger, name, wanted, actor, now)
    settle(registry, ledger, name)
    return latest(ledger, name, rollout_id)


def _append(ledger: Ledger, name: str, wanted: _Wanted, actor: str, now: datetime) -> None:
    """Write the row that is wanted after the chain's last one, if one is wanted."""
    for _ in range(TRIES):
        head = ledger.head(name)  # first: whatever is appended after that makes the row fail
        said = wanted(latest(ledger, name))
        if said is None:
            return
        key = f"{ROLLOUT}/{said['id']}/{said['action']}/{head}"
        try:
            ledger.record(name, ROLLOUT, key, said, actor, now, after=head)
        except ConflictError:
            continue  # the chain grew since we looked: look again
        return
    raise restless(name)


def _write_tag(registry: Registry, name: str, text: str | None) -> None:
    found = registry.model_tags(name).get(TAG_ROLLOUT)
    if found != text:
        registry.set_model_tag(name, TAG_ROLLOUT, text)


def _retire(registry: Registry, ledger: Ledger, name: str, ended: Standing) -> None:
    version = ended.rollout.version
    nominated = ledger.events(name, _CHALLENGER, limit=1)
    if nominated and nominated[-1].seq > ended.seq:
        return
    if registry.aliases(name).get(_CHALLENGER) == version:
        registry.set_alias(name, _CHALLENGER, None, expected=version)


def _said(standing: Standing | None) -> str:
    if standing is None:
        return "none"
    state = standing.outcome or "one under way"
    return f"{state} (version {standing.rollout.version})" + (
        f": {standing.reason}" if standing.reason else ""
    )


def _conflict(name: str, rule: str) -> ConflictError:
    return ConflictError(f"rollout of {name}", rule, f"Look at it with `evergreen rollout {name}`.")
