"""The engines in memory: how much they take, and which of them go when that is too much.

Owns the bound. A model that nobody has asked for in the longest time is let go first and comes back at the next
request for it; a model on trial is not touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter

from include.serving.engine import Engine
from include.serving.served import Use

_LINGER = 30.0  # seconds an engine nobody wants stays: aliases move one by one, and some move back


class Memory:
    """Engines by model and version.

    Args:
        limit_bytes: What they may take together; only an estimate can say what they take.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes, self.used_bytes = limit_bytes, 0
        self._engines: dict[str, dict[str, Engine]] = {}
        self._idle: dict[tuple[str, str], float] = {}
        self._sizes: dict[str, int] = {}

    def of(self, name: str) -> Mapping[str, Engine]:
        """Return a model's engines by version."""
        return self._engines.get(name, {})

    def add(self, engine: Engine) -> None:
        """Take an engine in."""
        name, version = engine.model.name, engine.version
        self.drop(name, version)
        self._engines.setdefault(name, {})[version] = engine
        self._sizes[name] = engine.size_bytes
        self.used_bytes += engine.size_bytes

    def drop(self, name: str, version: str) -> None:
        """Let an engine go; requests that hold it finish on it."""
        engine = self._engines.get(name, {}).pop(version, None)
        self._idle.pop((name, version), None)
        if engine is not None:
            self.used_bytes -= engine.size_bytes
            if not self._engines[name]:
                del self._engines[name]

    def fits(self, name: str, coming: int = 0) -> bool:
        """Whether a model that is not here is likely to have room, going by its last size or the mean of all.

        Args:
            name: The model.
            coming: How many others are on their way already.
        """
        known = self._sizes
        mean = sum(known.values()) // len(known) if known else 0
        return self.used_bytes + coming * mean + known.get(name, mean) <= self.limit_bytes

    def note_idle(self, name: str, busy: Iterable[str], now: float) -> None:
        """Note which of a model's engines nobody wants, from now on."""
        wanted = set(busy)
        for version in self.of(name):
            if version in wanted:
                self._idle.pop((name, version), None)
            else:
                self._idle.setdefault((name, version), now)

    def drop_idle(self, now: float) -> None:
        """Let go what nobody wanted in a while."""
        for (name, version), since in list(self._idle.items()):
            if now - since >= _LINGER:
                self.drop(name, version)

    def surplus(self, may_go: Mapping[str, Use]) -> list[str]:
        """Return the models to let go, longest unasked first, so that the rest fits.

        Args:
            may_go: Those in memory that need not be, and when each was asked. The last asked one stays.
        """
        excess = self.used_bytes - self.limit_bytes
        going: list[str] = []
        by_age = sorted(((use.at, name) for name, use in may_go.items()), key=itemgetter(0))
        for _, name in by_age[:-1]:
            if excess <= 0:
                break
            excess -= sum(engine.size_bytes for engine in self.of(name).values())
            going.append(name)
        return going
