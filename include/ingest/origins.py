"""Files and objects a source names: found, sorted, and opened for streaming.

Owns globs on disks and in S3, and reading an S3 object block by block without a copy on disk (a copy would hold
the columns that are to be dropped).
"""

from __future__ import annotations

import glob
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from include.errors import DataError, EvergreenError
from include.settings import get_settings
from include.spec.sources import FileSource, S3Source
from include.store.s3 import error_code, s3_client, s3_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Format = Literal["csv", "parquet", "jsonl"]
_ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_BLOCK_BYTES = 8 * 2**20
_ATTEMPTS = 3
# Arrow goes on with the row itself, in which also the columns stand that are to be dropped.
_QUOTED_ROW = re.compile(r"(CSV parse error: (?:Row #\d+: )?Expected \d+ columns, got \d+).*")


@dataclass(frozen=True)
class Origin:
    """One file or object: its name for people, its format, and how to open it from the start."""

    name: str
    format: Format
    open: Callable[[], Any]


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn whatever goes wrong while reading a file into an error that names it."""
    try:
        yield
    except EvergreenError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, EOFError) as error:
        whole = getattr(error, "strerror", None) or " ".join(str(error).split())
        reason = _QUOTED_ROW.sub(r"\1", whole)
        not_utf8 = isinstance(error, UnicodeDecodeError) or "UTF8" in reason
        raise DataError(
            name,
            f"must be readable, got: {reason[:300].rstrip('. ') or type(error).__name__}",
            "Convert the file to UTF-8."
            if not_utf8
            else "It is damaged, incomplete or of another format: replace it, or take it out of the path.",
        ) from (error if reason == whole else None)


def find_files(source: FileSource) -> list[Origin]:
    """Return the files of a source, sorted by path.

    Raises:
        DataError: Nothing matches, a folder was named, or the formats differ.
    """
    patterns = (source.path,) if isinstance(source.path, str) else source.path
    found: set[Path] = set()
    for pattern in patterns:
        settings = get_settings()
        whole = settings.resolve(pattern)
        matches = _matches(settings.resolve(""), pattern)
        if whole.is_dir():
            raise DataError(
                str(whole), "must be a file, got a folder", f"Write {pattern}/*.csv, say."
            )
        files = [m for m in matches if m.is_file()]
        if not files:
            raise nothing_matches(str(whole))
        found.update(files)

    def origin(path: Path) -> Origin:
        kind, compression = _format(path.name, str(path), source.format)
        return Origin(
            str(path),
            kind,
            lambda: (
                pa.input_stream(str(path), compression=compression)
                if kind != "parquet"
                else pa.OSFile(str(path))
            ),
        )

    return _one_format([origin(path) for path in sorted(found)])


def _matches(root: Path, pattern: str) -> list[Path]:
    """Return what a pattern matches; only what the spec says is a pattern, not the folder it starts from."""
    expanded = Path(pattern).expanduser()
    whole = expanded if expanded.is_absolute() else Path(glob.escape(str(root))) / expanded
    return [Path(match) for match in glob.glob(str(whole), recursive=True)]  # noqa: PTH207


def nothing_matches(where: str) -> DataError:
    """Return the error for a path or glob without any file."""
    return DataError(
        where,
        "must match at least one file, got none",
        "Correct ingest.source.path, or wait for the data (relative paths start at the repository root).",
    )


def _format(name: str, where: str, given: str) -> tuple[Format, str | None]:
    endings = Path(name.lower()).suffixes
    compression = _COMPRESSIONS.get(endings[-1]) if endings else None
    ending = (endings[:-1] if compression else endings)[-1:]
    if given in ("csv", "parquet", "jsonl"):
        return given, compression  # type: ignore[return-value]
    kind = _ENDINGS.get(ending[0]) if ending else None
    if kind is None:
        raise DataError(
            where,
            f"a file must end in {', '.join(_ENDINGS)}, got {''.join(ending) or 'no ending'}",
            "Name its format under ingest.source.format.",
        )
    return kind, compression


def _one_format(origins: list[Origin]) -> list[Origin]:
    kinds = sorted({origin.format for origin in origins})
    if len(kinds) > 1:
        raise DataError(
            origins[0].name,
            f"all files must have one format, got {' and '.join(kinds)}",
            "Narrow the path.",
        )
    return origins


# --- S3 -------------------------------------------------------------------------------------------------


def find_objects(source: S3Source, options: Mapping[str, Any] | None) -> list[Origin]:
    """Return the objects of a source, sorted by key; the listing is read page by page.

    Args:
        source: Path and endpoint.
        options: Further arguments of `boto3.client`, such as the keys of an Airflow connection.

    Raises:
        DataError: Nothing matches, or there is no such bucket.
        ServiceError: S3 is away, or there are no credentials.
    """
    bucket, _, pattern = source.path.removeprefix("s3://").partition("/")
    settings = dict(options or {})
    endpoint_url = source.endpoint_url or settings.pop("endpoint_url", None)
    settings.pop("endpoint_url", None)
    matches = re.compile(_glob_regex(pattern)).fullmatch
    start = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    found: list[tuple[str, str, int]] = []
    with s3_errors(source.path):
        client = s3_client(endpoint_url, **settings)
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start):
            found += [
                (item["Key"], item["ETag"], item["Size"])
                for item in page.get("Contents", ())
                if matches(item["Key"]) and not item["Key"].endswith("/")
            ]
    if not found:
        raise nothing_matches(source.path)

    def origin(key: str, etag: str, size: int) -> Origin:
        name = f"s3://{bucket}/{key}"
        kind, compression = _format(key, name, source.format)

        def opener() -> Any:
            raw = pa.PythonFile(ObjectReader(client, bucket, key, etag, size), "r")
            return pa.CompressedInputStream(raw, compression) if compression else raw

        return Origin(name, kind, opener)

    return _one_format([origin(*item) for item in sorted(found)])


def _glob_regex(pattern: str) -> str:
    """Translate a glob for keys: `*` and `?` stop at a slash, `**/` is any folder, `[ab]` one of these."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    regex = ""
    for part in parts:
        if part.startswith("[") and part.endswith("]"):
            regex += (
                "["
                + part[1:-1].replace("\\", r"\\").replace("!", "^", 1 if part[1] == "!" else 0)
                + "]"
            )
        else:
            regex += known.get(part) or re.escape(part)
    return regex


class ObjectReader(io.RawIOBase):
    """A seekable file over one version of an S3 object, fetched in blocks as they are needed."""

    def __init__(self, client: S3Client, bucket: str, key: str, etag: str, size: int) -> None:
        self._client, self._bucket, self._key, self._etag = client, bucket, key, etag
        self._size, self._at = size, 0
        self._block, self._block_start = memoryview(b""), 0

    def readable(self) -> bool:
        """Tell that this can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that this can be read from anywhere."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def size(self) -> int:
        """Return the object's size in bytes."""
        return self._size

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes from the position on; all of the rest when negative or None."""
        left = max(0, self._size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        parts = []
        while wanted:
            part = self._from_block(wanted)
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)

    def _from_block(self, wanted: int) -> memoryview:
        inside = self._at - self._block_start
        if not 0 <= inside < len(self._block):
            self._block = memoryview(self._get(self._at, max(wanted, _BLOCK_BYTES)))
            self._block_start, inside = self._at, 0
        part = self._block[inside : inside + wanted]
        self._at += len(part)
        return part

    def _get(self, start: int, length: int) -> bytes:
        from botocore.exceptions import ClientError

        name = f"s3://{self._bucket}/{self._key}"
        end = min(start + length, self._size) - 1
        with s3_errors(name):
            try:
                return self._get_range(f"bytes={start}-{end}")
            except ClientError as error:
                if error_code(error) in ("PreconditionFailed", "412"):
                    raise DataError(
                        name, "must not change while it is read, got a newer version", "Run again."
                    ) from error
                raise

    def _get_range(self, span: str, attempts: int = _ATTEMPTS) -> bytes:
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        answer = self._client.get_object(
            Bucket=self._bucket, Key=self._key, IfMatch=self._etag, Range=span
        )
        try:
            return answer["Body"].read()
        except (IncompleteReadError, HTTPClientError):
            if attempts == 1:  # boto3 retries requests, but not a body that breaks off
                raise
        return self._get_range(span, attempts - 1)
