"""Lets challengers answer callers, so that the worst of them costs a caller a wait, and the champion nothing.

Owns the threads challengers predict in. Each version on trial has a few of its own and batches of its own, a bounded
number of requests, and for each at most half of the time that request has left: the champion gets the rest. A request
it did not answer in time keeps its place until the challenger is done with it, so one that hangs is soon asked no more.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from threadpoolctl import threadpool_limits

from include.serving.arms import Asked
from include.serving.batching import Batcher, pays
from include.serving.engine import Engine, Prediction
from include.serving.limits import Limits
from include.serving.rejection import RequestError
from include.serving.telemetry import Metrics

_THREADS = 4  # most for one challenger
_PLACES = 16  # most requests with one challenger
_SECONDS = 5.0  # longest that one of them waits
_SHARE = 0.5  # and most of the time it has left


class Trials:
    """Has challengers predict; on the event loop, apart from their threads.

    Args:
        metrics: Where batches are counted.
        limits: What requests may take.
        width: Threads that champions predict in; a challenger gets no more.
    """

    def __init__(self, metrics: Metrics, limits: Limits, width: int) -> None:
        self._metrics, self._limits = metrics, limits
        self._width = min(width, _THREADS)
        self._open: dict[tuple[str, str], _Trial] = {}

    async def predict(self, engine: Engine, asked: Asked, began: float) -> tuple[Prediction, float]:
        """Return a challenger's prediction, and how many seconds it computed.

        Args:
            engine: The challenger.
            asked: The request.
            began: Reading of the performance counter when the request's time began, seconds.

        Raises:
            RequestError: 504 when it does not come in time, or has not for those before; 503 when too many are asked.
        """
        left = began + self._limits.seconds - time.perf_counter()
        return await self._of(engine).predict(engine, asked, max(0.0, min(_SECONDS, _SHARE * left)))

    def close(self) -> None:
        """End the threads that can end; nobody waits for what they compute."""
        for trial in self._open.values():
            trial.close()

    def _of(self, engine: Engine) -> _Trial:
        key = (engine.model.name, engine.version)
        found = self._open.get(key)
        if found is None or found.engine() is not engine:
            for other in [k for k, each in self._open.items() if k == key or not each.engine()]:
                self._open.pop(other).close()
            found = self._open[key] = _Trial(engine, self._width, self._limits, self._metrics)
        return found


class _Trial:
    """One challenger's threads, and what it was asked."""

    def __init__(self, engine: Engine, width: int, limits: Limits, metrics: Metrics) -> None:
        self.engine = weakref.ref(engine)
        self._pool = ThreadPoolExecutor(
            width, "challenger", initializer=partial(threadpool_limits, limits=1)
        )
        most = limits.batch_rows if pays(engine) else 1  # else each goes alone, as to its champion
        self._batcher = Batcher(self._pool, width, most, metrics, engine.model.name)
        self._asked: dict[asyncio.Future[Prediction], float] = {}  # with the time it has

    async def predict(
        self, engine: Engine, asked: Asked, seconds: float
    ) -> tuple[Prediction, float]:
        now = time.monotonic()
        if len(self._asked) >= _PLACES:
            raise _too_late(seconds) if next(iter(self._asked.values())) < now else _full(engine)
        part = self._batcher.predict(engine, asked.columns, asked.rows)
        future = part.answer
        self._asked[future] = now + seconds
        future.add_done_callback(self._done)
        await asyncio.wait((future,), timeout=seconds)
        if not future.done():
            raise _too_late(seconds)
        return future.result(), part.seconds

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self, future: asyncio.Future[Any]) -> None:
        del self._asked[future]
        if not future.cancelled():
            future.exception()  # looked at here, for perhaps nobody waits any longer


def _too_late(seconds: float) -> RequestError:
    return RequestError(
        504,
        "challenger",
        f"must answer within {seconds:.3g} s, and is still computing",
        "The champion answers.",
    )


def _full(engine: Engine) -> RequestError:
    return RequestError(
        503,
        f"model {engine.model.name}",
        f"must have fewer than {_PLACES} requests with its challenger, got one more",
        "The champion answers.",
    )
