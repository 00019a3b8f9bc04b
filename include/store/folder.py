"""A store in a folder on a disk that every worker sees."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from include.errors import ServiceError
from include.store.files import Stored, check_key, check_prefix, missing

_TEMP = ".evergreen-"
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


def disk_error(where: str | Path, error: OSError) -> ServiceError:
    """Return the error for a disk that is full, read-only or not ours."""
    reason = error.strerror or type(error).__name__
    return ServiceError(
        str(where),
        f"must be readable and writable, got: {reason}",
        "Free some space, correct the permissions, or move it with EVERGREEN_HOME or EVERGREEN_STORE.",
    )


class FolderStore:
    """See `include.store.files.Store`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def uri(self, key: str) -> str:
        """Return the file's path."""
        return str(self._path(key))

    def exists(self, key: str) -> bool:
        """Tell whether the file is there."""
        return self._path(key).is_file()

    def read_bytes(self, key: str) -> bytes:
        """Return the file's bytes."""
        path = self._path(key)
        try:
            return path.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise missing(str(path)) from None
        except OSError as error:
            raise disk_error(path, error) from error

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with `prefix`, sorted, without files still being written."""
        folder = self.root / check_prefix(prefix).rpartition("/")[0]
        found = []
        for parent, _, names in os.walk(folder):
            base = Path(parent).relative_to(self.root).as_posix()
            lead = "" if base == "." else f"{base}/"
            found += [lead + name for name in names if not name.startswith(_TEMP)]
        yield from sorted(key for key in found if key.startswith(prefix))

    def scan(self, prefix: str) -> Iterator[Stored]:
        """Yield what `list` yields, with size and time of the last change."""
        for key in self.list(prefix):
            path = self._path(key)
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue  # deleted since it was listed
            except OSError as error:
                raise disk_error(path, error) from error
            yield Stored(key, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write a temporary file beside the target, then rename it."""
        return self._publish(self._path(key), _filler(data), _link if if_absent else None)

    def claim(self, key: str, data: bytes) -> bool:
        """Write a temporary file beside the target, then link it: refused where there are no hard links."""
        return self._publish(self._path(key), _filler(data), _link_strictly)

    def put_file(
        self, key: str, path: Path, *, if_absent: bool = False, move: bool = False
    ) -> bool:
        """Copy (or, where allowed and on the same disk, rename) the file into place."""

        def fill(temp: Path) -> None:
            if move and path.stat().st_dev == temp.parent.stat().st_dev:
                path.rename(temp)
            else:
                shutil.copyfile(path, temp)
            with temp.open("rb+") as file:
                os.fsync(file.fileno())

        return self._publish(self._path(key), fill, _link if if_absent else None)

    def fetch(self, key: str, *, fresh: bool = False) -> Path:  # noqa: ARG002
        """Return the file itself."""
        path = self._path(key)
        if not path.is_file():
            raise missing(str(path))
        return path

    def delete(self, key: str) -> None:
        """Remove the file; empty folders stay."""
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(path, error) from error

    def _publish(
        self,
        target: Path,
        fill: Callable[[Path], None],
        link: Callable[[Path, Path], bool] | None,
    ) -> bool:
        if link and target.exists():
            return False
        temp = target.parent / f"{_TEMP}{uuid.uuid4().hex}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            fill(temp)
            if link:
                return link(temp, target)
            temp.replace(target)
        except OSError as error:
            raise disk_error(target, error) from error
        finally:
            with suppress(OSError):
                temp.unlink(missing_ok=True)
        return True


def _filler(data: bytes) -> Callable[[Path], None]:
    def fill(temp: Path) -> None:
        with temp.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    return fill


def _hard_link(temp: Path, target: Path) -> bool:
    """Give `temp` its name unless the name is taken; a hard link is the one atomic way to do that."""
    try:
        os.link(temp, target)
    except FileExistsError:
        return False
    return True


def _link_strictly(temp: Path, target: Path) -> bool:
    try:
        return _hard_link(temp, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        raise ServiceError(
            str(target),
            "a lock must be on a file system with hard links, got one without",
            "Move the store to another disk or to S3 with EVERGREEN_STORE.",
        ) from error


def _link(temp: Path, target: Path) -> bool:
    try:
        return _hard_link(temp, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # Some network and desktop file systems have no hard links. What is written with if_absent is
        # content-addressed, so of two writers in this very instant either result is right.
        if target.exists():
            return False
        temp.replace(target)
    return True
