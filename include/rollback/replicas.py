"""Waiting until every live serving process answers with a version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from include.ledger.ledger import Ledger
    from include.ledger.replicas import Replica

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Replies:
    """What the live replicas say of a version.

    Args:
        answering: Ids of those that answer with it.
        refused: Why, by id of those that tried it and never will.
        behind: What they do instead, by id of those that have not followed yet.
    """

    answering: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    behind: Mapping[str, str] = field(default_factory=dict)

    @property
    def refused_by_all(self) -> bool:
        """Whether there are replicas, and each of them refused it."""
        return bool(self.refused) and not self.answering and not self.behind


def last_words(ledger: Ledger, now: datetime) -> dict[str, str]:
    """Return when each live replica spoke last; what it says next is news."""
    return {replica.id: replica.seen_at for replica in ledger.live_replicas(now)}


def wait_for_replicas(
    ledger: Ledger,
    name: str,
    version: str,
    *,
    heard: Mapping[str, str],
    moved: bool,
    check: Callable[[], None],
    clock: Callable[[], datetime],
    sleep: Callable[[float], None],
    patience: timedelta,
) -> Replies:
    """Wait until every live replica answers with a version or refuses it, or patience is at its end.

    Args:
        ledger: Where replicas report.
        name: The model.
        version: Its new champion.
        heard: What `last_words` returned before the champion moved: older reports say nothing.
        moved: Whether the champion moved just now, which wakes a model that sleeps; else it may go on sleeping.
        check: Called before every look; raises what ends the waiting.
        clock: The time, aware.
        sleep: Waits, in seconds.
        patience: How long at most.
    """
    deadline = clock() + patience
    while True:
        check()
        now = clock()
        said = _ask(ledger.live_replicas(now), name, version, heard, moved)
        if not said.behind or now >= deadline:
            return said
        sleep(_POLL_SECONDS)


def _ask(
    replicas: list[Replica], name: str, version: str, heard: Mapping[str, str], moved: bool
) -> Replies:
    answering: list[str] = []
    refused: dict[str, str] = {}
    behind: dict[str, str] = {}
    for replica in replicas:
        models = replica.state.get("models") or {}
        if name not in models and not moved:
            continue  # asleep: the first request loads what the alias names by then
        model = models.get(name) or {}
        failure = (model.get("failures") or {}).get(version) or {}
        if heard.get(replica.id) == replica.seen_at:
            behind[replica.id] = "has not reported since"
        elif model.get("champion") == version:
            answering.append(replica.id)
        elif failure.get("permanent"):
            refused[replica.id] = str(failure.get("error")).rstrip(".")
        else:
            behind[replica.id] = str(failure.get("error") or _instead(model)).rstrip(".")
    return Replies(tuple(answering), refused, behind)


def _instead(model: Mapping[str, object]) -> str:
    champion = model.get("champion")
    return f"answers with version {champion}" if champion else "has no champion loaded"
