"""Predicts requests that come at the same time in one go, where a call's fixed cost is most of its time.

Owns who shares a call with whom. Nobody waits for company: a request that finds the model idle starts at once, and
those that come while it computes go together next. So the wait is bounded by the call before, and a request alone
is not slowed. Measured with scikit-learn's gradient boosting (1.8 ms a call, 3 us a further row), 8 callers: see
docs/serving.md. All of it runs on the event loop, apart from the predictions.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import chain
from typing import Any

from include.serving.columns import Columns
from include.serving.engine import Engine, Prediction
from include.serving.telemetry import Metrics

#: What came of a request, and how many seconds its call took.
Outcome = tuple[Prediction | Exception, float]
_FIXED_MS = 0.3  # below, the way to a thread costs as much as the call: nothing is gained
_SHARE = 4  # the fixed cost must be that of so many rows


def pays(engine: Engine) -> bool:
    """Tell whether an engine is better asked about many rows at a time, by what was measured when it was loaded."""
    return engine.warm_ms >= max(_FIXED_MS, _SHARE * engine.row_ms)


@dataclass(slots=True, eq=False)
class Part:
    """One request's part of a call.

    Args:
        columns: What is asked.
        rows: How many rows.
        answer: What comes back; cancelling it costs the others nothing.
        started: Whether the call is under way.
        seconds: How long the call computed, whoever else was in it; 0 before its end.
    """

    columns: Columns
    rows: int
    answer: asyncio.Future[Prediction]
    started: bool = False
    seconds: float = 0.0


class Batcher:
    """Joins the requests to one version.

    Args:
        pool: Where predictions run.
        width: Most calls at a time, one per thread of the pool.
        max_rows: Most rows in one call; a request with more goes alone.
        metrics: Where sizes are counted.
        model: The model's name, for the metrics.
    """

    def __init__(
        self, pool: Executor, width: int, max_rows: int, metrics: Metrics, model: str
    ) -> None:
        self._pool, self._width, self._max_rows = pool, width, max_rows
        self._requests = metrics.batch_requests.labels(model)
        self._rows = metrics.batch_rows.labels(model)
        self._waiting: deque[Part] = deque()
        self._running = 0

    def predict(self, engine: Engine, columns: Columns, rows: int) -> Part:
        """Ask for a prediction; it starts as soon as a thread is free."""
        loop = asyncio.get_running_loop()
        part = Part(columns, rows, loop.create_future())
        self._waiting.append(part)
        if self._running < self._width:
            self._start(engine, loop)
        return part

    def _start(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        parts = self._next()
        if not parts:
            return
        self._running += 1
        self._requests.observe(len(parts))
        self._rows.observe(sum(part.rows for part in parts))
        call = loop.run_in_executor(self._pool, together, engine, [part.columns for part in parts])
        call.add_done_callback(lambda done: self._done(engine, parts, done))

    def _next(self) -> list[Part]:
        parts: list[Part] = []
        rows = 0
        while self._waiting and (not parts or rows + self._waiting[0].rows <= self._max_rows):
            part = self._waiting.popleft()
            if not part.answer.done():  # nobody waits for it any longer
                part.started = True
                parts.append(part)
                rows += part.rows
        return parts

    def _done(
        self,
        engine: Engine,
        parts: Sequence[Part],
        done: asyncio.Future[list[Outcome]],
    ) -> None:
        self._running -= 1
        self._start(engine, asyncio.get_running_loop())
        fault = asyncio.CancelledError() if done.cancelled() else done.exception()
        answers: Sequence[Any] = [(fault, 0.0)] * len(parts) if fault else done.result()
        for part, (answer, seconds) in zip(parts, answers, strict=True):
            part.seconds = seconds
            if part.answer.done():
                continue
            if isinstance(answer, BaseException):
                part.answer.set_exception(answer)
            else:
                part.answer.set_result(answer)


def together(engine: Engine, parts: Sequence[Columns]) -> list[Outcome]:
    """Return each part's own rows of one prediction; where that fails, each part is asked about alone.

    With each comes how many seconds its call took, whoever else was in it.

    Args:
        engine: What predicts.
        parts: Columns of the requests, n >= 1.
    """
    if len(parts) == 1:
        return [_alone(engine, parts[0])]
    counts = [len(next(iter(part.values()))) for part in parts]
    joined: Columns = {
        name: list(chain.from_iterable(part[name] for part in parts)) for name in parts[0]
    }
    whole, seconds = _alone(engine, joined)
    if isinstance(whole, Exception) or len(whole.predict) != sum(counts):
        return [_alone(engine, part) for part in parts]
    answers: list[Outcome] = []
    start = 0
    for count in counts:
        rows = slice(start, start + count)
        probability = None if whole.probability is None else whole.probability[rows]
        answers.append((Prediction(whole.predict[rows], probability), seconds))
        start += count
    return answers


def _alone(engine: Engine, columns: Columns) -> Outcome:
    began = time.perf_counter()
    answer: Prediction | Exception
    try:
        answer = engine.predict(columns)
    except Exception as error:  # noqa: BLE001  whatever an estimator raises, it is this request's answer
        answer = error
    return answer, time.perf_counter() - began
