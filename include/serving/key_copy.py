"""The API keys' hashes on serving's own disk: what lets it tell callers apart while the ledger is away.

Owns one JSON file, readable by its owner only. It holds no key: a hash cannot be sent instead of one.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from include.serving.telemetry import log_event


class StoredKey(BaseModel):
    """What serving needs of one key."""

    id: str = Field(description="What stands before the dot of the key.")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key, in hex.")
    models: list[str] = Field(description="The models it may ask; `*` for all.")
    expires_at: str | None = Field(description="ISO 8601, UTC; null: never.")


_KEYS = TypeAdapter(list[StoredKey])


class KeyCopy:
    """One file with the keys the ledger had when it last answered."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: list[StoredKey] | None = None

    def read(self) -> list[StoredKey] | None:
        """Return the keys; None where there is no copy, or a damaged one."""
        try:
            return _KEYS.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            said = type(error).__name__
            log_event("key_copy_unreadable", path=str(self._path), error=said)
            return None

    def write(self, keys: Sequence[StoredKey]) -> None:
        """Store the keys where they differ from those written before; a full disk is logged."""
        if self._written == list(keys):
            return
        try:
            self._replace(_KEYS.dump_json(list(keys)))
            self._written = list(keys)
        except OSError as error:
            log_event("key_copy_not_written", level=logging.ERROR, error=str(error))

    def _replace(self, data: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # mkstemp: for its owner only, and two processes that share the folder do not meet in one file
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            part.replace(self._path)
        finally:
            part.unlink(missing_ok=True)
