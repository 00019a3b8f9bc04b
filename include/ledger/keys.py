"""The API keys of serving: who may ask which models, and until when.

Owns what a key is made of. The ledger keeps a key's hash only: the key itself is shown once, to whoever adds it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, RowMapping, select

from include.errors import DataError
from include.ledger.chain import canonical, iso
from include.ledger.tables import API_KEYS

if TYPE_CHECKING:
    from include.ledger.tables import Database

ALL = "*"
_SECRET_BYTES = 32
_MAX_NAME = 100
_LOCK = "api_keys"  # no model: those who write keys wait for each other


@dataclass(frozen=True)
class ApiKey:
    """One key as the ledger knows it.

    Args:
        id: What stands before the dot of the key; no secret.
        name: Who or what uses it.
        hash: SHA-256 of the whole key, in hex.
        models: The models it may ask; `("*",)` for all.
        created_at: ISO 8601, UTC.
        expires_at: ISO 8601, UTC; from then on it is refused. None: never.
        replaced_by: Id of the key that a rotation made in its place; None where it was not rotated.
    """

    id: str
    name: str
    hash: str
    models: tuple[str, ...]
    created_at: str
    expires_at: str | None
    replaced_by: str | None = None

    def expired(self, now: datetime) -> bool:
        """Tell whether it is refused by now (aware)."""
        return self.expires_at is not None and self.expires_at <= iso(now)


def hash_key(text: str) -> str:
    """Return what the ledger keeps of a key. A fast hash does: 256 random bits cannot be guessed."""
    return hashlib.sha256(text.encode()).hexdigest()


def key_id(text: str) -> str:
    """Return the id of a key's text; some text that is no id where it is no key."""
    return text.removeprefix("eg_").partition(".")[0]


class ApiKeys:
    """The part of the ledger that knows the API keys."""

    _db: Database

    def api_keys(self) -> list[ApiKey]:
        """Return all keys, oldest first; also those that have expired."""
        with self._db.read() as connection:
            rows = connection.execute(select(API_KEYS)).mappings().all()
        return sorted(map(_to_key, rows), key=lambda key: (key.created_at, key.id))

    def add_api_key(
        self,
        name: str,
        models: Collection[str] = (ALL,),
        *,
        now: datetime,
        lifetime: timedelta | None = None,
    ) -> tuple[ApiKey, str]:
        """Add a key.

        Args:
            name: Who or what will use it.
            models: The models it may ask, `*` for all.
            now: The time, aware.
            lifetime: How long it works; None for ever.

        Returns:
            What the ledger keeps, and the key itself, which nobody can look up again.

        Raises:
            DataError: Name or models cannot be used.
        """
        key, text = _make(name, models, now, lifetime)
        with self._db.write(_LOCK) as connection:
            _insert(connection, key)
        return key, text

    def rotate_api_key(
        self, id: str, *, now: datetime, grace: timedelta
    ) -> tuple[ApiKey, str, ApiKey]:
        """Add a key that takes another one's place; both work until the grace is over.

        Args:
            id: The key to replace. The new one has its name, its models and its lifetime.
            now: The time, aware.
            grace: How long the old one still works; not beyond its own end.

        Returns:
            The new key, its text, and the old key with its end.

        Raises:
            DataError: There is no such key, it has expired, or it was rotated before.
        """
        with self._db.write(_LOCK) as connection:
            old = _find(connection, id)
            if old.expired(now):
                raise DataError(
                    f"API key {id}",
                    f"must still work to be rotated, got one that ended {old.expires_at}",
                    "Add a new one with `./evergreen key add`.",
                )
            if (
                old.replaced_by
            ):  # its end is that of the grace, so its lifetime is not known any more
                raise DataError(
                    f"API key {id}",
                    f"must not have been rotated yet, got one that key {old.replaced_by} took the place of",
                    f"Rotate {old.replaced_by}, or add a new one with `./evergreen key add`.",
                )
            new, text = _make(old.name, old.models, now, _lifetime(old))
            end = iso(now + grace)
            end = min(end, old.expires_at) if old.expires_at else end
            ends = API_KEYS.update().where(API_KEYS.c.id == id)
            connection.execute(ends.values(expires_at=end, replaced_by=new.id))
            _insert(connection, new)
            return new, text, _find(connection, id)

    def revoke_api_key(self, id: str) -> ApiKey:
        """Remove a key; it is refused as soon as serving has read the ledger again.

        Raises:
            DataError: There is no such key.
        """
        with self._db.write(_LOCK) as connection:
            key = _find(connection, id)
            connection.execute(API_KEYS.delete().where(API_KEYS.c.id == id))
        return key


def _make(
    name: str, models: Collection[str], now: datetime, lifetime: timedelta | None
) -> tuple[ApiKey, str]:
    if not name.isprintable() or not 1 <= len(name.strip()) <= _MAX_NAME:
        raise DataError(
            "API key",
            f"must have a name of 1 to {_MAX_NAME} printable characters, got {name[:120]!r}",
            "Name who or what will use it.",
        )
    scope = tuple(dict.fromkeys(models))
    if not scope or not all(scope) or (ALL in scope and len(scope) > 1):
        raise DataError(
            f"API key {name!r}",
            f"must be for named models or for all of them, got {', '.join(scope)!r}",
            "Name models, or `*` alone.",
        )
    id = secrets.token_hex(6)
    text = f"eg_{id}.{secrets.token_urlsafe(_SECRET_BYTES)}"
    end = iso(now + lifetime) if lifetime else None
    return ApiKey(id, name.strip(), hash_key(text), scope, iso(now), end), text


def _lifetime(key: ApiKey) -> timedelta | None:
    if key.expires_at is None:
        return None
    return datetime.fromisoformat(key.expires_at) - datetime.fromisoformat(key.created_at)


def _insert(connection: Connection, key: ApiKey) -> None:
    values: dict[str, Any] = {**vars(key), "models": canonical(list(key.models))}
    connection.execute(API_KEYS.insert().values(**values))


def _find(connection: Connection, id: str) -> ApiKey:
    row = connection.execute(select(API_KEYS).where(API_KEYS.c.id == id)).mappings().first()
    if row is None:
        raise DataError(
            f"API key {id[:80]!r}",
            "must be in the ledger, got none of this id",
            "See `./evergreen key list`.",
        )
    return _to_key(row)


def _to_key(row: RowMapping) -> ApiKey:
    return ApiKey(**{**row, "models": tuple(json.loads(row["models"]))})
