"""Reading what a POST sends: its media type, its encoding, and a body of bounded size."""

from __future__ import annotations

from fastapi import Request
from starlette.requests import ClientDisconnect

from include.serving.rejection import RequestError, bad

JSON = ("", "application/json")
CSV = ("text/csv",)
# What curl says when it is told nothing; a body that is no JSON is refused all the same.
_NOTHING_SAID = "application/x-www-form-urlencoded"


def media_type(request: Request) -> str:
    """Return the body's media type in lower case; empty where nothing was said."""
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return "" if said == _NOTHING_SAID else said


def check_media(request: Request, allowed: tuple[str, ...]) -> None:
    """Raise a 415 unless the body comes in one of the allowed forms, uncompressed."""
    media = media_type(request)
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


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body.

    Raises:
        RequestError: 413 beyond `limit` bytes, 400 where it ends too early.
    """
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


def _too_large(limit: int) -> RequestError:
    return RequestError(
        413,
        "body",
        f"must have at most {limit} bytes, got more",
        "Split the request into smaller ones.",
    )
