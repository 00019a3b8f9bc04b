"""What serving tells the outside about itself: Prometheus metrics and one structured log line per event.

Owns the metric names. Labels only ever hold names of models that exist, so a caller cannot grow them.
"""

from __future__ import annotations

import logging
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

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_LOG = logging.getLogger("evergreen.serving")
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series per counter that nobody asks for
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The metrics of one serving process, in a collector registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "evergreen_serving_requests",
            "Prediction requests by model, version, route and HTTP status.",
            ["model", "version", "route", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "evergreen_serving_request_seconds",
            "Seconds from the whole body read to the answer made, queueing included.",
            ["model", "route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.rows = Counter(
            "evergreen_serving_rows",
            "Rows predicted.",
            ["model", "version"],
            registry=self._registry,
        )
        self.loads = Counter(
            "evergreen_serving_loads",
            "Attempts to load a model version; outcome is loaded or failed.",
            ["model", "outcome"],
            registry=self._registry,
        )
        self.champion = Gauge(
            "evergreen_serving_champion_info",
            "1 for the version that answers at the model's own path.",
            ["model", "version"],
            registry=self._registry,
        )
        self.registry_up = Gauge(
            "evergreen_serving_registry_up",
            "1 when the last poll of the registry was answered.",
            registry=self._registry,
        )
        self.pending = Gauge(
            "evergreen_serving_pending",
            "Prediction requests accepted and not yet answered.",
            registry=self._registry,
        )

        self._add_log()

    def _add_log(self) -> None:
        self.log_queued = Counter(
            "evergreen_serving_log_queued_rows",
            "Rows put on the prediction log's queue.",
            registry=self._registry,
        )
        self.log_written = Counter(
            "evergreen_serving_log_written_rows",
            "Rows of the prediction log written to the store.",
            registry=self._registry,
        )
        self.log_dropped = Counter(
            "evergreen_serving_log_dropped_rows",
            "Rows of the prediction log lost: the oldest of a full queue, or those a store never took.",
            registry=self._registry,
        )
        self.log_failures = Counter(
            "evergreen_serving_log_write_failures",
            "Writes of the prediction log that failed; they are tried again.",
            registry=self._registry,
        )
        self.log_waiting = Gauge(
            "evergreen_serving_log_waiting_rows",
            "Rows on the prediction log's queue.",
            registry=self._registry,
        )
        self.labels = Counter(
            "evergreen_serving_labels",
            "Labels accepted.",
            ["model"],
            registry=self._registry,
        )

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


def log_event(event: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Write one log line: a JSON object with the event first."""
    _LOG.log(level, orjson.dumps({"event": event, **fields}, default=str).decode())
