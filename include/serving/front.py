"""The way in: an ASGI application that answers prediction requests itself and hands on all others.

Owns what costs every request: the path, the headers, the answer on the wire, the access log. Plain ASGI, because
the framework's routing, request and response objects alone take longer than such a request (measured: 75 us of
them around 60 us of work).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from include.serving.access import Access
from include.serving.access_log import AccessLog, Line
from include.serving.bodies import CSV, Bodies, check_encoding, check_type, plain_type
from include.serving.forms import CSV_INVOCATION, FIELDS, INFER, INVOCATION, Form
from include.serving.guard import admit
from include.serving.identity import ID_HEADER, as_header
from include.serving.lookup import Lookup, not_answering
from include.serving.predictions import Answer, Call, Predictions
from include.serving.rejection import RequestError
from include.serving.replies import crashed, refused

#: A request with this header and the value `off` is not logged: a probe is no live traffic.
LOG_HEADER = "x-evergreen-log"
_ID, _LOG, _TRACE = ID_HEADER.encode(), LOG_HEADER.encode(), b"traceparent"
_TYPE, _ENCODING, _LENGTH = b"content-type", b"content-encoding", b"content-length"
_READ = frozenset((_ID, _LOG, _TRACE, _TYPE, _ENCODING, _LENGTH))
_JSON_HEADER = (_TYPE, b"application/json")
_PLAIN_JSON = b"application/json"

Headers = dict[bytes, bytes]


@dataclass(slots=True)
class Target:
    """What a path asks for.

    Args:
        form: How it is asked and answered.
        model: Name of the model; None where query or header say it.
        version: Version the path names; None for the champion.
    """

    form: Form
    model: str | None
    version: str | None = None


def target_of(path: str) -> Target | None:
    """Return what a POST to a path asks for; None where it is no prediction."""
    parts = path.split("/")
    if not all(parts[1:]):
        return None
    match parts[1:]:
        case ["v2", "models", model, "infer"]:
            return Target(INFER, model)
        case ["v2", "models", model, "versions", version, "infer"]:
            return Target(INFER, model, version)
        case ["models", model, "invocations"]:
            return Target(INVOCATION, model)
        case ["invocations"]:
            return Target(INVOCATION, None)
        case ["predict", model]:
            return Target(FIELDS, model)
    return None


class Front:
    """Answers predictions; everything else goes to `rest`.

    Args:
        rest: The application behind.
        lookup: Finds models.
        predictions: Answers.
        access: Who may ask for a prediction; None: everybody. (`rest` looks after itself.)
        access_log: Where requests are noted; None for nowhere.
    """

    def __init__(
        self,
        rest: ASGIApp,
        lookup: Lookup,
        predictions: Predictions,
        access: Access | None,
        access_log: AccessLog | None,
    ) -> None:
        self._rest, self._lookup, self._predictions = rest, lookup, predictions
        self._access, self._log, self._metrics = access, access_log, predictions.metrics
        self.bodies = Bodies(predictions.limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        target = target_of(scope["path"]) if scope["method"] == "POST" else None
        if target is not None:
            await self._predict(scope, receive, send, target)
        elif self._log is not None:
            await self._watched(self._log, scope, receive, send)
        else:
            await self._rest(scope, receive, send)

    async def _predict(self, scope: Scope, receive: Receive, send: Send, target: Target) -> None:
        arrived, began = time.time(), time.perf_counter()
        headers: Headers = {}
        for name, value in scope["headers"]:
            if name in _READ:
                headers.setdefault(name, value)
        call: Call | None = None
        answer: Answer | None = None
        route = target.form.route
        try:
            if self._access is not None and not self._access.open:
                route = "access"
                admit(self._access, scope)
                route = target.form.route
            call = await self._call(scope, headers, target, arrived)
            answer = await self._answer(call, headers, receive)
        except Exception as error:  # noqa: BLE001  every request gets an answer
            status, size = await self._refuse(scope, receive, send, route, call, error)
        else:
            status, size = 200, len(answer.data)
            await _send(send, answer)
        if self._log is not None:
            self._log.put(
                Line(
                    arrived,
                    "POST",
                    scope["path"],
                    status,
                    (time.perf_counter() - began) * 1000,
                    size,
                    call.served.name if call else None,
                    answer.version if answer else None,
                    answer.arm if answer else None,
                    answer.rows if answer else None,
                    answer.request_id if answer else None,
                    headers.get(_TRACE),
                )
            )

    async def _call(self, scope: Scope, headers: Headers, target: Target, arrived: float) -> Call:
        model, version = target.model, target.version
        served = self._lookup.follower.table.get(model) if model is not None else None
        engine = served.engine(version) if served is not None else None
        if served is None or engine is None:
            parameters = {"name": model, "version": version}
            given = {name: value for name, value in parameters.items() if value is not None}
            request = Request({**scope, "path_params": given})
            served = await self._lookup.answering(request)
            engine = served.engine(version)
            if engine is None:
                raise not_answering(served, version)
        given_id = headers.get(_ID)
        return Call(
            target.form,
            served,
            version,
            engine,
            given_id.decode("latin-1") if given_id is not None else None,
            headers.get(_LOG) != b"off",
            arrived,
        )

    async def _answer(self, call: Call, headers: Headers, receive: Receive) -> Answer:
        said = headers.get(_TYPE)
        if said != _PLAIN_JSON:
            media = plain_type(said.decode("latin-1") if said else "")
            check_type(media, call.form.media)
            if media in CSV:
                call.form = CSV_INVOCATION
        if _ENCODING in headers:
            check_encoding(headers[_ENCODING].decode("latin-1"))
        model = call.served.name
        doors = self._predictions.doors
        call.body = await self.bodies.read(receive, headers.get(_LENGTH))
        try:
            # Only now: a slow sender takes no room from those that can be answered.
            doors.enter(model)
            call.started = time.perf_counter()
            try:
                return await self._predictions.answer(call)
            finally:
                doors.leave(model)
        finally:
            self.bodies.release(call.body)

    async def _refuse(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        route: str,
        call: Call | None,
        error: Exception,
    ) -> tuple[int, int]:
        """Tell the caller why there is no prediction; return status and size of that answer."""
        known = isinstance(error, RequestError)
        response: Response = (refused if known else crashed)(Request(scope), error)
        labels = (call.served.name, call.engine.version, call.arm) if call else ("", "", "")
        self._metrics.requests.labels(*labels, route, str(response.status_code)).inc()
        if call is not None:
            self._predictions.refuse(call, error)
        await response(scope, receive, send)
        return response.status_code, len(response.body)

    async def _watched(self, log: AccessLog, scope: Scope, receive: Receive, send: Send) -> None:
        arrived, began = time.time(), time.perf_counter()
        status = size = 0

        async def watch(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._rest(scope, receive, watch)
        finally:
            found = dict(reversed(scope["headers"]))
            spent = (time.perf_counter() - began) * 1000
            log.put(
                Line(
                    arrived,
                    scope["method"],
                    scope["path"],
                    status or 500,
                    spent,
                    size,
                    trace=found.get(_TRACE),
                )
            )


async def _send(send: Send, answer: Answer) -> None:
    data = answer.data
    headers: list[Any] = [
        _JSON_HEADER,
        (_LENGTH, b"%d" % len(data)),
        (_ID, as_header(answer.request_id).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data})
