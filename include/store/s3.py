"""A store in S3 or anything that speaks its API; also the one place that makes S3 clients and reads S3 errors."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.errors import DataError, EvergreenError, ServiceError
from include.store.files import Stored, check_key, check_prefix, missing
from include.store.folder import disk_error

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_SINGLE_PUT_BYTES = 5 * 2**30
_PART_BYTES = 64 * 2**20
_NOT_THERE = ("NoSuchKey", "404", "NotFound")
_TAKEN = ("PreconditionFailed", "412")
_BUSY = ("ConditionalRequestConflict", "409")
_BUSY_SECONDS = 20.0
_DENIED = ("AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch")


def s3_client(endpoint_url: str | None = None, **options: Any) -> S3Client:
    """Make an S3 client with bounded waits.

    Args:
        endpoint_url: S3 endpoint; None means AWS or the `AWS_ENDPOINT_URL` environment variable.
        options: Further arguments of `boto3.client`, such as keys and region; None values are left out.
    """
    import boto3
    from botocore.config import Config

    given = {name: value for name, value in options.items() if value is not None}
    if endpoint_url:
        given["endpoint_url"] = endpoint_url
    session = boto3.session.Session()  # the default one keeps the first credentials it ever saw
    given.setdefault("region_name", session.region_name or "us-east-1")
    config = Config(
        connect_timeout=5, read_timeout=60, retries={"mode": "standard", "max_attempts": 4}
    )
    client: S3Client = session.client("s3", config=config, **given)
    return client


def error_code(error: Exception) -> str:
    """Return S3's code of a `ClientError`, else an empty text."""
    response: Mapping[str, Any] = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def s3_error(where: str, error: Exception) -> EvergreenError:
    """Translate an error of boto3 into one of ours that says what to do."""
    from botocore import exceptions as boto

    code = error_code(error)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return ServiceError(
            where,
            "needs S3 credentials, got none",
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name an Airflow connection.",
        )
    if code == "NoSuchBucket":
        return DataError(
            where,
            "the bucket must exist, got NoSuchBucket",
            "Create it, or correct the name or the endpoint.",
        )
    if code in _DENIED:
        return ServiceError(
            where,
            f"must be allowed, got {code}",
            "Check the credentials and the bucket's permissions.",
        )
    if code in _NOT_THERE:
        return missing(where)
    return ServiceError(
        where, f"S3 must answer, got: {error}", "Check the endpoint and the network, then retry."
    )


@contextmanager
def s3_errors(where: str) -> Iterator[None]:
    """Turn boto3's errors inside the block into ours."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, Boto3Error) as error:
        cause = error.__context__ if isinstance(error, Boto3Error) else None
        raise s3_error(where, cause if isinstance(cause, Exception) else error) from error


class S3Store:
    """See `include.store.files.Store`."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        cache: Path,
        endpoint_url: str | None = None,
        client: S3Client | None = None,
    ) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.cache = cache
        self._endpoint_url, self._given = endpoint_url, client

    @cached_property
    def _client(self) -> S3Client:
        return self._given or s3_client(self._endpoint_url)

    def _name(self, key: str) -> str:
        return self.prefix + check_key(key)

    def uri(self, key: str) -> str:
        """Return the object's `s3://` URI."""
        return f"s3://{self.bucket}/{self._name(key)}"

    def _etag(self, key: str) -> str | None:
        from botocore.exceptions import ClientError

        with s3_errors(self.uri(key)):
            try:
                head = self._client.head_object(Bucket=self.bucket, Key=self._name(key))
            except ClientError as error:
                # A HEAD has no body: a missing bucket and a missing key look the same.
                if error_code(error) in _NOT_THERE:
                    return None
                raise
        return head["ETag"]

    def exists(self, key: str) -> bool:
        """Tell whether the object is there."""
        return self._etag(key) is not None

    def read_bytes(self, key: str) -> bytes:
        """Return the object's bytes."""
        with s3_errors(self.uri(key)):
            return self._client.get_object(Bucket=self.bucket, Key=self._name(key))["Body"].read()

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with `prefix`, sorted, page by page."""
        for stored in self.scan(prefix):
            yield stored.key

    def scan(self, prefix: str) -> Iterator[Stored]:
        """Yield what `list` yields, with size and time of the upload."""
        with s3_errors(f"s3://{self.bucket}/{self.prefix}{prefix}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + check_prefix(prefix)
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self.prefix)
                    yield Stored(key, item["Size"], item["LastModified"])

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Put the object, with S3's own `If-None-Match` where asked."""
        condition: Any = {"IfNoneMatch": "*"} if if_absent else {}
        return self._unless_taken(
            key,
            lambda: self._client.put_object(
                Bucket=self.bucket, Key=self._name(key), Body=data, **condition
            ),
        )

    def claim(self, key: str, data: bytes) -> bool:
        """Put the object with `If-None-Match`, which S3 decides for one writer."""
        return self.write_bytes(key, data, if_absent=True)

    def put_file(
        self,
        key: str,
        path: Path,
        *,
        if_absent: bool = False,
        move: bool = False,  # noqa: ARG002
    ) -> bool:
        """Upload the file, with S3's own `If-None-Match` where asked.

        boto3's upload in parts cannot set that condition, so beyond the limit of a single put the key is only
        looked up first; what is written with `if_absent` is content-addressed, so either of two writers is right.
        """
        from boto3.s3.transfer import TransferConfig

        if if_absent and self.exists(key):
            return False
        name = self._name(key)
        if if_absent and path.stat().st_size <= _SINGLE_PUT_BYTES:

            def put() -> None:
                with path.open("rb") as body:
                    self._client.put_object(
                        Bucket=self.bucket, Key=name, Body=body, IfNoneMatch="*"
                    )

        else:

            def put() -> None:
                config = TransferConfig(multipart_chunksize=_PART_BYTES)
                self._client.upload_file(str(path), self.bucket, name, Config=config)

        return self._unless_taken(key, put)

    def _unless_taken(self, key: str, put: Callable[[], object]) -> bool:
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import ClientError

        deadline, pause = time.monotonic() + _BUSY_SECONDS, 0.05
        with s3_errors(self.uri(key)):
            while True:
                try:
                    put()
                except (ClientError, S3UploadFailedError) as error:
                    cause = error.__context__ if isinstance(error, S3UploadFailedError) else error
                    code = error_code(cause) if isinstance(cause, Exception) else ""
                    if code in _TAKEN:
                        return False
                    # Another put or a deletion is under way: who wins is not known yet.
                    if code not in _BUSY or time.monotonic() >= deadline:
                        raise
                    time.sleep(pause)
                    pause = min(2 * pause, 1.0)
                else:
                    return True

    def fetch(self, key: str, *, fresh: bool = False) -> Path:
        """Download into the cache, under a name made of URI and ETag, so that versions never mix."""
        etag = self._etag(key)
        if etag is None:
            raise missing(self.uri(key))
        folder = hashlib.sha256(f"{self.uri(key)}\n{etag}".encode()).hexdigest()[:32]
        target = self.cache / folder / key.rpartition("/")[2]
        if target.is_file() and not fresh:
            return target
        temp = target.with_name(f".evergreen-{uuid.uuid4().hex}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with s3_errors(self.uri(key)):
                self._client.download_file(self.bucket, self._name(key), str(temp))
            temp.replace(target)
        except OSError as error:
            raise disk_error(target, error) from error
        finally:
            with suppress(OSError):
                temp.unlink(missing_ok=True)
        return target

    def delete(self, key: str) -> None:
        """Delete the object."""
        with s3_errors(self.uri(key)):
            self._client.delete_object(Bucket=self.bucket, Key=self._name(key))
