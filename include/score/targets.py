"""Where predictions go: a folder, a prefix in S3, or a table.

Owns that writing a partition again replaces that partition and no other, in one step: who reads at any instant, or
after a writer was killed at any instant, finds the whole old partition or the whole new one.

In a folder and in S3 a partition is one file of a fixed name, so that the rename (the end of the upload) is that one
step. Several files named by their content would need a reader that knows which of them count; a pattern such as
`*/*.parquet` finds one file a partition, always.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from include.errors import DataError
from include.settings import get_settings
from include.spec.score import FileTarget, S3Target, Target
from include.store.files import Store
from include.store.folder import FolderStore
from include.store.s3 import S3Store, s3_client

FILE = "predictions.parquet"
_LEFTOVER_AGE = timedelta(days=1)


class Destination(Protocol):
    """An opened target."""

    def check(self) -> None:
        """Raise where it is clear before any work that nothing can be written."""
        ...

    def write(self, partition: str, path: Path) -> str:
        """Put the rows of a Parquet file in the partition's place; return where they are, for people.

        Raises:
            DataError: The target refuses them.
            ServiceError: It is away, or somebody else writes the same partition at this instant.
        """
        ...


def open_target(
    target: Target,
    *,
    now: datetime,
    sql_url: str | None = None,
    s3_options: Mapping[str, Any] | None = None,
) -> Destination:
    """Open a target; nothing is written yet.

    Args:
        target: The spec's `score.to`.
        now: The time, aware.
        sql_url: SQLAlchemy URL of an `sql` target; None means the environment variable the spec names.
        s3_options: Further arguments of `boto3.client` for an `s3` target; None means boto3's own chain.

    Raises:
        SpecError: There is no URL.
        ServiceError: The database's driver is missing.
    """
    if isinstance(target, FileTarget):
        folder = FolderStore(get_settings().resolve(target.path))
        return Files(folder, sweep=folder.root, now=now)
    if isinstance(target, S3Target):
        bucket, _, prefix = target.path.removeprefix("s3://").partition("/")
        options = dict(s3_options or {})
        endpoint_url = target.endpoint_url or options.pop("endpoint_url", None)
        options.pop("endpoint_url", None)
        client = s3_client(endpoint_url, **options)
        unused = get_settings().home / "cache"
        return Files(S3Store(bucket, prefix, cache=unused, client=client), now=now)
    from include.score.table import Table

    return Table.of(target, sql_url)


class Files:
    """A folder or a prefix; see `Destination`.

    Args:
        store: The folder or prefix.
        now: The time.
        sweep: Folder on a disk in which killed writers may have left hidden files; None for none.
    """

    def __init__(self, store: Store, *, now: datetime, sweep: Path | None = None) -> None:
        self._store, self._now, self._sweep = store, now, sweep

    def check(self) -> None:
        """Refuse a folder that is a file."""
        if self._sweep is not None and self._sweep.exists() and not self._sweep.is_dir():
            raise DataError(
                str(self._sweep), "must be a folder, got a file", "Correct score.to.path."
            )

    def write(self, partition: str, path: Path) -> str:
        """Rename or upload the file into place; it may be moved away."""
        key = f"partition={partition}/{FILE}"
        self._store.put_file(key, path, move=True)
        if self._sweep is not None:
            self._remove_leftovers(self._sweep / f"partition={partition}")
        return self._store.uri(key)

    def _remove_leftovers(self, folder: Path) -> None:
        oldest = (self._now - _LEFTOVER_AGE).timestamp()
        for left in folder.glob(".evergreen-*"):
            with suppress(OSError):  # gone already, or not ours: it harms no reader
                if left.stat().st_mtime < oldest:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
