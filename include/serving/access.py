"""Who may ask serving what: API keys, checked before a body is read.

Owns when a key is needed. On the loopback interface serving is open until a first key exists or
EVERGREEN_SERVING_KEY is set; bound elsewhere it always asks for one. Fails closed: while it cannot know which keys
exist it answers nobody. After a start the copy on disk says which, until the ledger has answered. A key's text is compared by its hash and kept nowhere: not in logs, errors or metrics.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING

from include.errors import EvergreenError, SpecError
from include.serving.key_copy import KeyCopy, StoredKey
from include.serving.rejection import RequestError, quote
from include.serving.telemetry import log_event

if TYPE_CHECKING:
    from include.ledger.keys import ApiKey
    from include.settings import Settings

#: The challenge of a 401, as RFC 9110 wants it.
CHALLENGE = 'Bearer realm="evergreen"'
_ALL = "*"
_EVERY_SECONDS = 5.0
_SHORTEST = 16
_BEARER = b"bearer "
Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request.

    Args:
        id: Its key's id; empty without a key, `environment` for EVERGREEN_SERVING_KEY.
        models: The models it may ask; None for all.
    """

    id: str = ""
    models: frozenset[str] | None = None

    def sees(self, model: str) -> bool:
        """Whether it may ask a model, or be told that there is one."""
        return self.models is None or model in self.models

    def check(self, model: str) -> None:
        """Raise a 403 unless it may ask a model; whether there is such a model is not said."""
        if not self.sees(model):
            raise RequestError(
                403,
                f"model {quote(model)}",
                "must be one that your API key is for, got another one",
                "Use a key with this model in its scope.",
            )

    def check_all(self) -> None:
        """Raise a 403 unless it may ask every model: what tells about all of them is not for a part."""
        if self.models is not None:
            raise RequestError(
                403,
                "API key",
                "must be for all models here, got one for some of them",
                "Use a key that was added without --models.",
            )


ANYBODY = Caller()
_OURS = Caller("environment")


@dataclass(frozen=True, slots=True)
class _Known:
    digest: bytes
    until: float | None
    caller: Caller


@dataclass(frozen=True, slots=True)
class _Table:
    """The keys of one moment.

    Args:
        known: By id.
        passed: Those that were sent and found right, by their text: hashing is half of what a check costs. A table
            has its own, so that a request under way cannot let a key into the next table that is not in it.
    """

    known: Mapping[bytes, _Known]
    passed: dict[bytes, _Known] = field(default_factory=dict, repr=False)


class Access:
    """Knows the keys of this moment; asks the ledger every few seconds, in a thread of its own.

    Args:
        read: Returns the ledger's keys; may block.
        required: Whether a key is needed even where none exists.
        own: EVERGREEN_SERVING_KEY; empty for none.
        copy: The keys on serving's own disk, for when the ledger is away; None for no copy.
        clock: Returns seconds since 1970.

    Raises:
        SpecError: `own` is too short to be a secret.
    """

    def __init__(
        self,
        read: Callable[[], Sequence[ApiKey]],
        *,
        required: bool,
        own: str,
        copy: KeyCopy | None,
        clock: Callable[[], float],
    ) -> None:
        if own and len(own) < _SHORTEST:
            raise SpecError(
                "EVERGREEN_SERVING_KEY",
                f"must have at least {_SHORTEST} characters, got {len(own)}",
                "Set a long random one, such as from `openssl rand -hex 32`.",
            )
        self._read, self._required, self._copy, self._clock = read, required, copy, clock
        self._own = _Known(sha256(own.encode()).digest(), None, _OURS) if own else None
        self._table: _Table | None = None
        self._unread = _Table({})  # until there is a table only EVERGREEN_SERVING_KEY works
        self._open = False
        self._lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="api-keys", daemon=True)

    def start(self) -> None:
        """Take the copy on disk, where there is one, and begin to follow the ledger."""
        stored = self._copy.read() if self._copy else None
        if stored is not None:
            self._take(stored)
        self._thread.start()

    def stop(self) -> None:
        """Stop following. Does not wait for a hanging ledger."""
        self._stop.set()

    @property
    def known(self) -> bool:
        """Whether any caller can be answered: until it is known which keys exist, only EVERGREEN_SERVING_KEY works."""
        return self._table is not None or self._own is not None

    @property
    def open(self) -> bool:
        """Whether anybody may ask, without a key."""
        return self._open

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.refresh()
            except Exception:  # the thread must go on: a key that was revoked must stop working
                logging.getLogger("evergreen.serving").exception("keys_not_read")
            self._stop.wait(_EVERY_SECONDS)

    def refresh(self) -> None:
        """Read the ledger; keep what is known where it is away."""
        try:
            keys = self._read()
        except EvergreenError as error:
            if not self._lost:
                log_event("keys_not_read", level=logging.WARNING, error=str(error))
            self._lost = True
            return
        if self._lost:
            log_event("keys_read_again")
        self._lost = False
        stored = [_to_stored(key) for key in keys]
        self._take(stored)
        if self._copy:
            self._copy.write(stored)

    def _take(self, keys: Sequence[StoredKey]) -> None:
        known = {key.id.encode(): _to_known(key) for key in keys}
        before, self._table = self._table, _Table(known)  # a request sees the old one or the new
        self._open = not (self._required or self._own or known)
        if before is None or before.known.keys() != known.keys():
            log_event("keys_changed", keys=sorted(key.id for key in keys), open=self._open)

    def enter(self, headers: Headers) -> Caller:
        """Return who sent a request.

        Args:
            headers: Names in lower case, as ASGI hands them over.

        Raises:
            RequestError: 401 without a valid key, 503 while the keys are not known.
        """
        if self._open:
            return ANYBODY
        table = self._table
        token = _token(headers)
        if token is not None:
            known = self._find(token, table or self._unread)
            if known is not None and (known.until is None or self._clock() < known.until):
                return known.caller
        if table is None and not (token is None and (self._required or self._own)):
            raise RequestError(
                503,
                "serving",
                "must know its API keys first, and the ledger has not answered yet",
                "Try again shortly; the log of the serving process has the reason.",
            )
        got = "none" if token is None else "one that is unknown, revoked or expired"
        raise RequestError(
            401,
            "API key",
            f"must be valid, got {got}",
            "Send `Authorization: Bearer KEY` or `X-Api-Key: KEY`; `./evergreen key add` makes one.",
        )

    def _find(self, token: bytes, table: _Table) -> _Known | None:
        passed = table.passed.get(token)
        if passed is not None:
            return passed
        digest = sha256(token).digest()
        for known in (self._own, table.known.get(token[3:].partition(b".")[0])):
            if known is not None and hmac.compare_digest(digest, known.digest):
                table.passed[token] = known
                return known
        return None


def open_access(settings: Settings) -> Access:
    """Return the access these settings ask for.

    Raises:
        SpecError: EVERGREEN_SERVING_KEY is too short to be a secret.
    """
    from include.ledger.ledger import Ledger

    return Access(
        Ledger(settings.ledger_dsn).api_keys,
        required=not settings.on_loopback,
        own=settings.serving_key.get_secret_value(),
        copy=KeyCopy(settings.home / "serving-cache" / "keys.json"),
        clock=time.time,
    )


def _token(headers: Headers) -> bytes | None:
    token = None
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() == _BEARER:
            return value[7:].strip()
        if name == b"x-api-key":
            token = value.strip()
    return token


def _to_stored(key: ApiKey) -> StoredKey:
    return StoredKey(id=key.id, hash=key.hash, models=list(key.models), expires_at=key.expires_at)


def _to_known(key: StoredKey) -> _Known:
    return _Known(
        digest=bytes.fromhex(key.hash),
        until=datetime.fromisoformat(key.expires_at).timestamp() if key.expires_at else None,
        caller=Caller(key.id, None if _ALL in key.models else frozenset(key.models)),
    )
