"""The store: snapshots, reports and other files under one folder or one S3 prefix, behind one interface.

Owns the interface, the rule for keys and the choice of the implementation. Every write is atomic: readers see
the old bytes or the new ones, whenever the writer is killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Protocol

from include.errors import DataError
from include.settings import get_settings


@dataclass(frozen=True)
class Stored:
    """What is known of one key without reading it: its size, and when it was written, aware UTC."""

    key: str
    bytes: int
    written_at: datetime


class Store(Protocol):
    """Files named by keys: relative posix paths such as `snapshots/churn/1f0c/manifest.json`."""

    def uri(self, key: str) -> str:
        """Return where the key's bytes are, for people and for manifests; the key need not exist."""
        ...

    def exists(self, key: str) -> bool:
        """Tell whether something is stored under the key."""
        ...

    def read_bytes(self, key: str) -> bytes:
        """Return the stored bytes.

        Raises:
            DataError: Nothing is stored under the key.
        """
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with `prefix` (any text; end it with `/` for a folder), sorted."""
        ...

    def scan(self, prefix: str) -> Iterator[Stored]:
        """Yield what `list` yields, with size and age."""
        ...

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Store bytes atomically.

        Args:
            key: Where.
            data: What.
            if_absent: Leave alone what is already there.

        Returns:
            False when `if_absent` is set and the key was taken, else True.
        """
        ...

    def claim(self, key: str, data: bytes) -> bool:
        """Store bytes where nothing is: of all who try, at whatever moment, exactly one succeeds. For locks.

        Returns:
            False when the key was taken.

        Raises:
            ServiceError: The store cannot promise that.
        """
        ...

    def put_file(
        self, key: str, path: Path, *, if_absent: bool = False, move: bool = False
    ) -> bool:
        """Store a local file atomically; `move` allows to take the file away instead of copying it.

        Returns:
            False when `if_absent` is set and the key was taken, else True.
        """
        ...

    def fetch(self, key: str, *, fresh: bool = False) -> Path:
        """Return a local path with the key's bytes, to be read only.

        A folder gives the file itself; S3 downloads into the cache unless it holds this very version.
        `fresh` downloads again, for a cached copy that turned out damaged.

        Raises:
            DataError: Nothing is stored under the key.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the key; nothing happens when it is not there."""
        ...


def check_key(key: str) -> str:
    """Return the key if it is a plain relative posix path.

    Raises:
        DataError: It is empty, absolute, has `..`, `.`, empty parts, backslashes or control characters.
    """
    parts = key.split("/")
    plain = all(p not in ("", ".", "..") for p in parts) and "\\" not in key and key.isprintable()
    if not plain or PurePosixPath(key).is_absolute():
        raise DataError(
            "store", f"a key must be a relative path without '..', got {key!r}", "Use another name."
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix if some key could begin with it; empty means all keys."""
    if prefix:
        check_key(prefix[:-1] if prefix.endswith("/") else prefix)
    return prefix


def missing(uri: str) -> DataError:
    """Return the error for a key that holds nothing."""
    return DataError(uri, "must exist, got nothing there", "Check the name, or create it again.")


def open_store(uri: str, *, cache: Path | None = None, endpoint_url: str | None = None) -> Store:
    """Open a store; nothing is contacted or created yet.

    Args:
        uri: Folder path, or `s3://bucket/prefix`.
        cache: Folder for downloads from S3; None means `cache` under `EVERGREEN_HOME`.
        endpoint_url: S3 endpoint; None means AWS or the `AWS_ENDPOINT_URL` environment variable.

    Raises:
        DataError: The URI has another scheme, or no bucket.
    """
    if "://" not in uri:
        from include.store.folder import FolderStore

        return FolderStore(Path(uri).expanduser().absolute())
    scheme, rest = uri.split("://", 1)
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise DataError(
            uri, "a store must be a folder or s3://bucket/prefix", "Correct EVERGREEN_STORE."
        )
    from include.store.s3 import S3Store

    return S3Store(
        bucket, prefix, cache=cache or get_settings().home / "cache", endpoint_url=endpoint_url
    )
