"""The door of serving: no request reaches an endpoint, nor has its body read, before its caller is known.

Owns which paths are open to everybody. It stands around the whole application, so that an endpoint added later is
behind it without anybody thinking of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request

from include.serving.access import ANYBODY, Access, Caller
from include.serving.rejection import RequestError
from include.serving.replies import refused

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from include.serving.telemetry import Metrics

#: Probes have no keys; the page of the documentation and its scripts say nothing about models.
OPEN_PATHS = frozenset(("/v2/health/live", "/v2/health/ready", "/ping", "/health", "/docs"))
OPEN_FOLDER = "/docs/"
_BY_MODEL = ("/v2/models/", "/predict/", "/models/")
_CALLER = "evergreen.caller"


def caller_of(scope: Any) -> Caller:
    """Return who sent the request of an ASGI scope."""
    caller: Caller = scope.get(_CALLER, ANYBODY)
    return caller


class Guard:
    """ASGI middleware that asks for a key where one is needed.

    Args:
        app: What it stands in front of.
        access: Knows the keys.
        metrics: Where refused requests are counted.
    """

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics) -> None:
        self._app, self._access, self._metrics = app, access, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it with 401, 403 or 503."""
        if scope["type"] != "http" or self._access.open:
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        if path not in OPEN_PATHS and not path.startswith(OPEN_FOLDER):
            try:
                admit(self._access, scope)
            except RequestError as error:
                self._metrics.requests.labels("", "", "", "access", str(error.status)).inc()
                await refused(Request(scope), error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def admit(access: Access, scope: Scope) -> None:
    """Note in its scope who sent a request.

    Raises:
        RequestError: 401, 403 or 503: the caller may not send it.
    """
    scope[_CALLER] = caller = access.enter(scope["headers"])
    if caller.models is not None:
        _check_scope(caller, scope["path"])


def _check_scope(caller: Caller, path: str) -> None:
    for prefix in _BY_MODEL:
        if path.startswith(prefix):
            caller.check(path[len(prefix) :].partition("/")[0])
    if path == "/metrics":
        caller.check_all()
