from __future__ import annotations

import io
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import pytest
from moto.s3.models import s3_backends
from mypy_boto3_s3 import S3Client

from include.errors import DataError, ServiceError
from include.ingest import origins
from include.ingest.ingest import IngestResult

Run = Callable[..., IngestResult]
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


@pytest.fixture
def bucket(s3_endpoint: str, request: pytest.FixtureRequest) -> str:
    return f"in-{abs(hash(request.node.nodeid))}"


@pytest.fixture
def client(bucket: str, s3_endpoint: str) -> S3Client:
    made = boto3.session.Session(**KEYS).client(
        "s3", endpoint_url=s3_endpoint, region_name="us-east-1"
    )
    made.create_bucket(Bucket=bucket)
    return made


@pytest.fixture
def source(bucket: str, s3_endpoint: str) -> Callable[[str], dict[str, Any]]:
    return lambda path: {"kind": "s3", "path": f"s3://{bucket}/{path}", "endpoint_url": s3_endpoint}


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


FRAME = pd.DataFrame({"y": [0, 1] * 500, "x": range(1000), "c": [f"c{i % 3}" for i in range(1000)]})


def content(form: str) -> bytes:
    buffer = io.BytesIO()
    if form == "parquet":
        FRAME.to_parquet(buffer)
    elif form == "jsonl":
        FRAME.to_json(buffer, orient="records", lines=True)
    else:
        FRAME.to_csv(buffer, index=False, compression="gzip" if form == "csv.gz" else None)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet", "jsonl"])
def test_objects_are_streamed_in_blocks(
    run: Run,
    client: S3Client,
    bucket: str,
    source: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    form: str,
) -> None:
    monkeypatch.setattr(origins, "_BLOCK_BYTES", 1500)
    client.put_object(Bucket=bucket, Key=f"daily/a.{form}", Body=content(form))
    manifest = run(source=source("daily/*"), s3_options=KEYS).manifest
    local = tmp_path / f"local.{form}"
    local.write_bytes(content(form))
    same = run(source={"kind": "file", "path": str(local)})
    assert same.manifest.snapshot_id == manifest.snapshot_id
    assert not same.new
    assert manifest.rows == 1000
    assert manifest.source == f"s3://{bucket}/daily/*"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("d/*.csv", ["d/a.csv", "d/b.csv"]),
        ("d/?.csv", ["d/a.csv", "d/b.csv"]),
        ("d/[!a].csv", ["d/b.csv"]),
        ("d/**/*.csv", ["d/a.csv", "d/b.csv", "d/e/c.csv", "d/e/f/g.csv"]),
        ("d/*/c.csv", ["d/e/c.csv"]),
        ("d/e/c.csv", ["d/e/c.csv"]),
        ("**/g.csv", ["d/e/f/g.csv"]),
        ("d/a+(1).csv", ["d/a+(1).csv"]),
    ],
)
def test_globs(client: S3Client, bucket: str, source: Any, pattern: str, found: list[str]) -> None:
    from include.spec.sources import S3Source

    for key in ("d/", "d/b.csv", "d/a.csv", "d/e/c.csv", "d/e/f/g.csv", "d/a.txt", "x/a.csv.bak"):
        client.put_object(Bucket=bucket, Key=key, Body=b"")
    if "+" in pattern:
        client.put_object(Bucket=bucket, Key="d/a+(1).csv", Body=b"")
    objects = origins.find_objects(S3Source.model_validate(source(pattern)), KEYS)
    assert [o.name.removeprefix(f"s3://{bucket}/") for o in objects] == found


def test_listing_goes_beyond_one_page(run: Run, client: S3Client, bucket: str, source: Any) -> None:
    for number in range(1003):
        s3_backends["123456789012"]["aws"].put_object(bucket, f"other/{number:05d}.csv", b"")
    client.put_object(Bucket=bucket, Key="other/last.csv", Body=b"y,x\n1,2\n0,3\n")
    assert run(source=source("other/*t.csv"), s3_options=KEYS).manifest.rows == 2


def test_credentials_from_the_environment(
    run: Run, client: S3Client, bucket: str, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client.put_object(Bucket=bucket, Key="a.csv", Body=b"y,x\n1,2\n0,3\n")
    assert run(source=source("a.csv")).manifest.rows == 2


def test_endpoint_from_the_connection(
    run: Run, client: S3Client, bucket: str, s3_endpoint: str
) -> None:
    client.put_object(Bucket=bucket, Key="a.csv", Body=b"y,x\n1,2\n0,3\n")
    source = {"kind": "s3", "path": f"s3://{bucket}/a.csv"}
    options = {**KEYS, "endpoint_url": s3_endpoint, "region_name": "eu-central-1"}
    assert run(source=source, s3_options=options).manifest.rows == 2


def test_no_credentials(run: Run, no_keys: None, source: Any) -> None:
    with pytest.raises(
        ServiceError,
        match=r"s3://.*/a\.csv: needs S3 credentials, got none\. Set AWS_ACCESS_KEY_ID",
    ):
        run(source=source("a.csv"))


def test_no_bucket(run: Run, source: Any) -> None:
    with pytest.raises(DataError, match="the bucket must exist, got NoSuchBucket"):
        run(source=source("a.csv"), s3_options=KEYS)


def test_nothing_matches(run: Run, client: S3Client, source: Any) -> None:
    with pytest.raises(DataError, match=r"/2026-\*\.csv: must match at least one file, got none"):
        run(source=source("2026-*.csv"), s3_options=KEYS)


def test_unreachable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = {"kind": "s3", "path": "s3://bucket/a.csv", "endpoint_url": f"http://127.0.0.1:{port}"}
    with pytest.raises(
        ServiceError, match=r"s3://bucket/a\.csv: S3 must answer, got: Could not connect"
    ):
        run(source=source, s3_options=KEYS)


def test_an_object_that_changes_while_it_is_read(
    run: Run, client: S3Client, bucket: str, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origins, "_BLOCK_BYTES", 1500)
    client.put_object(Bucket=bucket, Key="a.csv", Body=content("csv"))
    real = origins.ObjectReader._get_range

    def get_then_replace(self: Any, span: str, *rest: Any) -> bytes:
        data = real(self, span, *rest)
        client.put_object(Bucket=bucket, Key="a.csv", Body=content("csv")[::-1])
        return data

    monkeypatch.setattr(origins.ObjectReader, "_get_range", get_then_replace)
    with pytest.raises(
        DataError, match=r"a\.csv: must not change while it is read, got a newer version"
    ):
        run(source=source("a.csv"), s3_options=KEYS)


def test_a_body_that_breaks_off_is_asked_for_again(
    client: S3Client, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import IncompleteReadError
    from botocore.response import StreamingBody

    client.put_object(Bucket=bucket, Key="a", Body=b"0123456789")
    etag = client.head_object(Bucket=bucket, Key="a")["ETag"]
    real, broken = StreamingBody.read, []

    def read(self: StreamingBody, amt: int | None = None) -> bytes:
        if len(broken) < limit:
            broken.append(1)
            raise IncompleteReadError(actual_bytes=1, expected_bytes=10)
        return real(self, amt)

    monkeypatch.setattr(StreamingBody, "read", read)
    limit = 2
    assert origins.ObjectReader(client, bucket, "a", etag, 10).read() == b"0123456789"
    broken.clear()
    limit = 99
    with pytest.raises(ServiceError, match="S3 must answer"):
        origins.ObjectReader(client, bucket, "a", etag, 10).read()
    assert len(broken) == 3


def test_object_reader_is_a_file(
    client: S3Client, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origins, "_BLOCK_BYTES", 7)
    body = bytes(range(100))
    client.put_object(Bucket=bucket, Key="a", Body=body)
    etag = client.head_object(Bucket=bucket, Key="a")["ETag"]
    file = origins.ObjectReader(client, bucket, "a", etag, 100)
    model = io.BytesIO(body)
    for whence, offset, size in (
        (0, 0, 3),
        (0, 0, 20),
        (1, -5, 9),
        (2, -4, 99),
        (0, 50, 0),
        (1, 2, None),
        (0, 120, 5),
    ):
        assert file.seek(offset, whence) == model.seek(offset, whence)
        assert file.read(size) == model.read(size)
        assert file.tell() == model.tell()
