"""From a request to its prediction: which version, on the event loop or in a thread, and what is noted of it.

A prediction that is expected to be quick is made on the event loop, since the way to a thread and back costs more
than it does; a longer one, and a large body, in a thread pool as wide as the cores, so that it delays no health
check. What was answered, or refused, is left with the prediction log.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from include.serving.arms import VERSION, Asked, trial
from include.serving.batching import Batcher
from include.serving.ending import end
from include.serving.engine import Engine, Prediction
from include.serving.forms import Form
from include.serving.identity import request_id
from include.serving.limits import Doors, Limits, too_late
from include.serving.log_rows import Author, Entry
from include.serving.prediction_log import PredictionLog
from include.serving.prepared import Prepared, Shelf
from include.serving.rejection import RequestError
from include.serving.served import CHALLENGER, CHAMPION, Served
from include.serving.shadow import Copy, Shadow
from include.serving.telemetry import Metrics
from include.serving.trials import Trials

__all__ = ["Answer", "Call", "Limits", "Predictions"]
_LARGE = 64 * 1024  # bytes of a body that is read in a thread: about a millisecond
_MANY = 4096  # values in an answer that is written in a thread: about as long
_UNSEEN = (
    429,
    503,
)  # turned away for want of room: never looked at, and would crowd out those that were
_FAREWELL = 0.5  # seconds that closing waits for predictions nobody waits for
T = TypeVar("T")


@dataclass(slots=True)
class Call:
    """One prediction request on its way.

    Args:
        form: How it is asked and answered.
        served: The model as of the request's arrival.
        version: The version its path names; None for the model.
        engine: That version, else the champion.
        given_id: What the caller calls the request in a header; None for nothing.
        logged: Whether it belongs into the prediction log.
        arrived: When it came, seconds since 1970.
        started: Clock reading when the whole body was there, seconds.
        body: The body.
        tried: Seconds that went to a challenger which failed: they are not the champion's.
    """

    form: Form
    served: Served
    version: str | None
    engine: Engine
    given_id: str | None
    logged: bool
    arrived: float
    started: float = 0.0
    body: bytes = b""
    tried: float = 0.0

    @property
    def arm(self) -> str:
        """Why this version."""
        return CHAMPION if self.version is None else VERSION


@dataclass(slots=True)
class Answer:
    """What a request is answered with.

    Args:
        data: The body.
        rows: Rows predicted.
        request_id: By which labels can refer to it.
        version: The version that answered.
        arm: Why it was this one.
    """

    data: bytes
    rows: int
    request_id: str
    version: str
    arm: str


class Predictions:
    """Answers requests; on the event loop, apart from its threads.

    Args:
        metrics: Where requests are counted.
        limits: What requests may take.
        log: Where predictions are logged; None for nowhere.
    """

    def __init__(self, metrics: Metrics, limits: Limits, log: PredictionLog | None = None) -> None:
        self.metrics, self.limits, self._log = metrics, limits, log
        self.doors = Doors(limits)
        width = limits.threads or _cores()
        self._pool = ThreadPoolExecutor(width, "predict", initializer=_one_thread)
        self.shelf = Shelf(
            lambda model: Batcher(self._pool, width, limits.batch_rows, metrics, model)
        )
        self._trials = Trials(metrics, limits, width)
        self._shadow = (
            Shadow(log, metrics, limits.shadow_rows, limits.shadow_bytes) if log else None
        )
        metrics.each_refresh(lambda: metrics.pending.set(self.doors.inside))

    def close(self) -> None:
        """End the threads; called once every accepted request has its answer, or nobody waits for it any longer."""
        self._trials.close()
        end(self._pool, _FAREWELL)
        if self._shadow:
            self._shadow.close()

    def at_once(self, call: Call) -> Answer | None:
        """Return the answer to a request that is plainly right and soon answered; None for a look by `answer`.

        Nothing is noted of a request that it gives back or fails on.
        """
        engine, most_ms = call.engine, self.limits.inline_ms
        version = self.shelf.of(engine)
        # During a rollout both versions are to be timed on the same way.
        in_rollout = call.version is None and call.served.rollout is not None
        if in_rollout or version.expected_ms(1) > most_ms:
            return None
        asked = call.form.read(call.body, version, self.limits.rows)
        if version.expected_ms(asked.rows) > most_ms or not _is_brief(asked, engine):
            return None
        named = call.form.name(asked, call.given_id)
        prediction = engine.predict(asked.columns)
        spent = time.perf_counter() - call.started
        data = call.form.write(engine, asked, prediction, named)
        return self._noted(call, version, call.arm, asked, prediction, named, data, spent)

    async def answer(self, call: Call) -> Answer:
        """Return the answer to a request whose body is there.

        Raises:
            RequestError: It gets none.
        """
        engine = call.engine
        version = self.shelf.of(engine)
        form, body, rows = call.form, call.body, self.limits.rows
        if len(body) > _LARGE:
            asked = await self._in_thread(call, lambda: form.read(body, version, rows))
        else:
            asked = form.read(body, version, rows)
        named = form.name(asked, call.given_id)
        part = trial(call.served, asked, named) if call.version is None else None
        if part is not None and not part.shadow:
            answer = await self._tried(call, part.engine, asked, named)
            if answer is not None:
                return answer
            call.tried = time.perf_counter() - call.started
        answer = await self._by(call, version, engine, call.arm, asked, named)
        if part is not None and part.shadow and call.logged and self._shadow is not None:
            self._shadow.put(self._copy(call, part.engine, asked, named))
        return answer

    async def _by(
        self, call: Call, version: Prepared, engine: Engine, arm: str, asked: Asked, named: str
    ) -> Answer:
        """Have one version answer."""
        waited = 0.0
        if arm is CHALLENGER:  # nobody knows yet how long it takes: never on the event loop
            began = time.perf_counter()
            prediction, computed = await self._trials.predict(engine, asked, call.started)
            # Where the champion never waits for a thread, the wait is not held against the challenger.
            if self._is_quick(call.engine, asked):
                waited = time.perf_counter() - began - computed
        elif self._is_quick(engine, asked):
            prediction = engine.predict(asked.columns)
        else:
            prediction = await self._elsewhere(call, version, engine, asked)
        spent = time.perf_counter() - call.started - call.tried
        if _is_brief(asked, engine):
            data = call.form.write(engine, asked, prediction, named)
        else:
            data = await self._in_thread(
                call, lambda: call.form.write(engine, asked, prediction, named)
            )
        return self._noted(call, version, arm, asked, prediction, named, data, spent, waited)

    def _noted(
        self,
        call: Call,
        version: Prepared,
        arm: str,
        asked: Asked,
        prediction: Prediction,
        named: str,
        data: bytes,
        spent: float,
        waited: float = 0.0,
    ) -> Answer:
        """Leave what was answered with the prediction log and the metrics."""
        if self._log is not None and call.logged:
            self._log.put(
                Entry(
                    version.author,
                    arm,
                    named,
                    int(call.arrived * 1e6),
                    (spent - waited) * 1000,
                    len(call.body),
                    getattr(asked, "values", None) or asked.columns,
                    prediction,
                    asked.identity,
                )
            )
        self.metrics.series(version.name, version.version, arm, call.form.route).answered(
            asked.rows, spent
        )
        return Answer(data, asked.rows, named, version.version, arm)

    def _is_quick(self, engine: Engine, asked: Asked) -> bool:
        """Whether a version is asked on the event loop."""
        return self.shelf.of(engine).expected_ms(asked.rows) <= self.limits.inline_ms

    async def _elsewhere(
        self, call: Call, version: Prepared, engine: Engine, asked: Asked
    ) -> Prediction:
        batcher = version.batcher
        if batcher is None or asked.rows >= self.limits.batch_rows:
            return await self._in_thread(call, lambda: engine.predict(asked.columns))
        part = batcher.predict(engine, asked.columns, asked.rows)
        return await self._in_time(call, part.answer, lambda: part.started)

    async def _in_thread(self, call: Call, work: Callable[[], T]) -> T:
        job = self._pool.submit(work)
        return await self._in_time(call, asyncio.wrap_future(job), job.running)

    async def _in_time(
        self, call: Call, future: asyncio.Future[T], started: Callable[[], bool]
    ) -> T:
        """Return what the future brings.

        Raises:
            RequestError: 503 or 504 when it does not come in time.
        """
        left = call.started + self.limits.seconds - time.perf_counter()
        try:
            await asyncio.wait((future,), timeout=max(left, 0.0))
            if not future.done():
                raise too_late(self.limits.seconds, started())
            return future.result()
        finally:
            future.cancel()  # does nothing to one that is done; one in a queue leaves it

    async def _tried(self, call: Call, engine: Engine, asked: Asked, named: str) -> Answer | None:
        """Have the challenger answer; None where it fails, so that no caller ever pays for a trial."""
        version = self.shelf.of(engine)
        try:
            if version.schema != self.shelf.of(call.engine).schema:
                asked = call.form.read(call.body, version, self.limits.rows)
            return await self._by(call, version, engine, CHALLENGER, asked, named)
        except RequestError as error:
            self._refused(call, engine, CHALLENGER, error.status, _brief(error), named)
        except Exception as error:  # noqa: BLE001  whatever an estimator raises
            self._refused(call, engine, CHALLENGER, 500, type(error).__name__, named)
        return None

    def _copy(self, call: Call, engine: Engine, asked: Asked, named: str) -> Copy:
        version = self.shelf.of(engine)
        same = version.schema == self.shelf.of(call.engine).schema
        form, body, rows = call.form, call.body, self.limits.rows
        read = (lambda: asked) if same else (lambda: form.read(body, version, rows))
        return Copy(engine, asked.rows, read, named, int(call.arrived * 1e6), len(body))

    # --- what is not answered -----------------------------------------------------------------------------

    def refuse(self, call: Call, error: Exception) -> None:
        """Note that a request got no answer, and why; never what was sent, for that may be anything."""
        if not isinstance(error, RequestError):
            self._refused(call, call.engine, call.arm, 500, type(error).__name__)
        elif error.status not in _UNSEEN:
            self._refused(call, call.engine, call.arm, error.status, _brief(error))

    def _refused(
        self,
        call: Call,
        engine: Engine,
        arm: str,
        status: int,
        why: str,
        named: str | None = None,
    ) -> None:
        self.metrics.errors.labels(engine.model.name, engine.version, arm, str(status)).inc()
        if self._log is None or not call.logged or status in _UNSEEN:
            return
        spent = time.perf_counter() - call.started - call.tried if call.started else 0.0
        self._log.put(
            Entry(
                author=Author.of(engine),
                arm=arm,
                request_id=named or request_id(None),
                arrived=int(call.arrived * 1e6),
                latency_ms=spent * 1000,
                texts=len(why),
                error=f"{status} {why}",
            )
        )


def _is_brief(asked: Asked, engine: Engine) -> bool:
    """Whether an answer is written on the event loop."""
    return asked.rows * (1 + len(engine.classes)) <= _MANY


def _brief(error: RequestError) -> str:
    return f"{error.where}: {error.rule.partition(', got')[0]}"


def _cores() -> int:
    """Return how many cores this process may use, which a container or `taskset` may have made fewer."""
    affinity: Any = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _one_thread() -> None:
    """Hold numeric libraries to one thread here: OpenMP's limit belongs to the calling thread."""
    threadpool_limits(limits=1)
