"""The access log: one JSON line per request, written away from the request.

Owns what a line says: when, what was asked, how it went, which version answered, and the ids by which it is found
again. Never a body, a query, a key or a value. A request leaves a tuple and goes on; one thread writes many
lines at a time. Where the output is not read fast enough the newest lines are dropped, and counted.
"""

from __future__ import annotations

import re
import sys
import threading
from collections import deque
from datetime import UTC, datetime
from typing import BinaryIO, NamedTuple

import orjson

from include.serving.telemetry import Metrics

_PATH = 300  # characters of a path, which may be anything
# https://www.w3.org/TR/trace-context/#traceparent-header; later versions may go on after the flags
_TRACE = re.compile(rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_NO_TRACE, _NO_PARENT = b"0" * 32, b"0" * 16


class Line(NamedTuple):
    """What is known of a request once it is over.

    Args:
        time: When it came, seconds since 1970.
        method: GET, POST, ...
        path: Without the query.
        status: HTTP status.
        ms: From its head read to its answer handed over.
        size: Size of the answer's body.
        model: Name of the model that was asked; None for none.
        version: Version that answered.
        arm: Why it was this one.
        rows: Rows predicted.
        request_id: By which labels and callers know it.
        trace: `traceparent` as it came; None for none.
    """

    time: float
    method: str
    path: str
    status: int
    ms: float
    size: int
    model: str | None = None
    version: str | None = None
    arm: str | None = None
    rows: int | None = None
    request_id: str | None = None
    trace: bytes | None = None


def trace_id(traceparent: bytes | None) -> str | None:
    """Return the trace a request belongs to; None for none, and where the header breaks W3C's rules."""
    found = _TRACE.fullmatch(traceparent) if traceparent else None
    if found is None or found[2] == _NO_TRACE or found[3] == _NO_PARENT:
        return None
    if found[1] == b"00" and found[4] is not None:
        return None
    return found[2].decode()


def written(line: Line) -> bytes:
    """Return a line as it stands in the log."""
    return orjson.dumps(
        {
            "time": datetime.fromtimestamp(line.time, UTC),
            "method": line.method,
            "path": line.path[:_PATH],
            "status": line.status,
            "ms": round(line.ms, 3),
            "model": line.model,
            "version": line.version,
            "arm": line.arm,
            "rows": line.rows,
            "request_id": line.request_id,
            "trace_id": trace_id(line.trace),
            "bytes": line.size,
        },
        option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE,
    )


class AccessLog:
    """Takes lines on the event loop and writes them in a thread of its own.

    Args:
        metrics: Where lost lines are counted.
        out: Where to; None for stdout.
        waiting: Most lines waiting.
        seconds: Longest time a line waits while the output is read.
        farewell: Seconds that closing may take.
    """

    def __init__(
        self,
        metrics: Metrics,
        out: BinaryIO | None = None,
        *,
        waiting: int = 50_000,
        seconds: float = 0.25,
        farewell: float = 2.0,
    ) -> None:
        self._out = out or sys.stdout.buffer
        self._limit, self._seconds, self._farewell = waiting, seconds, farewell
        self._lines: deque[Line] = deque()
        self._dropped = metrics.access_dropped
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def put(self, line: Line) -> None:
        """Take a line; never waits."""
        if len(self._lines) < self._limit:
            self._lines.append(line)
        else:
            self._dropped.inc()

    def close(self) -> None:
        """Write what is waiting; what nobody reads in time is lost."""
        self._closing.set()
        self._thread.join(self._farewell)

    def _run(self) -> None:
        while not self._closing.wait(self._seconds):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        lines = self._lines
        while lines:
            some = [lines.popleft() for _ in range(min(len(lines), 1000))]
            try:
                self._out.write(b"".join(map(written, some)))
                self._out.flush()
            except (OSError, ValueError):  # nobody reads it any longer; requests go on
                self._dropped.inc(len(some))
