"""The endpoint that takes the truth: labels of earlier predictions, in batches, stored before it answers.

Owns what a batch may look like. A label names its prediction by request id (and row) or by key (and time, where
known), and is one of the model's classes or, for a regression, a finite number. A batch sent again changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
from fastapi import Request, Response

from include.errors import EvergreenError
from include.serving.bodies import JSON, Bodies, check_media
from include.serving.ending import end
from include.serving.engine import Engine
from include.serving.guard import caller_of
from include.serving.identity import check_days, read_key, read_time, request_id
from include.serving.limits import Limits
from include.serving.lookup import Lookup, not_answering
from include.serving.rejection import RequestError, bad, listed, quote, suggest
from include.serving.replies import as_json
from include.serving.served import Served
from include.serving.telemetry import Metrics, log_event
from include.serving.tensors import read_json
from include.store.files import Store
from include.store.inputs import category_text
from include.store.labels import LABELS, write_labels

_FIX = 'Send {"labels": [{"request_id": ..., "row": 0, "label": ...}, {"key": ..., "time": ..., "label": ...}]}.'
_BY_REQUEST, _BY_KEY = {"request_id", "row", "label"}, {"key", "time", "label"}
_THREADS = 2
_FAREWELL = 2.0  # seconds that closing waits for the store
_MAX_ROW = 2**31 - 1
_MAX_BATCH = 256
Row = dict[str, Any]


class Labels:
    """The endpoint.

    Args:
        lookup: Finds the model.
        metrics: Where labels and requests are counted.
        limits: What requests may take.
        store: Where labels go; None where there is none to take them.
    """

    def __init__(
        self, lookup: Lookup, metrics: Metrics, limits: Limits, store: Store | None
    ) -> None:
        self._lookup, self._metrics, self._limits, self._store = lookup, metrics, limits, store
        self.bodies = Bodies(limits)
        self._pending = 0
        # Threads of their own: a slow store must not hold up predictions.
        self._pool = ThreadPoolExecutor(_THREADS, "labels")

    def close(self) -> None:
        """End the threads; a batch that is not answered was not accepted, and is sent again."""
        end(self._pool, _FAREWELL)

    async def post(self, request: Request) -> Response:
        """Take a batch of labels; once it is answered they are stored."""
        model, status = "", 500
        try:
            served = await self._lookup.loaded(
                request.path_params["name"], caller_of(request.scope)
            )
            model = served.name
            check_media(request, JSON)
            count = await self._run(served, request)
            status = 200
            self._metrics.labels.labels(model).inc(count)
            return as_json({"accepted": count})
        except RequestError as error:
            status = error.status
            raise
        finally:
            self._metrics.requests.labels(model, "", "", "labels", str(status)).inc()

    async def _run(self, served: Served, request: Request) -> int:
        if self._pending >= self._limits.pending:
            raise RequestError(
                503,
                "serving",
                f"must have fewer than {self._limits.pending} batches of labels waiting, got one more",
                "Try again shortly.",
            )
        self._pending += 1  # before its body is there: that is what takes room
        try:
            length = request.headers.get("content-length")
            body = await self.bodies.read(request.receive, length.encode() if length else None)
            try:
                return await asyncio.get_running_loop().run_in_executor(
                    self._pool, self._take, served, body
                )
            finally:
                self.bodies.release(body)
        finally:
            self._pending -= 1

    def _take(self, served: Served, body: bytes) -> int:
        engine = served.champion or next(iter(served.engines), None)
        if engine is None:
            raise not_answering(served, None)
        rows, batch = read_batch(body, engine, served.engines, max_rows=self._limits.rows)
        if self._store is None:
            raise _not_stored("this process has none")
        try:
            table = pa.Table.from_pylist(rows, schema=LABELS)
            write_labels(self._store, served.name, table, batch=batch)
        except (EvergreenError, OSError) as error:
            log_event("labels_not_stored", level=logging.ERROR, model=served.name, error=error)
            raise _not_stored("it did not take them") from error
        return len(rows)


def _not_stored(got: str) -> RequestError:
    return RequestError(
        503,
        "labels",
        f"must be written to the store, and {got}",
        "Send them again later; the log of the serving process has the reason.",
    )


def read_batch(
    body: bytes, engine: Engine, engines: Iterable[Engine], *, max_rows: int
) -> tuple[list[Row], str]:
    """Check and convert the body of a labels request.

    Args:
        body: JSON as it came.
        engine: The version that says what kind of label this is.
        engines: All versions served: a label may be a class of any of them.
        max_rows: Most labels one request may have.

    Returns:
        Rows of `include.store.labels.LABELS`, and what the caller calls the batch, empty for nothing.

    Raises:
        RequestError: Anything is wrong with it, naming the label and what to do.
    """
    request = read_json(body)
    if not isinstance(request, dict) or set(request) - {"batch"} != {"labels"}:
        got = (
            f"the keys {listed(map(str, request))}" if isinstance(request, dict) else quote(request)
        )
        raise bad(
            "body", f"must be an object with labels and, where wanted, batch, got {got}", _FIX
        )
    items = request["labels"]
    if not isinstance(items, list) or not items:
        raise bad("labels", f"must be a list with at least one label, got {quote(items)}", _FIX)
    if len(items) > max_rows:
        raise bad(
            "labels",
            f"must be at most {max_rows}, got {len(items)}",
            "Split the request into smaller ones.",
        )
    classes = {category_text(label) for each in engines for label in each.classes}
    known = None if engine.task == "regression" else {text for text in classes if text is not None}
    now = time.time()
    rows = [_row(item, f"labels[{place}]", known, now) for place, item in enumerate(items)]
    _check_agreement(rows)
    check_days((row["time"] for row in rows), "labels")
    return rows, _batch(request.get("batch"))


def _batch(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _MAX_BATCH:
        raise bad(
            "batch",
            f"must be text of at most {_MAX_BATCH} characters, got {quote(value)}",
            "Leave it out, or send a name that tells this batch from earlier ones.",
        )
    return value


def _row(item: Any, where: str, classes: set[str] | None, now: float) -> Row:
    if not isinstance(item, dict):
        raise bad(where, f"must be an object, got {quote(item)}", _FIX)
    by_request = item.get("request_id") is not None
    if by_request == (item.get("key") is not None):
        got = "both" if by_request else "neither"
        raise bad(where, f"must have either request_id or key, got {got}", _FIX)
    known = _BY_REQUEST if by_request else _BY_KEY
    unknown = [name for name in item if name not in known]
    if unknown:
        rule = f"must have only {listed(sorted(known))}, got {suggest(unknown[0], known)}"
        raise bad(where, rule, _FIX)
    row: Row = dict.fromkeys(LABELS.names)
    row["label"] = _label(item.get("label"), f"{where}.label", classes)
    row["received_at"] = round(now * 1e6)
    if by_request:
        row["request_id"] = _request(item["request_id"], f"{where}.request_id")
        row["row"] = _place(item.get("row", 0), f"{where}.row")
    else:
        row["key"] = read_key(item["key"], f"{where}.key")
        if not row["key"]:
            raise bad(f"{where}.key", "must name an entity, got empty text", "Send its id.")
        row["time"] = read_time(item.get("time"), f"{where}.time", now)
    return row


def _request(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise bad(where, f"must be text, got {quote(value)}", "Send what x-request-id said.")
    return request_id(value, where)


def _place(value: Any, where: str) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_ROW:
        raise bad(
            where,
            f"must be a whole number from 0, got {quote(value)}",
            "Send the row of the request, counted from 0.",
        )
    return value


def _label(value: Any, where: str, classes: set[str] | None) -> str:
    if classes is None:
        if type(value) in (int, float):
            try:
                if math.isfinite(number := float(value)):
                    return repr(number)
            except OverflowError:
                pass
        raise bad(where, f"must be a finite number, got {quote(value)}", "Send the true value.")
    text = category_text(value) if type(value) in (str, int, float, bool) else None
    if text is None or text not in classes:
        raise bad(
            where,
            f"must be a class of the model ({listed(sorted(classes))}), got {quote(value)}",
            "Send the true class as the training data writes it.",
        )
    return text


def _check_agreement(rows: list[Row]) -> None:
    """Raise where one batch says two things about the same prediction."""
    said: dict[tuple[Any, ...], str] = {}
    for place, row in enumerate(rows):
        named = (row["request_id"], row["row"], row["key"], row["time"])
        if said.setdefault(named, row["label"]) != row["label"]:
            raise bad(
                f"labels[{place}]",
                "must agree with the others about this prediction, got another label before",
                "Send one label for each prediction.",
            )
