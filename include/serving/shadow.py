"""Lets a challenger predict what the champion answered, for the log only.

Owns the bounded queue between the two. A request puts references on it and goes on; one thread predicts and logs
under the arm `shadow`, with the champion's request id. Rows the thread is too slow for are dropped, and counted; the judge
sees that they are missing beside the champion's.

Its latency is the processor time of its thread: it has the lowest claim on the process, and how long it was kept from
computing says nothing about the version.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from include.serving.arms import SHADOW, Asked
from include.serving.engine import Engine
from include.serving.log_rows import Author, Entry
from include.serving.prediction_log import PredictionLog
from include.serving.rejection import RequestError
from include.serving.telemetry import Metrics, log_event

_FAREWELL = 0.5  # seconds that closing waits for the request in hand


@dataclass(frozen=True, slots=True)
class Copy:
    """One request as the shadow gets it.

    Args:
        engine: The challenger.
        rows: Rows in the request.
        read: Returns the request as the challenger's schema reads it.
        request_id: The champion's.
        arrived: When it came, microseconds since 1970.
        texts: Bytes of the body.
    """

    engine: Engine
    rows: int
    read: Callable[[], Asked]
    request_id: str
    arrived: int
    texts: int


class Shadow:
    """Predicts in a thread of its own.

    Args:
        log: Where predictions are logged.
        metrics: Where rows are counted.
        max_rows: Most rows waiting.
        max_bytes: Most bytes their bodies had.
    """

    def __init__(self, log: PredictionLog, metrics: Metrics, max_rows: int, max_bytes: int) -> None:
        self._log, self._metrics = log, metrics
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._queue: deque[Copy] = deque()
        self._rows = self._bytes = 0
        self._lock = threading.Lock()
        self._wake = threading.Semaphore(0)
        self._closing = False
        self._thread: threading.Thread | None = None

    def put(self, copy: Copy) -> None:
        """Take a request; dropped where there is no room for it."""
        with self._lock:
            fits = self._rows + copy.rows <= self._max_rows
            fits = fits and self._bytes + copy.texts <= self._max_bytes
            if fits:
                self._queue.append(copy)
                self._rows += copy.rows
                self._bytes += copy.texts
                if self._thread is None:  # most processes never have a shadow
                    self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
                    self._thread.start()
        if fits:
            self._wake.release()
        else:
            self._drop(copy)

    def close(self) -> None:
        """End the thread after the request in hand; the others are dropped: nobody waits for them."""
        self._closing = True
        self._wake.release()
        if self._thread is not None:
            self._thread.join(_FAREWELL)
        with self._lock:
            while self._queue:
                self._drop(self._queue.popleft())

    def _drop(self, copy: Copy) -> None:
        model = copy.engine.model.name
        self._metrics.shadow_dropped.labels(model, copy.engine.version).inc(copy.rows)

    def _run(self) -> None:
        threadpool_limits(
            limits=1
        )  # as those who answer; what other threads computed, its clock would not see
        while True:
            self._wake.acquire()
            if self._closing:
                return
            with self._lock:
                copy = self._queue.popleft()
                self._rows -= copy.rows
                self._bytes -= copy.texts
            try:
                self._predict(copy)
            except Exception as error:  # noqa: BLE001  the thread must go on
                log_event("shadow_failed", level=logging.ERROR, error=error)

    def _predict(self, copy: Copy) -> None:
        started = time.thread_time()
        entry = Entry(
            Author.of(copy.engine), SHADOW, copy.request_id, copy.arrived, 0.0, copy.texts
        )
        try:
            asked = copy.read()
            entry.prediction = copy.engine.predict(asked.columns)
            entry.columns, entry.identity = asked.columns, asked.identity
        except RequestError as error:
            entry.error = f"{error.status} {error.where}: {error.rule.partition(', got')[0]}"
        except Exception as error:  # noqa: BLE001  of the challenger; the champion has answered long since
            entry.error = f"500 {type(error).__name__}"
        entry.latency_ms = (time.thread_time() - started) * 1000
        self._log.put(entry)
        self._metrics.shadow_rows.labels(copy.engine.model.name, copy.engine.version).inc(copy.rows)
