"""Bare uvicorn: an answer of the same size, whatever was asked. The floor under every Python server."""

from __future__ import annotations

import os
from typing import Any

# By path: as many bytes as Evergreen answers to one row and to a hundred.
SIZES = {f"/{size}": int(size) for size in os.environ["BENCH_SIZES"].split()}
ANSWERS = {
    path: (
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(size).encode()),
            ],
        },
        {"type": "http.response.body", "body": b"x" * size},
    )
    for path, size in SIZES.items()
}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ARG001
    """Answer without looking at the request."""
    start, body = ANSWERS[scope["path"]]
    await send(start)
    await send(body)
