"""Sending a message through any channel Apprise speaks, and keeping what is secret about its address."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from include.notify.message import Kind, Message

CONNECTION = "connection:"
_TOKEN_LENGTH = 8
_SECRET_KEYS = {"pass", "password", "token", "key", "apikey", "secret", "access_token"}
_COLOURS: Mapping[Kind, str] = {
    "failure": "failure",
    "rejection": "warning",
    "promotion": "success",
    "approval": "info",
    "drift": "warning",
    "rollback": "warning",
}


@dataclass(frozen=True)
class Receiver:
    """Somebody to tell.

    Attributes:
        name: What may be said about the receiver in logs.
        urls: Apprise URLs; secret.
        problem: Why there are none; empty when there are.
    """

    name: str
    urls: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True)
class Delivery:
    """Who took a message, by name, and what kept it from the others: `name: problem`."""

    taken: tuple[str, ...]
    missed: tuple[str, ...]


def receiver_of(url: str) -> Receiver:
    """Return the receiver at an address that stands in the spec itself."""
    return Receiver(hide_address(url), (url,))


def hide_address(receiver: str) -> str:
    """Return a receiver without what it keeps secret: its scheme, or the name of its connection."""
    if receiver.startswith(CONNECTION):
        return receiver
    scheme, separator, _ = receiver.partition("://")
    return f"{scheme}://..." if separator else "text without ://"


def secrets_of(url: str) -> list[str]:
    """Return what must not be seen of an address: passwords and tokens stand anywhere behind its scheme."""
    rest = url.partition("://")[2]
    try:
        parts = urlsplit(url)
        found = [unquote(parts.password or ""), *_query_secrets(parts.query)]
    except ValueError:  # not a URL; then it is refused
        found = []
    tokens = [part for part in rest.split("/") if len(part) >= _TOKEN_LENGTH]
    return [secret for secret in (url, *found, *tokens) if secret]


def deliver(message: Message, receivers: Sequence[Receiver]) -> Delivery:
    """Send a message to every receiver, one after the other; one that fails does not keep it from the rest."""
    taken, missed = [], []
    for receiver in receivers:
        problem = receiver.problem or _send(message, receiver)
        if problem:
            missed.append(f"{receiver.name}: {problem}")
        else:
            taken.append(receiver.name)
    return Delivery(tuple(taken), tuple(missed))


def _send(message: Message, receiver: Receiver) -> str:
    """Return why the message was not taken; empty when it was."""
    import apprise

    channels = apprise.Apprise()
    with _overheard() as said:
        if not all([channels.add(url) for url in receiver.urls]) or not len(channels):
            return "must be an Apprise URL. See the list of services in Apprise's manual"
        sent = channels.notify(
            title=message.title,
            body=message.body,
            notify_type=_COLOURS[message.kind],
            body_format=apprise.NotifyFormat.TEXT,
        )
    return "" if sent else _scrub("; ".join(said), receiver.urls) or "did not take the message"


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """Collect Apprise's warnings, and keep all that is said from the logs: addresses may stand in it."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener = Listener(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("apprise", "urllib3")]
    passed_on = [logger.propagate for logger in loggers]
    loggers[0].addHandler(listener)
    for logger in loggers:
        logger.propagate = False
    try:
        yield said
    finally:
        loggers[0].removeHandler(listener)
        for logger, was in zip(loggers, passed_on, strict=True):
            logger.propagate = was


def _scrub(text: str, urls: Sequence[str]) -> str:
    for secret in sorted((s for url in urls for s in secrets_of(url)), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _query_secrets(query: str) -> list[str]:
    return [value for name, value in parse_qsl(query) if name.lower() in _SECRET_KEYS]
