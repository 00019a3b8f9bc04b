"""The endpoints that predict, in both protocols, and the limits they keep.

The event loop only reads bodies and writes answers; parsing, predicting and dumping happen together in a thread
pool as wide as the machine, so a large request delays no health check. What was answered, or refused, is left
with the prediction log.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request, Response
from threadpoolctl import threadpool_limits

from include.serving.bodies import CSV, JSON, check_media, media_type, read_body
from include.serving.engine import Engine, Prediction
from include.serving.frames import Frame, read_csv, read_invocation
from include.serving.identity import ID_HEADER, as_header, request_id
from include.serving.log_rows import Author, Entry
from include.serving.lookup import Lookup
from include.serving.prediction_log import PredictionLog
from include.serving.rejection import RequestError
from include.serving.replies import dump
from include.serving.served import CHAMPION
from include.serving.telemetry import Metrics
from include.serving.tensors import InferRequest, read_infer

#: A request with this header and the value `off` is not logged: a probe is no live traffic.
LOG_HEADER = "x-evergreen-log"
_BY_VERSION = "version"


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


@dataclass(frozen=True)
class Call:
    """One prediction request on its way.

    Args:
        engine: The version asked.
        arm: Why this one: `champion`, or `version` where the path named it.
        given_id: What the caller calls the request in a header; None for nothing.
        logged: Whether it belongs into the prediction log.
        arrived: When it came, seconds since 1970.
        started: Clock reading when the whole body was there, seconds.
        body: The body.
    """

    engine: Engine
    arm: str
    given_id: str | None
    logged: bool
    arrived: float
    started: float = 0.0
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """What a request is answered with.

    Args:
        data: The body.
        rows: Rows predicted.
        request_id: By which labels can refer to it.
    """

    data: bytes
    rows: int
    request_id: str


Work = Callable[[Call], Answer]


class Predictions:
    """The endpoints that predict.

    Args:
        lookup: Finds the version that answers.
        metrics: Where requests are counted.
        limits: What requests may take.
        log: Where predictions are logged; None for nowhere.
    """

    def __init__(
        self, lookup: Lookup, metrics: Metrics, limits: Limits, log: PredictionLog | None = None
    ) -> None:
        self.lookup, self.metrics, self.limits, self._log = lookup, metrics, limits, log
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
        return await self._answer(request, "infer", self._infer, JSON)

    async def invocations(self, request: Request) -> Response:
        """Answer one of MLflow's four JSON forms, or CSV, with labels."""
        work = self._csv if media_type(request) in CSV else self._invoke
        return await self._answer(request, "invocations", work, (*JSON, *CSV))

    async def _answer(
        self, request: Request, route: str, work: Work, media: tuple[str, ...]
    ) -> Response:
        call: Call | None = None
        status = 500
        try:
            call = _open_call(request, await self.lookup.engine(request))
            check_media(request, media)
            body = await read_body(request, self.limits.body_bytes)
            call = replace(call, body=body, started=time.perf_counter())
            answer = await self._run(call, route, work)
            status = 200
            self.metrics.rows.labels(call.engine.model.name, call.engine.version).inc(answer.rows)
            headers = {ID_HEADER: as_header(answer.request_id)}
            return Response(answer.data, media_type="application/json", headers=headers)
        except RequestError as error:
            status = error.status
            # One that was turned away for want of room was never looked at, and would crowd out those that were.
            if call and status != 503:
                self._refused(call, f"{status} {error.where}: {error.rule.partition(', got')[0]}")
            raise
        except Exception as error:
            if call:
                self._refused(call, f"500 {type(error).__name__}")
            raise
        finally:
            labels = (call.engine.model.name, call.engine.version) if call else ("", "")
            self.metrics.requests.labels(*labels, route, str(status)).inc()

    async def _run(self, call: Call, route: str, work: Work) -> Answer:
        if self._pending >= self.limits.pending:
            raise RequestError(
                503,
                "serving",
                f"must have fewer than {self.limits.pending} requests waiting, got one more",
                "Try again shortly.",
            )
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, call)
        finally:
            self._pending -= 1
            self.metrics.seconds.labels(call.engine.model.name, route).observe(
                time.perf_counter() - call.started
            )

    def _infer(self, call: Call) -> Answer:
        engine = call.engine
        request = read_infer(call.body, engine.schema, engine.outputs, max_rows=self.limits.rows)
        named = request_id(request.id or call.given_id)
        prediction = engine.predict(request.columns)
        answer: dict[str, Any] = {"model_name": engine.model.name, "model_version": engine.version}
        if request.id is not None:
            answer["id"] = request.id
        answer["outputs"] = engine.tensors(prediction, request.outputs)
        self._answered(call, named, request, prediction)
        return Answer(dump(answer), request.rows, named)

    def _invoke(self, call: Call) -> Answer:
        return self._labels(
            call, read_invocation(call.body, call.engine.schema, max_rows=self.limits.rows)
        )

    def _csv(self, call: Call) -> Answer:
        return self._labels(
            call, read_csv(call.body, call.engine.schema, max_rows=self.limits.rows)
        )

    def _labels(self, call: Call, frame: Frame) -> Answer:
        named = request_id(call.given_id, ID_HEADER)
        prediction = call.engine.predict(frame.columns)
        self._answered(call, named, frame, prediction)
        return Answer(dump({"predictions": prediction.predict}), frame.rows, named)

    # --- the log ----------------------------------------------------------------------------------------

    def _answered(
        self, call: Call, named: str, asked: InferRequest | Frame, prediction: Prediction
    ) -> None:
        if self._log is None or not call.logged:
            return
        self._log.put(
            Entry(
                author=Author.of(call.engine),
                arm=call.arm,
                request_id=named,
                arrived=int(call.arrived * 1e6),
                latency_ms=(time.perf_counter() - call.started) * 1000,
                texts=len(call.body),
                columns=asked.columns,
                prediction=prediction,
                identity=asked.identity,
            )
        )

    def _refused(self, call: Call, error: str) -> None:
        """Log that there was no answer, and why; never what was sent, for that may be anything."""
        if self._log is None or not call.logged:
            return
        spent = time.perf_counter() - call.started if call.started else 0.0
        named = request_id(None)
        self._log.put(
            Entry(
                author=Author.of(call.engine),
                arm=call.arm,
                request_id=named,
                arrived=int(call.arrived * 1e6),
                latency_ms=spent * 1000,
                texts=len(error),
                error=error,
            )
        )


def _open_call(request: Request, engine: Engine) -> Call:
    return Call(
        engine=engine,
        arm=_BY_VERSION if "version" in request.path_params else CHAMPION,
        given_id=request.headers.get(ID_HEADER),
        logged=request.headers.get(LOG_HEADER) != "off",
        arrived=time.time(),
    )


def _one_thread() -> None:
    """Hold numeric libraries to one thread here: OpenMP's limit belongs to the calling thread."""
    threadpool_limits(limits=1)
