"""Pins: a person brought a version back and wants it to stay until somebody says otherwise.

A pin is a row in the model's chain of the ledger, so that a promotion, whose row is a compare-and-set on the same
chain, cannot slip past one. It stops promotions and rollouts only: a pinned model is trained, judged and registered
as ever, and a person may roll it back further.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from include.errors import ConflictError, PinnedError
from include.ledger.chain import Event
from include.ledger.ledger import Ledger

PIN, UNPIN = "pin", "unpin"
_TRIES = 20


@dataclass(frozen=True)
class Pin:
    """A pin that stands.

    Args:
        version: The version that shall stay champion.
        reason: Why, as given.
        actor: Who pinned it.
        at: When, ISO 8601 in UTC.
        seq: Its row in the model's chain.
    """

    version: str
    reason: str
    actor: str
    at: str
    seq: int

    def __str__(self) -> str:
        when = self.at[:16].replace("T", " ")
        return f"pinned to version {self.version} since {when} by {self.actor}: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"version": self.version, "reason": self.reason, "by": self.actor, "at": self.at}


def find_pin(ledger: Ledger, name: str) -> Pin | None:
    """Return the pin that stands on a model; None for none."""
    newest = ledger.events(name, (PIN, UNPIN), 1)
    return pin_of(newest[-1]) if newest else None


def pin_before(ledger: Ledger, name: str, later: Pin) -> Pin | None:
    """Return the pin that a later one replaced; None where there was none."""
    earlier = [e for e in ledger.events(name, (PIN, UNPIN)) if e.seq < later.seq]
    return pin_of(earlier[-1]) if earlier else None


def pin_of(event: Event) -> Pin | None:
    """Return the pin that a row set; None for a row that released one."""
    if event.kind == UNPIN:
        return None
    said = event.payload
    return Pin(said["version"], said["reason"], event.actor, event.at, event.seq)


def pin(
    ledger: Ledger,
    name: str,
    version: str,
    *,
    reason: str,
    key: str,
    actor: str,
    now: datetime,
    after: int | None = None,
) -> Pin:
    """Keep a version champion until `unpin`; a later pin replaces it.

    Args:
        ledger: The ledger.
        name: The model.
        version: The version.
        reason: Why, for people.
        key: Same for every attempt to set this pin.
        actor: Who.
        now: The time, aware.
        after: Compare-and-set: pin only if this is the chain's last `seq`; None for any.

    Raises:
        ConflictError: The chain has moved past `after`.
    """
    payload = {"version": version, "reason": reason}
    event = ledger.record(name, PIN, key, payload, actor, now, after=after)
    return Pin(version, reason, event.actor, event.at, event.seq)


def unpin(
    ledger: Ledger, name: str, *, reason: str, key: str, actor: str, now: datetime
) -> Event | None:
    """Release a pin; None when there is none to release, and nothing was written.

    Args:
        ledger: The ledger.
        name: The model.
        reason: Why, for people.
        key: Same for every attempt of this release; an old one, tried again, releases no later pin.
        actor: Who.
        now: The time, aware.

    Raises:
        ConflictError: Another pin was set while this one was being released: whoever set it knows something new.
    """
    known = ledger.find(name, key)
    if known is not None:
        return known
    meant = find_pin(ledger, name)
    if meant is None:
        return None
    return release(ledger, name, meant, reason=reason, key=key, actor=actor, now=now)


def release(
    ledger: Ledger,
    name: str,
    meant: Pin,
    *,
    back_to: Pin | None = None,
    reason: str,
    key: str,
    actor: str,
    now: datetime,
) -> Event:
    """Release this pin and no other one, or put an earlier one back in its place.

    Args:
        ledger: The ledger.
        name: The model.
        meant: The pin.
        back_to: The one that stands again; None for none.
        reason: Why, for people.
        key: Same for every attempt.
        actor: Who.
        now: The time, aware.

    Raises:
        ConflictError: It was released or replaced since, or the chain does not hold still.
    """
    kind, payload = UNPIN, {"version": meant.version, "reason": reason}
    if back_to is not None:
        kind, payload = PIN, {"version": back_to.version, "reason": back_to.reason}
    for _ in range(_TRIES):
        head = ledger.head(name)  # first: whatever is appended after that makes the row fail
        known = ledger.find(name, key)
        if known is not None:
            return known
        ensure_standing(ledger, name, meant)
        try:
            return ledger.record(name, kind, key, payload, actor, now, after=head)
        except ConflictError:
            continue  # the chain grew since we looked: look again
    raise ConflictError(
        f"Ledger of {name}",
        f"must stand still for a moment, got {_TRIES} changes in a row",
        "Try again; if it stays so, look who writes to it.",
    )


def ensure_unpinned(ledger: Ledger, name: str) -> None:
    """Refuse to go on where a pin stands.

    Read it after the chain's head, and write with `after=` that head: a pin set in between makes the write fail.

    Raises:
        PinnedError: Who pinned it, and why.
    """
    standing = find_pin(ledger, name)
    if standing is not None:
        raise PinnedError(
            f"model {name}",
            f"must not be pinned to get another champion, got {str(standing).rstrip('.')}",
            f"`evergreen unpin {name}` releases it.",
        )


def ensure_standing(ledger: Ledger, name: str, pinned: Pin) -> None:
    """Refuse to go on where a pin was released or replaced; for reading and writing as with `ensure_unpinned`.

    Raises:
        ConflictError: By whom.
    """
    standing = find_pin(ledger, name)
    if standing is None or standing.seq != pinned.seq:
        got = "its release" if standing is None else str(standing).rstrip(".")
        raise ConflictError(
            f"model {name}",
            f"must stay pinned to version {pinned.version} by event {pinned.seq}, got {got}",
            "Somebody decided since: look at the history, and decide anew.",
        )
