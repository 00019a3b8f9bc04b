"""Puts a challenger into service: it must answer everywhere, is promoted, and must really be the one that answers.

Owns the two ends of a rollout (smoke; promote and confirm) and the way back. Who promotes is passed in, so this room
knows neither registry nor ledger. Run again at any point, it carries on from where serving stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from include.deploy.probe import Probe
from include.deploy.replicas import Replicas, all_have, has_champion, has_loaded
from include.deploy.waiting import Waiting
from include.errors import EvergreenError


@dataclass(frozen=True)
class SmokeResult:
    """A version that can go into service.

    Args:
        replicas: Live serving processes, all of which have loaded it.
        smoke_ms: Milliseconds it took for the smoke request.
    """

    replicas: int
    smoke_ms: float


@dataclass(frozen=True)
class DeployResult:
    """A version that has taken over.

    Args:
        version: What serves now.
        previous: What served before; None for a first model, equal to `version` when nothing had to move.
        seconds: The promotion and its confirmation.
    """

    version: str
    previous: str | None
    seconds: float


def smoke(probe: Probe, replicas: Replicas, waiting: Waiting) -> SmokeResult:
    """Wait until every replica has loaded a version, and it answers.

    Args:
        probe: Asks for the version.
        replicas: Lists the live ones.
        waiting: Of each of the two waits.

    Raises:
        ModelError: Serving refuses the version or its answers are not sane; trying again is pointless.
        ServiceError: Serving did not come round in time; names who lags.
    """
    model, version = probe.model, probe.version
    count = waiting.until(
        lambda: all_have(replicas(), model, version, has_loaded(version)),
        "be loaded by every replica",
    )
    smoke_ms = waiting.until(lambda: probe.ask(version), "answer a smoke request")
    return SmokeResult(count, smoke_ms)


def take_over(
    probe: Probe,
    replicas: Replicas,
    waiting: Waiting,
    *,
    promote: Callable[[], object],
    undo: Callable[[], object],
) -> DeployResult:
    """Make a version the one that answers, or leave the champion as it was.

    Args:
        probe: Asks for the version.
        replicas: Lists the live ones.
        waiting: Of each wait.
        promote: Moves the champion alias, and may be repeated; called also where the version serves already: a
            killed attempt may have moved the alias and nothing else.
        undo: Takes that back; called only after `promote` returned and serving then failed to follow.

    Raises:
        ModelError: Serving refuses the version or its answers are not sane; trying again is pointless.
        ServiceError: Serving did not come round in time; says what it answered last.
    """
    started, model, version = waiting.clock(), probe.model, probe.version
    previous = probe.serves()
    promote()
    try:
        waiting.until(
            lambda: all_have(replicas(), model, version, has_champion(version)),
            "be champion in every replica",
        )
        waiting.until(lambda: probe.ask(None), "answer as champion")
    except EvergreenError as error:
        if previous != version:
            _take_back(undo, probe.where, error)
        raise
    return DeployResult(version, previous, waiting.clock() - started)


def _take_back(undo: Callable[[], object], where: str, cause: EvergreenError) -> None:
    try:
        undo()
    except EvergreenError as error:
        raise type(cause)(
            where,
            f"{cause.rule}; and the promotion could not be taken back: {error}",
            "Check the champion alias by hand.",
        ) from cause
