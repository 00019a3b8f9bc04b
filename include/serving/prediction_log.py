"""The prediction log's way from a request to the store, away from the request.

Owns the bounded queue and the one thread that empties it. A request puts references on the queue and goes on: it
never waits for the store and never fails because of it. Where the queue is full the oldest entries are dropped,
and counted; a store that is away is tried again with growing pauses.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from include.errors import ServiceError
from include.serving.log_rows import Entry, to_tables
from include.serving.telemetry import Metrics, log_event
from include.store.files import Store
from include.store.parts import day_of
from include.store.predictions import merge_small, write_part

_MANY_PARTS = 64  # small parts of one day that this process wrote before it merges them


@dataclass(frozen=True)
class LogLimits:
    """How much the log may hold, and how long.

    Args:
        seconds: Longest time an entry waits to be written while the store is well.
        batch_rows: Rows after which it is written at once, and most rows in one write.
        queue_rows: Most rows waiting.
        queue_bytes: About the most memory they may take.
        pause: First pause after a failed write, seconds; doubled up to `longest_pause`.
        longest_pause: See `pause`.
        farewell: Seconds that closing may take.
    """

    seconds: float = 5.0
    batch_rows: int = 20_000
    queue_rows: int = 200_000
    queue_bytes: int = 128 * 2**20
    pause: float = 0.5
    longest_pause: float = 30.0
    farewell: float = 5.0


class PredictionLog:
    """Takes entries from any thread and writes them in one of its own.

    Args:
        store: Where the log is.
        metrics: Where rows and failures are counted.
        limits: See `LogLimits`.
    """

    def __init__(self, store: Store, metrics: Metrics, limits: LogLimits | None = None) -> None:
        self._store, self._metrics, self._limits = store, metrics, limits or LogLimits()
        self._queue: deque[tuple[Entry, int, int]] = deque()  # with rows and bytes
        self._rows = self._bytes = 0
        self._in_hand = 0  # rows the thread has taken and not yet written or lost
        self._lock = threading.Lock()
        self._wake, self._closing = threading.Event(), threading.Event()
        self._deadline = float("inf")
        self._written: Counter[tuple[str, date]] = Counter()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        metrics.each_refresh(lambda: metrics.log_waiting.set(self._rows))
        self._queued, self._dropped = (
            metrics.tally(counter) for counter in (metrics.log_queued, metrics.log_dropped)
        )

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Take an entry; the oldest ones go where there is no room."""
        rows, size = entry.rows, entry.size
        with self._lock:
            self._queue.append((entry, rows, size))
            self._rows += rows
            self._bytes += size
            self._queued.count += rows
            while self._is_over() and len(self._queue) > 1:
                self._dropped.count += self._take()[1]
            due = self._rows >= self._limits.batch_rows
        if due and not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what is waiting and end the thread; what the store does not take in time is dropped."""
        self._deadline = time.monotonic() + self._limits.farewell
        self._closing.set()
        self._wake.set()
        self._thread.join(self._limits.farewell + 1)
        with self._lock:
            lost = self._rows + self._in_hand
            self._dropped.count += lost
        if lost:
            log_event("prediction_log_lost", level=logging.ERROR, rows=lost)

    def _is_over(self) -> bool:
        return self._rows > self._limits.queue_rows or self._bytes > self._limits.queue_bytes

    def _take(self) -> tuple[Entry, int, int]:
        taken = self._queue.popleft()
        self._rows -= taken[1]
        self._bytes -= taken[2]
        return taken

    # --- the writing thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._limits.seconds)
            self._wake.clear()
            self._work()
        self._work()

    def _work(self) -> None:
        """Write what is waiting, then tidy; whatever goes wrong, the only writer lives on."""
        for step in (self._flush, self._tidy):
            try:
                step()
            except Exception as error:  # noqa: BLE001  of a disk, of DuckDB, of our own
                with suppress(Exception):
                    self._metrics.log_failures.inc()
                    event = f"prediction_log{step.__name__}_failed"
                    log_event(event, level=logging.ERROR, error=error)

    def _flush(self) -> None:
        while batch := self._next_batch():
            try:
                tables = to_tables(batch)
            except Exception as error:  # noqa: BLE001  a fault of ours costs these rows, not all to come
                self._lose(sum(entry.rows for entry in batch), error)
                self._in_hand = 0
                continue
            for model, table in tables:
                self._write(model, table)
                self._in_hand -= table.num_rows
            # What came meanwhile is no full batch yet: written at once it would be a part of a few rows, and the next
            # one too, for as long as requests come.
            if self._rows < self._limits.batch_rows and not self._closing.is_set():
                return

    def _next_batch(self) -> list[Entry]:
        batch: list[Entry] = []
        rows = 0
        with self._lock:
            while self._queue and (
                not batch or rows + self._queue[0][1] <= self._limits.batch_rows
            ):
                entry, size, _ = self._take()
                batch.append(entry)
                rows += size
            self._in_hand = rows
        return batch

    def _write(self, model: str, table: pa.Table) -> None:
        """Write one table, as often as it takes; a part is named by its bytes, so none is doubled."""
        pause = self._limits.pause
        while True:
            try:
                keys = write_part(self._store, model, table)
            except Exception as error:  # noqa: BLE001  whatever the store raises, the log goes on
                self._metrics.log_failures.inc()
                if pause == self._limits.pause:
                    log_event("prediction_log_write_failed", level=logging.WARNING, error=error)
                if time.monotonic() > self._deadline:
                    self._lose(table.num_rows, error)
                    return
                if not self._closing.wait(pause):
                    pause = min(2 * pause, self._limits.longest_pause)
                    continue
                time.sleep(self._limits.pause)
            else:
                self._metrics.log_written.inc(table.num_rows)
                self._written.update((model, day) for key in keys if (day := day_of(key)))
                return

    def _lose(self, rows: int, error: Exception) -> None:
        with self._lock:
            self._dropped.count += rows
        log_event("prediction_log_lost", level=logging.ERROR, rows=rows, error=error)

    def _tidy(self) -> None:
        """Merge the small parts of a day once there are many, so that a reader need not open thousands."""
        many = [each for each, parts in self._written.items() if parts >= _MANY_PARTS]
        for model, day in many:
            del self._written[model, day]
            try:
                merge_small(self._store, model, day, at_least=_MANY_PARTS)
            except (
                ServiceError
            ) as error:  # somebody else is at it, or the store is away: later, then
                log_event("prediction_log_not_merged", level=logging.WARNING, error=error)
