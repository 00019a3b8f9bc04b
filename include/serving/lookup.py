"""From a request to the model version that answers it, or to the reason why none does."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict
from time import monotonic
from typing import Any

from fastapi import Request

from include.serving.access import ANYBODY, Caller
from include.serving.engine import Engine
from include.serving.follower import Follower
from include.serving.guard import caller_of
from include.serving.rejection import RequestError, bad, listed, suggest
from include.serving.served import CHAMPION, Served

_PATIENCE = 10.0
_MOST_WAITING = 256


class Lookup:
    """Finds engines in the follower's table of this moment.

    Args:
        follower: Keeps the table.
        patience: Longest time in seconds that a request waits for its model to be loaded.
    """

    def __init__(self, follower: Follower, patience: float = _PATIENCE) -> None:
        self.follower, self._patience = follower, patience
        self._waiting = 0

    async def answering(self, request: Request) -> Served:
        """Return the model a request is for, once the version it asks for answers.

        Which model is said by path, query or header; which version by the path, else it is the champion.

        Raises:
            RequestError: 404 for an unknown model or version, 503 for one that does not answer (yet).
        """
        name = request.path_params.get("name") or self._only_model(request)
        version = request.path_params.get("version")
        served = await self.awake(name, version, caller_of(request.scope))
        if served.engine(version) is None:
            raise not_answering(served, version)
        return served

    async def awake(
        self, name: str, version: str | None = None, caller: Caller = ANYBODY
    ) -> Served:
        """Return a model by name; one whose version (None: the champion) is on its way into memory is waited for.

        Raises:
            RequestError: 404 where it has no alias, 503 while the first models are loading and where too many
                requests wait already.
        """
        served = self.served(name, caller)
        if not served.is_coming(version):
            return served
        if self._waiting >= _MOST_WAITING:
            raise RequestError(
                503,
                f"model {name}",
                f"must be loaded first, and {self._waiting} requests wait for models already",
                "Try again shortly.",
            )
        served.use.at = monotonic()
        self._waiting += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    then = await asyncio.wrap_future(self.follower.demand(name, version))
                    served = then or served
        finally:
            self._waiting -= 1
        return served

    async def loaded(self, name: str, caller: Caller = ANYBODY) -> Served:
        """Return a model by name; one that sleeps is woken first, any other is returned as it stands.

        Raises:
            RequestError: As `awake`.
        """
        served = self.served(name, caller)
        return await self.awake(name) if served.asleep else served

    async def engine(self, request: Request) -> Engine:
        """Return the engine a request asks for; a rollout has no say in it.

        Raises:
            RequestError: As `answering`.
        """
        served = await self.answering(request)
        version = request.path_params.get("version")
        engine = served.engine(version)
        if engine is None:
            raise not_answering(served, version)
        return engine

    def served(self, name: str, caller: Caller = ANYBODY) -> Served:
        """Return a model by name; the error names others only where the caller may know of them.

        Raises:
            RequestError: 404 where it has no alias, 503 while the first models are loading.
        """
        table = self.follower.table
        served = table.get(name)
        if served is not None:
            return served
        if not self.follower.ready:
            raise RequestError(
                503,
                "serving",
                "must load its models first, and is still at it",
                "Try again shortly.",
            )
        others = [other for other in table if caller.sees(other)]
        known = f"Served are {listed(others)}." if others else "No model has a champion yet."
        raise RequestError(
            404, "model", f"must be one that is served, got {suggest(name, others)}", known
        )

    def _only_model(self, request: Request) -> str:
        name = request.query_params.get("model") or request.headers.get("x-model-name")
        caller = caller_of(request.scope)
        if name:
            caller.check(name)
            return name
        answering = [
            served.name
            for served in self.follower.table.values()
            if (served.champion or served.asleep) and caller.sees(served.name)
        ]
        if len(answering) == 1:
            return answering[0]
        raise bad(
            "model",
            f"must be named where {len(answering)} models are served",
            "POST to /models/NAME/invocations or /invocations?model=NAME.",
        )

    def state(self, served: Served) -> dict[str, Any]:
        """Return what a person or `deploy` wants to know about a model beyond the protocol."""
        return {
            "name": served.name,
            "aliases": dict(served.wanted.aliases),
            "champion": served.champion.version if served.champion else None,
            "loaded": [engine.version for engine in served.engines],
            "asleep": served.asleep,
            "rollout": asdict(served.rollout) if served.rollout else None,
            "failures": {
                version: {"error": f.error, "permanent": f.permanent, "attempts": f.attempts}
                for version, f in served.failures.items()
            },
            "registry_error": self.follower.registry_error,
        }


def not_answering(served: Served, version: str | None) -> RequestError:
    """Return why a version (None: the champion) of a known model does not answer."""
    wanted = version or served.wanted.aliases.get(CHAMPION)
    where = f"model {served.name}" + (f" version {wanted}" if wanted else "")
    if wanted is None:
        return RequestError(
            503,
            where,
            "must have a champion, got none",
            "Promote a version, or name one in the path.",
        )
    failure = served.failures.get(wanted)
    if failure is not None:
        return RequestError(503, where, f"must load, got: {failure.error}", "Serving tries again.")
    if wanted in served.wanted.versions:
        return RequestError(
            503, where, "must be loaded, and is still loading", "Try again shortly."
        )
    loaded = listed(engine.version for engine in served.engines) or "none"
    return RequestError(
        404,
        where,
        f"must be champion or challenger, got neither; served are {loaded}",
        "Set one of these aliases on it, or ask for a served version.",
    )
