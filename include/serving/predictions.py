"""The endpoints that predict, in both protocols, and the limits they keep.

The event loop only reads bodies and writes answers; parsing, predicting and dumping happen together in a thread
pool as wide as the machine, so a large request delays no health check.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from threadpoolctl import threadpool_limits

from include.serving.engine import Engine
from include.serving.frames import read_csv, read_invocation
from include.serving.lookup import Lookup
from include.serving.rejection import RequestError, bad
from include.serving.replies import dump
from include.serving.telemetry import Metrics
from include.serving.tensors import read_infer

_JSON = ("", "application/json")
# What curl says when it is told nothing; a body that is no JSON is refused all the same.
_NOTHING_SAID = "application/x-www-form-urlencoded"
_CSV = ("text/csv",)
Work = Callable[[Engine, bytes], tuple[bytes, int]]


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may take.

    Args:
        body_bytes: Largest body.
        rows: Most rows in one request.
        pending: Most prediction requests accepted and not yet answered.
        threads: Threads that predict; 0 for one per core.
    """

    body_bytes: int = 16 * 2**20
    rows: int = 10_000
    pending: int = 256
    threads: int = 0


class Predictions:
    """The endpoints that predict."""

    def __init__(self, lookup: Lookup, metrics: Metrics, limits: Limits) -> None:
        self.lookup, self.metrics, self.limits = lookup, metrics, limits
        self._pending = 0
        self._pool = ThreadPoolExecutor(
            limits.threads or os.cpu_count() or 1, "predict", initializer=_one_thread
        )
        metrics.pending.set_function(lambda: self._pending)

    def close(self) -> None:
        """Finish what was accepted, then end the threads."""
        self._pool.shutdown(wait=True)

    async def infer(self, request: Request) -> Response:
        """Answer tensors with tensors."""
        return await self._answer(request, "infer", self._infer, _JSON)

    async def invocations(self, request: Request) -> Response:
        """Answer one of MLflow's four JSON forms, or CSV, with labels."""
        work = self._csv if _media(request) in _CSV else self._invoke
        return await self._answer(request, "invocations", work, (*_JSON, *_CSV))

    async def _answer(
        self, request: Request, route: str, work: Work, media: tuple[str, ...]
    ) -> Response:
        engine: Engine | None = None
        status = 500
        try:
            engine = self.lookup.engine(request)
            _check_media(request, media)
            body = await self._body(request)
            data, rows = await self._run(engine, route, work, body)
            status = 200
            self.metrics.rows.labels(engine.model.name, engine.version).inc(rows)
            return Response(data, media_type="application/json")
        except RequestError as error:
            status = error.status
            raise
        finally:
            labels = (engine.model.name, engine.version) if engine else ("", "")
            self.metrics.requests.labels(*labels, route, str(status)).inc()

    async def _run(self, engine: Engine, route: str, work: Work, body: bytes) -> tuple[bytes, int]:
        if self._pending >= self.limits.pending:
            raise RequestError(
                503,
                "serving",
                f"must have fewer than {self.limits.pending} requests waiting, got one more",
                "Try again shortly.",
            )
        self._pending += 1
        started = time.perf_counter()
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, work, engine, body)
        finally:
            self._pending -= 1
            self.metrics.seconds.labels(engine.model.name, route).observe(
                time.perf_counter() - started
            )

    def _infer(self, engine: Engine, body: bytes) -> tuple[bytes, int]:
        request = read_infer(body, engine.schema, engine.outputs, max_rows=self.limits.rows)
        prediction = engine.predict(request.columns)
        answer: dict[str, Any] = {"model_name": engine.model.name, "model_version": engine.version}
        if request.id is not None:
            answer["id"] = request.id
        answer["outputs"] = engine.tensors(prediction, request.outputs)
        return dump(answer), request.rows

    def _invoke(self, engine: Engine, body: bytes) -> tuple[bytes, int]:
        columns = read_invocation(body, engine.schema, max_rows=self.limits.rows)
        predictions = engine.predict(columns).predict
        return dump({"predictions": predictions}), len(predictions)

    def _csv(self, engine: Engine, body: bytes) -> tuple[bytes, int]:
        columns = read_csv(body, engine.schema, max_rows=self.limits.rows)
        predictions = engine.predict(columns).predict
        return dump({"predictions": predictions}), len(predictions)

    async def _body(self, request: Request) -> bytes:
        limit = self.limits.body_bytes
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            raise _too_large(limit)
        parts, size = [], 0
        try:
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
        except ClientDisconnect:
            raise bad("body", "must be sent to its end, got a part", "Send it again.") from None
        return b"".join(parts)


def _one_thread() -> None:
    """Hold numeric libraries to one thread here: OpenMP's limit belongs to the calling thread."""
    threadpool_limits(limits=1)


def _media(request: Request) -> str:
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return "" if said == _NOTHING_SAID else said


def _check_media(request: Request, allowed: tuple[str, ...]) -> None:
    media = _media(request)
    wanted = " or ".join(each for each in allowed if each)
    if media not in allowed:
        raise RequestError(
            415, "Content-Type", f"must be {wanted}, got {media[:80]}", f"Send {wanted}."
        )
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise RequestError(
            415,
            "Content-Encoding",
            f"must be identity, got {encoding[:80]}",
            "Send it uncompressed.",
        )


def _too_large(limit: int) -> RequestError:
    return RequestError(
        413,
        "body",
        f"must have at most {limit} bytes, got more",
        "Split the request into smaller ones.",
    )
