"""Sending a message through any channel Apprise speaks, and keeping what is secret about its address."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote

from include.notify.message import Kind, Message

CONNECTION = "connection:"
_TOKEN_LENGTH = 8
_LONG = 24  # so long a word is none
_SHORT = 5  # what is shorter stands in every other text
_SECRET_KEYS = {"pass", "password", "token", "key", "apikey", "secret", "access_token"}
# Words and short numbers, such as `training`, `Model-7` or `ops@example.com`; tokens mix letters and digits.
_WORD = r"(?:[A-Z]?[a-z]+\d{0,4}|[A-Z]+|\d{1,6})"
_WORDS = re.compile(rf"{_WORD}?(?:[-_.@ #]+{_WORD})*")
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


def secrets_of(url: str, *, kept: bool = False) -> list[str]:
    """Return what must not be seen of an address, as it is written and percent-decoded.

    That is its password, what its query keeps secret, and what looks like a token wherever it stands. Plain words
    stay readable: they stand in logs for other reasons, too.

    Args:
        url: The address.
        kept: It is kept in a connection: then everything but the host is secret.
    """
    rest, _, query = url.partition("://")[2].partition("?")
    authority, _, path = rest.partition("/")
    login, _, host = authority.rpartition("@")
    user, _, password = login.partition(":")
    named = _query(query)
    places = [user, *path.split("/"), *(value for _, value in named)]
    found = [url, password, *(value for name, value in named if name.lower() in _SECRET_KEYS)]
    found += [text for text in places if _is_token(text) or (kept and len(text) >= _SHORT)]
    host = re.sub(r":\d{1,5}$", "", host)
    if "." not in host and _is_token(host):  # some services have a token in its place
        found.append(host)
    return list(dict.fromkeys(text for one in found for text in (one, unquote(one)) if text))


def deliver(message: Message, receivers: Sequence[Receiver]) -> Delivery:
    """Send a message to every receiver, one after the other; one that fails does not keep it from the rest."""
    taken, missed = [], []
    for receiver in receivers:
        problem = receiver.problem or _try(message, receiver)
        if problem:
            missed.append(f"{receiver.name}: {problem}")
        else:
            taken.append(receiver.name)
    return Delivery(tuple(taken), tuple(missed))


def _try(message: Message, receiver: Receiver) -> str:
    try:
        return _send(message, receiver)
    except Exception as error:  # noqa: BLE001  # a fault of one channel; its text may hold the address
        return f"did not take the message, got {type(error).__name__}"


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
    for secret in sorted(
        (s for url in urls for s in secrets_of(url, kept=True)), key=len, reverse=True
    ):
        text = text.replace(secret, "***")
    return text


def _query(query: str) -> list[tuple[str, str]]:
    """Return names and values of a query, as they are written."""
    pairs = [pair.partition("=") for pair in query.split("&")]
    return [(name, value) for name, _, value in pairs]


def _is_token(text: str) -> bool:
    """Return whether a text looks random."""
    plain = unquote(text)
    if len(plain) < _TOKEN_LENGTH:
        return False
    return not _WORDS.fullmatch(plain) or max(map(len, re.split(r"[-_.@ #]", plain))) >= _LONG
