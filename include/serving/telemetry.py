"""What serving tells the outside about itself: Prometheus metrics and one structured log line per event.

Owns the metric names. Labels only ever hold names of models that exist, so a caller cannot grow them.

Several worker processes report as one where PROMETHEUS_MULTIPROC_DIR is set before this module is imported: each
writes its numbers into files there, and whichever is asked adds them up. An update costs 2.5 microseconds then and
0.5 otherwise, so a request makes one (its latency); what else is counted per request is kept in plain numbers
and handed over when the page is read, and once a second (`Metrics.refresh`).

What was counted of a version that has left is shown a while longer and then goes; with several workers it stays until
they are started again, since a series in a shared file cannot be taken away.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_PREFIX = "evergreen_serving_"
_KEPT_SECONDS = 600.0  # after which the numbers of what has left go: several scrapes
_LOG = logging.getLogger("evergreen.serving")
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series per counter that nobody asks for
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Tally:
    """A counter kept as a plain number: only the event loop's thread may add to it, or somebody with a lock."""

    __slots__ = ("_counter", "_told", "count")

    def __init__(self, counter: Counter) -> None:
        self._counter, self._told, self.count = counter, 0, 0

    def tell(self) -> None:
        """Hand over what came since the last time."""
        count = self.count
        if count != self._told:
            self._counter.inc(count - self._told)
            self._told = count


class Series:
    """The numbers of one version in one arm on one route: what a request that is answered adds to."""

    __slots__ = ("answers", "rows", "seconds")

    def __init__(self, answers: Tally, rows: Tally, seconds: Histogram) -> None:
        self.answers, self.rows, self.seconds = answers, rows, seconds

    def answered(self, rows: int, seconds: float) -> None:
        """Count a request that was answered; on the event loop only."""
        self.answers.count += 1
        self.rows.count += rows
        self.seconds.observe(seconds)


class Info:
    """A gauge of what holds now, such as a model's champion; its label values come and go."""

    def __init__(self, gauge: Gauge, shared: bool) -> None:
        self._gauge, self._shared = gauge, shared

    def labels(self, *values: str) -> Gauge:
        """Return the gauge of these label values."""
        return self._gauge.labels(*values)

    def remove(self, *values: str) -> None:
        """Say that these no longer hold."""
        if self._shared:  # a series in a shared file cannot be taken away
            self._gauge.labels(*values).set(0)
        else:
            self._gauge.remove(*values)


class Metrics:
    """The metrics of one serving process, in a collector registry of their own.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: dict[tuple[str, str | None], float] = {}
        self._writing = asyncio.Lock()
        self.shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._registry = CollectorRegistry()
        self._series: dict[tuple[str, str, str, str], Series] = {}
        self._tallies: list[Tally] = []
        self._refreshers: list[Callable[[], None]] = []
        self._add_requests()
        self._add_models()
        self._add_log()

    def _counter(self, name: str, said: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, said, labels, registry=self._registry)

    def _gauge(self, name: str, said: str, *labels: str, mode: Any = "livesum") -> Gauge:
        return Gauge(_PREFIX + name, said, labels, registry=self._registry, multiprocess_mode=mode)

    def _histogram(
        self, name: str, said: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(_PREFIX + name, said, labels, registry=self._registry, buckets=buckets)

    def _add_requests(self) -> None:
        self.requests = self._counter(
            "requests",
            "Requests by model, version, arm, route and HTTP status.",
            *("model", "version", "arm", "route", "status"),
        )
        self.errors = self._counter(
            "errors",
            "Requests that a version answered with an error, by HTTP status; also a challenger's that the champion answered instead.",
            *("model", "version", "arm", "status"),
        )
        self.seconds = self._histogram(
            "request_seconds",
            "Seconds from the whole body read to the answer made, queueing included.",
            _SECONDS,
            *("model", "version", "arm"),
        )
        self.rows = self._counter("rows", "Rows predicted.", "model", "version")
        self.pending = self._gauge("pending", "Prediction requests accepted and not yet answered.")
        self.batch_requests = self._histogram(
            "batch_requests", "Requests that were predicted together.", _SIZES, "model"
        )
        self.batch_rows = self._histogram(
            "batch_rows", "Rows that were predicted together.", _SIZES, "model"
        )
        self.shadow_rows = self._counter(
            "shadow_rows", "Rows that a shadow predicted.", "model", "version"
        )
        self.shadow_dropped = self._counter(
            "shadow_dropped_rows", "Rows a shadow was too slow for.", "model", "version"
        )
        self.access_dropped = self._counter(
            "access_log_dropped_lines", "Lines of the access log lost: nobody read them in time."
        )

    def _add_models(self) -> None:
        self.loads = self._counter(
            "loads",
            "Attempts to load a model version; outcome is loaded or failed.",
            *("model", "outcome"),
        )
        champion = self._gauge(
            "champion_info",
            "1 for the version that answers at the model's own path.",
            *("model", "version"),
            mode="livemax",
        )
        self.champion = Info(champion, self.shared)
        share = self._gauge(
            "rollout_share",
            "Share of a model's requests that the challenger takes part in.",
            *("model", "version", "mode"),
            mode="livemax",
        )
        self.rollout_share = Info(share, self.shared)
        self._shares: set[tuple[str, str, str]] = set()
        self.registry_up = self._gauge(
            "registry_up", "1 when the last poll of the registry was answered.", mode="livemin"
        )
        self.labels = self._counter("labels", "Labels accepted.", "model")

    def _add_log(self) -> None:
        self.log_queued = self._counter(
            "log_queued_rows", "Rows put on the prediction log's queue."
        )
        self.log_written = self._counter(
            "log_written_rows", "Rows of the prediction log written to the store."
        )
        self.log_dropped = self._counter(
            "log_dropped_rows",
            "Rows of the prediction log lost: the oldest of a full queue, or those a store never took.",
        )
        self.log_failures = self._counter(
            "log_write_failures",
            "Writes of the prediction log that failed; they are tried again.",
        )
        self.log_waiting = self._gauge("log_waiting_rows", "Rows on the prediction log's queue.")

    def tally(self, counter: Counter) -> Tally:
        """Return a counter that costs a request next to nothing; its number is handed over now and then."""
        made = Tally(counter)
        self._tallies.append(made)
        return made

    def series(self, model: str, version: str, arm: str, route: str) -> Series:
        """Return what a request that is answered adds to; the same every time."""
        key = (model, version, arm, route)
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = Series(
                self.tally(self.requests.labels(*key, "200")),
                self.tally(self.rows.labels(model, version)),
                self.seconds.labels(model, version, arm),
            )
        return found

    def show_shares(self, shares: Mapping[tuple[str, str, str], float]) -> None:
        """Set the shares of all rollouts, by model, version and mode."""
        for gone in self._shares - shares.keys():
            self.rollout_share.remove(*gone)
        for labels, share in shares.items():
            self.rollout_share.labels(*labels).set(share)
        self._shares = set(shares)

    def note_left(self, model: str, left: Iterable[str | None], here: Iterable[str | None]) -> None:
        """Note which versions of a model are no longer served and which are; None stands for the model itself.

        May be called from any thread.
        """
        for version in here:
            self._left.pop((model, version), None)
        for version in left:
            self._left[model, version] = self._clock()

    def _forget_left(self) -> None:
        now = self._clock()
        for (model, version), since in list(self._left.items()):
            if now - since < _KEPT_SECONDS:
                continue
            self._left.pop((model, version), None)
            if version is None:
                for metric in (self.loads, self.batch_requests, self.batch_rows, self.labels):
                    metric.remove_by_labels({"model": model})
                self.requests.remove_by_labels({"model": model, "version": ""})
                continue
            for key in [key for key in self._series if key[:2] == (model, version)]:
                series = self._series.pop(key)
                self._tallies.remove(series.answers)
                self._tallies.remove(series.rows)
            for metric in (
                *(self.requests, self.errors, self.seconds, self.rows),
                *(self.shadow_rows, self.shadow_dropped),
            ):
                metric.remove_by_labels({"model": model, "version": version})

    def each_refresh(self, call: Callable[[], None]) -> None:
        """Have gauges set whenever the metrics are handed over."""
        self._refreshers.append(call)

    def refresh(self) -> None:
        """Hand over what is kept in plain numbers; on the event loop only."""
        for tally in self._tallies:
            tally.tell()
        if not self.shared:
            self._forget_left()
        for call in self._refreshers:
            call()

    async def page(self) -> bytes:
        """Return what `exposition` does, written in a thread: a thousand models take a second or two."""
        async with (
            self._writing
        ):  # several readers at once would only take the core from the requests
            self.refresh()
            return await asyncio.to_thread(self._written)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format; those of all workers where there are several."""
        self.refresh()
        return self._written()

    def _written(self) -> bytes:
        if not self.shared:
            return generate_latest(self._registry)
        workers = CollectorRegistry()
        MultiProcessCollector(workers)  # type: ignore[no-untyped-call]
        return generate_latest(workers)


def log_event(event: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Write one log line: a JSON object with the event first."""
    _LOG.log(level, orjson.dumps({"event": event, **fields}, default=str).decode())
