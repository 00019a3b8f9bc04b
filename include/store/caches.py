"""The caches on this machine: what nobody has read for long is removed; whoever needs it fetches it again."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from include.store.folder import disk_error

_ASIDE = ".part-"  # what begins like this is nobody's, as `include.registry.cache` sees it, too


def prune_caches(root: Path, before: datetime) -> int:
    """Remove the cached folders of which no file was read or written since.

    A folder is taken out of sight first, so that nobody finds half of one. Where the disk does not keep times of
    reading, those of writing count.

    Args:
        root: The folder of all caches; need not exist.
        before: The time, aware.

    Returns:
        How many bytes were freed.
    """
    freed = 0
    try:
        for folder in list(_folders(root)):
            files = [path for path in folder.rglob("*") if path.is_file()]
            if any(_used(path) >= before for path in (*files, folder)):
                continue
            freed += sum(path.stat().st_size for path in files)
            aside = folder.with_name(f"{_ASIDE}{uuid.uuid4().hex}")
            folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
    except FileNotFoundError:
        pass  # somebody else cleans up as well
    except OSError as error:
        raise disk_error(root, error) from error
    return freed


def _folders(root: Path) -> Iterator[Path]:
    """Yield the folders that are fetched as a whole: versions, references, files from S3."""
    for pattern in ("models/*/*", "references/*/*", "[0-9a-f]" * 32, f"{_ASIDE}*"):
        for folder in root.glob(pattern):
            if folder.is_dir() and not folder.is_symlink():
                yield folder


def _used(path: Path) -> datetime:
    stat = path.stat()
    # Looking at a folder counts as reading it, and that is what is done here.
    newest = stat.st_mtime if path.is_dir() else max(stat.st_mtime, stat.st_atime)
    return datetime.fromtimestamp(newest, UTC)
