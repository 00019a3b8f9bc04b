"""The way in: an ASGI application that answers prediction requests itself and hands on all others.

Owns what costs every request: the path, the headers, the answer on the wire, the access log. Plain ASGI, because
the framework's routing, request and response objects alone take longer than such a request (measured: 75 us of
them around 60 us of work).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from fastapi import Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from include.serving.access import Access
from include.serving.access_log import AccessLog, Line
from include.serving.bodies import CSV, Bodies, check_encoding, check_type, plain_type
from include.serving.engine import Engine
from include.serving.forms import CSV_INVOCATION, FIELDS, INFER, INVOCATION, Form
from include.serving.guard import admit
from include.serving.identity import ID_HEADER, as_header
from include.serving.lookup import Lookup, not_answering
from include.serving.predictions import Answer, Call, Predictions
from include.serving.rejection import RequestError
from include.serving.replies import crashed, refused
from include.serving.served import Served

#: A request with this header and the value `off` is not logged: a probe is no live traffic.
LOG_HEADER = "x-evergreen-log"
_ID, _LOG, _TRACE = ID_HEADER.encode(), LOG_HEADER.encode(), b"traceparent"
_TYPE, _ENCODING, _LENGTH = b"content-type", b"content-encoding", b"content-length"
_READ = frozenset((_ID, _LOG, _TRACE, _TYPE, _ENCODING, _LENGTH))
_JSON_HEADER = (_TYPE, b"application/json")
_PLAIN_JSON = b"application/json"
_SHORT_PATH = 300

Headers = dict[bytes, bytes]
RawHeaders = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
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
    # Most requests ask for the same few, and to take a path apart costs 4 us; long ones are not worth the memory.
    return _remembered(path) if len(path) <= _SHORT_PATH else _taken_apart(path)


def _taken_apart(path: str) -> Target | None:
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


_remembered = lru_cache(256)(_taken_apart)


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

    def at_once(self, path: str, given: RawHeaders, body: bytes) -> Answer | None:
        """Return the answer to a POST that needs no waiting; None, and nothing noted of it, for all others.

        Owns no rule: whatever is not plainly right is left to the long way, which refuses it with a reason.
        """
        arrived, began = time.time(), time.perf_counter()
        target = target_of(path)
        headers = _read(given)
        if target is None or headers.get(_TYPE) != _PLAIN_JSON or _ENCODING in headers:
            return None
        doors = self._predictions.doors
        try:
            if self._access is not None and not self._access.open:
                admit(self._access, {"path": path, "headers": given})
            call = self._known(headers, target, arrived)
            if call is None:
                return None
            call.body, call.started = body, began
            doors.enter(call.served.name)
            try:
                answer = self._predictions.at_once(call)
            finally:
                doors.leave(call.served.name)
        except Exception:  # noqa: BLE001  the long way meets it again, and has the words for it
            return None
        if answer is not None:
            self._note(path, headers, arrived, began, 200, len(answer.data), call, answer)
        return answer

    async def _predict(self, scope: Scope, receive: Receive, send: Send, target: Target) -> None:
        arrived, began = time.time(), time.perf_counter()
        headers = _read(scope["headers"])
        call: Call | None = None
        answer: Answer | None = None
        route = target.form.route
        try:
            if self._access is not None and not self._access.open:
                route = "access"
                admit(self._access, scope)
                route = target.form.route
            call = self._known(headers, target, arrived)
            if call is None:
                call = await self._awaited(scope, headers, target, arrived)
            answer = await self._answer(call, headers, receive)
        except Exception as error:  # noqa: BLE001  every request gets an answer
            status, size = await self._refuse(scope, receive, send, route, call, error)
        else:
            status, size = 200, len(answer.data)
            await _send(send, answer)
        self._note(scope["path"], headers, arrived, began, status, size, call, answer)

    def _note(
        self,
        path: str,
        headers: Headers,
        arrived: float,
        began: float,
        status: int,
        size: int,
        call: Call | None,
        answer: Answer | None,
    ) -> None:
        """Leave a prediction's line with the access log."""
        if self._log is None:
            return
        self._log.put(
            Line(
                arrived,
                "POST",
                path,
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

    def _known(self, headers: Headers, target: Target, arrived: float) -> Call | None:
        """Return the call where its version is loaded."""
        model, version = target.model, target.version
        served = self._lookup.follower.table.get(model) if model is not None else None
        engine = served.engine(version) if served is not None else None
        if served is None or engine is None:
            return None
        return _call(headers, target, served, engine, arrived)

    async def _awaited(
        self, scope: Scope, headers: Headers, target: Target, arrived: float
    ) -> Call:
        """Return the call where the version must be looked for."""
        parameters = {"name": target.model, "version": target.version}
        given = {name: value for name, value in parameters.items() if value is not None}
        served = await self._lookup.answering(Request({**scope, "path_params": given}))
        engine = served.engine(target.version)
        if engine is None:
            raise not_answering(served, target.version)
        return _call(headers, target, served, engine, arrived)

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


def _read(given: RawHeaders) -> Headers:
    """Return the headers that matter here, the first of each."""
    headers: Headers = {}
    for name, value in given:
        if name in _READ:
            headers.setdefault(name, value)
    return headers


def _call(headers: Headers, target: Target, served: Served, engine: Engine, arrived: float) -> Call:
    given_id = headers.get(_ID)
    return Call(
        target.form,
        served,
        target.version,
        engine,
        given_id.decode("latin-1") if given_id is not None else None,
        headers.get(_LOG) != b"off",
        arrived,
    )


def answer_headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    """Return the headers of a prediction."""
    return [
        _JSON_HEADER,
        (_LENGTH, b"%d" % len(answer.data)),
        (_ID, as_header(answer.request_id).encode()),
    ]


async def _send(send: Send, answer: Answer) -> None:
    headers = answer_headers(answer)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer.data})
