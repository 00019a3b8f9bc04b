"""Reading what a POST sends: its media type, its encoding, and a body of bounded size within a bounded time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import Request
from starlette.types import Receive

from include.serving.limits import Limits
from include.serving.rejection import RequestError, bad

JSON = ("", "application/json")
CSV = ("text/csv",)
# What curl says when it is told nothing; a body that is no JSON is refused all the same.
_NOTHING_SAID = "application/x-www-form-urlencoded"


def plain_type(header: str) -> str:
    """Return a body's media type in lower case; empty where nothing was said."""
    said = header.partition(";")[0].strip().lower()
    return "" if said == _NOTHING_SAID else said


def check_media(request: Request, allowed: tuple[str, ...]) -> None:
    """Raise a 415 unless the body comes in one of the allowed forms, uncompressed."""
    headers = request.headers
    check_type(plain_type(headers.get("content-type", "")), allowed)
    check_encoding(headers.get("content-encoding", "identity"))


def check_type(media: str, allowed: tuple[str, ...]) -> None:
    """Raise a 415 unless a media type is one of the allowed."""
    if media not in allowed:
        wanted = " or ".join(each for each in allowed if each)
        raise RequestError(
            415, "Content-Type", f"must be {wanted}, got {media[:80]}", f"Send {wanted}."
        )


def check_encoding(encoding: str) -> None:
    """Raise a 415 for a compressed body."""
    if encoding != "identity":
        raise RequestError(
            415,
            "Content-Encoding",
            f"must be identity, got {encoding[:80]}",
            "Send it uncompressed.",
        )


class Bodies:
    """Reads the bodies of requests, all on the event loop.

    Args:
        limits: Size and time of one, and the size of all of them.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = self._arriving = 0  # bytes: of all, and of those whose end is not there
        self._until: dict[asyncio.Task[Any], float] = {}  # the first has taken longest
        self._late: dict[asyncio.Task[Any], RequestError] = {}

    async def read(self, receive: Receive, length: bytes | None) -> bytes:
        """Return a body; `release` it in the end.

        Args:
            receive: The request's.
            length: What its Content-Length says; None for nothing.

        Raises:
            RequestError: 413 beyond the limit, 408 when it does not come in time, 400 where it ends too early, 503
                where others have taken the room.
        """
        if length is not None and length.isdigit() and int(length) > self._limits.body_bytes:
            raise _too_large(self._limits.body_bytes)
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a body can only be read in a task")
        # A timer of its own would cost every request 1.5 microseconds, and most bodies are there already.
        self._until[task] = time.monotonic() + self._limits.body_seconds
        # Where there are too many, whoever is slow gives way, not whoever is new.
        if len(self._until) > self._limits.arriving:
            self._give_up(next(iter(self._until)), _overtaken(self._limits.arriving))
        try:
            message = await receive()
            if not message.get("more_body") and message["type"] == "http.request":
                body: bytes = message.get("body", b"")
                if len(body) > self._limits.body_bytes:
                    raise _too_large(self._limits.body_bytes)
                self._held += len(body)
                return body
            return await self._rest(message, receive)
        except asyncio.CancelledError:
            late = self._late.pop(task, None)
            if late is None:
                raise
            task.uncancel()
            raise late from None
        finally:
            self._until.pop(task, None)

    async def _rest(self, message: Any, receive: Receive) -> bytes:
        parts, size = [], 0
        try:
            while True:
                if message["type"] != "http.request":
                    raise _cut_off()
                part = message.get("body", b"")
                size += len(part)
                self._held += len(part)
                self._arriving += len(part)
                if size > self._limits.body_bytes:
                    raise _too_large(self._limits.body_bytes)
                if self._held > self._limits.pending_bytes:
                    raise _no_room("bodies", self._limits.pending_bytes)
                if self._arriving > self._limits.arriving_bytes:
                    raise _no_room("unfinished bodies", self._limits.arriving_bytes)
                parts.append(part)
                if not message.get("more_body"):
                    return b"".join(parts)
                message = await receive()
        except BaseException:
            self._held -= size
            raise
        finally:
            self._arriving -= size

    def release(self, body: bytes) -> None:
        """Count a body as done with."""
        self._held -= len(body)

    def sweep(self) -> None:
        """Give up on bodies that have taken too long; called now and then."""
        now = time.monotonic()
        for task in [task for task, until in self._until.items() if until < now]:
            self._give_up(task, _too_slow(self._limits.body_seconds))

    def _give_up(self, task: asyncio.Task[Any], error: RequestError) -> None:
        del self._until[task]
        self._late[task] = error
        task.cancel()


def _cut_off() -> RequestError:
    return bad("body", "must be sent to its end, got a part", "Send it again.")


def _too_slow(seconds: float) -> RequestError:
    return RequestError(
        408, "body", f"must arrive within {seconds:g} s, got a part", "Send it again."
    )


def _overtaken(limit: int) -> RequestError:
    return RequestError(
        408,
        "body",
        f"must arrive before {limit} others are on their way, got a part",
        "Send it again, faster or in smaller requests.",
    )


def _no_room(what: str, limit: int) -> RequestError:
    return RequestError(
        503,
        "serving",
        f"must hold {what} of at most {limit} bytes together, got more",
        "Try again shortly.",
    )


def _too_large(limit: int) -> RequestError:
    return RequestError(
        413,
        "body",
        f"must have at most {limit} bytes, got more",
        "Split the request into smaller ones.",
    )
