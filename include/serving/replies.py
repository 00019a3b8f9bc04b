"""How serving writes answers and errors: JSON objects, errors in the one form of the protocol.

Owns the exception handlers, so that no framework's own error form ever leaves the process.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Request, Response
from starlette.exceptions import HTTPException

from include.serving.access import CHALLENGE
from include.serving.rejection import RequestError


def dump(answer: Mapping[str, Any]) -> bytes:
    """Return JSON; arrays of numpy are written as they are, without a copy."""
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def as_json(body: Mapping[str, Any], status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(dump(body), status, media_type="application/json")


def refused(_: Request, error: Exception) -> Response:
    """Answer a request that was turned down."""
    status = error.status if isinstance(error, RequestError) else 500
    response = as_json({"error": str(error)}, status)
    if status in (429, 503):
        response.headers["Retry-After"] = "1"
    if status == 401:
        response.headers["WWW-Authenticate"] = CHALLENGE
    if status in (408, 413):
        response.headers["Connection"] = "close"  # the rest of the body is not read
    return response


def http_error(request: Request, error: Exception) -> Response:
    """Answer what the framework turned down: an unknown path, a wrong method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    said = {
        404: f"path: must be one of the API, got {request.url.path[:200]}. See /v2 and /v2/models.",
        405: f"method: must fit the path, got {request.method}. GET metadata, POST predictions.",
    }
    detail = error.detail if isinstance(error, HTTPException) else "error"
    headers = error.headers if isinstance(error, HTTPException) else None
    response = as_json({"error": said.get(status, str(detail))}, status)
    response.headers.update(headers or {})
    return response


def crashed(request: Request, error: Exception) -> Response:
    """Answer after a fault of ours: the reason goes to the log, not to the caller."""
    logging.getLogger("evergreen.serving").error(
        "request_failed path=%s", request.url.path, exc_info=error
    )
    said = "serving: failed on this request. The log of the serving process has the reason."
    return as_json({"error": said}, 500)
