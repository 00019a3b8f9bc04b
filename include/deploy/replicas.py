"""Whether every live serving process has what a step of a rollout needs, by what each says of itself.

One process behind the port answers the smoke request; the others must have come as far before traffic depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from include.deploy.probe import refused
from include.deploy.waiting import NotYet

_SHOWN = 5
#: Says what a replica's part of a model lacks; None where it lacks nothing.
Check = Callable[[Mapping[str, Any]], str | None]


class Replica(Protocol):
    """A serving process, as the ledger knows it."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def state(self) -> Mapping[str, Any]:
        """What it said last: `models`, and by name `champion`, `loaded`, `failures`, `rollout`."""


Replicas = Callable[[], Sequence[Replica]]


def all_have(live: Sequence[Replica], model: str, version: str, check: Check) -> int:
    """Return how many replicas live, where none of them lacks anything.

    Args:
        live: The replicas.
        model: The model looked at.
        version: The version it is about: one that a replica will never load ends the wait.
        check: What each must have.

    Raises:
        NotYet: None lives, or some lack something; names them.
        ModelError: A replica refuses the version.
    """
    if not live:
        raise NotYet("no serving process has reported itself lately")
    lacking = []
    for replica in live:
        mine: Mapping[str, Any] = (replica.state.get("models") or {}).get(model) or {}
        failure = (mine.get("failures") or {}).get(version) or {}
        if failure.get("permanent"):
            raise refused(
                f"model {model} version {version}",
                f"must be loadable by every replica, {replica.id} got: {failure.get('error')}",
            )
        lack = check(mine)
        if lack is not None:
            why = f" ({failure['error']})" if failure.get("error") else ""
            lacking.append(f"{replica.id} {lack}{why}")
    if lacking:
        more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        raise NotYet(f"{len(lacking)} of {len(live)} lag: {'; '.join(lacking[:_SHOWN])}{more}")
    return len(live)


def has_loaded(version: str) -> Check:
    """Return the check for a version that can answer."""

    def check(mine: Mapping[str, Any]) -> str | None:
        loaded = mine.get("loaded") or []
        return None if version in loaded else f"has loaded {', '.join(loaded) or 'nothing'}"

    return check


def has_champion(version: str) -> Check:
    """Return the check for the version that answers by default."""

    def check(mine: Mapping[str, Any]) -> str | None:
        champion = mine.get("champion")
        return None if champion == version else f"has champion {champion}"

    return check


def routes_by(rollout_id: str, share: float) -> Check:
    """Return the check for the share of traffic a rollout's challenger gets."""

    def check(mine: Mapping[str, Any]) -> str | None:
        rollout = mine.get("rollout") or {}
        if rollout.get("id") == rollout_id and rollout.get("share") == share:
            return None
        if not rollout:
            return "routes by no rollout"
        return f"routes by {rollout.get('id')} at {rollout.get('share')}"

    return check
