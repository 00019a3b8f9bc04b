"""One model as serving sees it: what the registry wants of it, and what answers.

Owns the plain values that the follower makes and the request path reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic

from include.registry.rollouts import Rollout
from include.serving.engine import Engine

CHAMPION, CHALLENGER = "champion", "challenger"
ROLES = (CHAMPION, CHALLENGER)


@dataclass(frozen=True)
class Wanted:
    """What the registry says about one model.

    Args:
        aliases: Alias to version.
        rollout: How a challenger takes part in the traffic; None where none does.
    """

    aliases: Mapping[str, str]
    rollout: Rollout | None = None

    def acted_on(self) -> Wanted | None:
        """Return this without the aliases serving has no use for; None where nothing is left to serve."""
        kept = {role: str(self.aliases[role]) for role in ROLES if self.aliases.get(role)}
        return Wanted(kept, self.rollout) if kept else None

    @property
    def versions(self) -> frozenset[str]:
        """The versions that have a part in answering."""
        taking_part = frozenset(self.aliases.values())
        return taking_part | {self.rollout.version} if self.rollout else taking_part

    @property
    def champion(self) -> str | None:
        """The version that should answer at the model's own path."""
        return self.aliases.get(CHAMPION)

    @property
    def may_sleep(self) -> bool:
        """Whether it may be out of memory while nobody asks: it has a champion, and nothing is on trial."""
        return self.champion is not None and self.versions == {self.champion}


class Use:
    """When a model was asked last: `at`, a reading of the monotonic clock; 0 for never."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = 0.0


@dataclass(frozen=True)
class Failure:
    """Why a version does not answer.

    Args:
        error: One sentence.
        permanent: Whether trying again without a change is pointless (it is tried again all the same).
        attempts: Failed attempts so far.
        retry_at: Clock reading of the next attempt, seconds.
    """

    error: str
    permanent: bool
    attempts: int
    retry_at: float = field(compare=False)


@dataclass(frozen=True)
class Served:
    """One model as of now: what the registry wants and what answers.

    Args:
        name: Registered name.
        wanted: What the registry says.
        champion: Answers at the model's own path; the version before while a new one loads or fails.
        challenger: The rollout's version where there is one, else the alias's; None while it does not answer.
        engines: All that answer, each once, champion first; the others answer at their version's path.
        rollout: How `challenger` takes part in the traffic. None where it does not: without a rollout, while
            its version does not answer, and once that version is champion.
        failures: By version.
        asleep: Whether its champion is out of memory for want of room, and is loaded at the first request.
        use: When it was asked last.
    """

    name: str
    wanted: Wanted
    champion: Engine | None = None
    challenger: Engine | None = None
    engines: tuple[Engine, ...] = ()
    rollout: Rollout | None = None
    failures: Mapping[str, Failure] = field(default_factory=dict)
    asleep: bool = False
    use: Use = field(default_factory=Use, compare=False)

    def engine(self, version: str | None) -> Engine | None:
        """Return the engine of a version (None: the champion), or None when it does not answer.

        Being asked for is what keeps a model in memory.
        """
        self.use.at = monotonic()
        if version is None:
            return self.champion
        return next((engine for engine in self.engines if engine.version == version), None)

    def is_coming(self, version: str | None) -> bool:
        """Whether a version (None: the champion) does not answer yet, and is loaded or about to be."""
        wanted = version or self.wanted.champion
        if wanted not in self.wanted.versions or wanted in self.failures:
            return False
        if version is None:
            return self.champion is None
        return all(engine.version != version for engine in self.engines)


def serve(
    name: str,
    wanted: Wanted,
    engines: Mapping[str, Engine],
    failures: Mapping[str, Failure],
    stand_in: Engine | None,
    *,
    asleep: bool = False,
    use: Use | None = None,
) -> Served:
    """Return a model as of now.

    Args:
        name: Registered name.
        wanted: What the registry says.
        engines: Those in memory, by version.
        failures: By version.
        stand_in: Answers as champion while the wanted one does not.
        asleep: See `Served`.
        use: See `Served`; None for one that was never asked.
    """
    aliases, rollout = wanted.aliases, wanted.rollout
    champion = engines.get(aliases.get(CHAMPION, ""))
    if champion is None and CHAMPION in aliases:
        champion = stand_in
    by_alias = engines.get(aliases.get(CHALLENGER, ""))
    on_trial = engines.get(rollout.version) if rollout else None
    if on_trial is None or champion is None or on_trial.version == champion.version:
        rollout = None
    answering = [each for each in (champion, on_trial, by_alias) if each is not None]
    return Served(
        name=name,
        wanted=wanted,
        champion=champion,
        challenger=on_trial if rollout else by_alias,
        engines=tuple({engine.version: engine for engine in answering}.values()),
        rollout=rollout,
        failures=failures,
        asleep=asleep,
        use=use or Use(),
    )
