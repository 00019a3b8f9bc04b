from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.s3.models import s3_backends

from include.errors import DataError, ServiceError
from include.store import folder as folder_module
from include.store import s3 as s3_module
from include.store.files import Store, open_store


def test_bytes_come_back(store: Store) -> None:
    assert not store.exists("a/b.txt")
    assert store.write_bytes("a/b.txt", b"one")
    assert store.write_bytes("a/b.txt", b"two")
    assert store.exists("a/b.txt")
    assert store.read_bytes("a/b.txt") == b"two"
    assert store.fetch("a/b.txt").read_bytes() == b"two"
    assert store.uri("a/b.txt").endswith("/a/b.txt")


def test_if_absent_leaves_what_is_there(store: Store, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"other")
    assert store.write_bytes("k", b"first", if_absent=True)
    assert not store.write_bytes("k", b"second", if_absent=True)
    assert not store.put_file("k", other, if_absent=True)
    assert store.read_bytes("k") == b"first"


def test_one_of_many_concurrent_writers_wins(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: store.write_bytes("k", b"%d" % i, if_absent=True), range(16)))
    assert won.count(True) == 1
    assert store.read_bytes("k") == b"%d" % won.index(True)


@pytest.mark.parametrize("if_absent", [True, False])
def test_put_file_copies(store: Store, tmp_path: Path, if_absent: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    assert store.put_file("deep/er/file", path, if_absent=if_absent)
    assert path.exists()
    assert store.read_bytes("deep/er/file") == path.read_bytes()


def test_put_file_may_move(folder_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    assert folder_store.put_file("file", path, move=True)
    assert not path.exists()
    assert folder_store.read_bytes("file") == b"x"


def test_list_is_sorted_and_by_prefix(store: Store) -> None:
    for key in ("b/2", "b/1", "a", "bc", "b/10"):
        store.write_bytes(key, b"")
    assert list(store.list("")) == ["a", "b/1", "b/10", "b/2", "bc"]
    assert list(store.list("b/")) == ["b/1", "b/10", "b/2"]
    assert list(store.list("b/1")) == ["b/1", "b/10"]
    assert list(store.list("nothing/")) == []


def test_s3_listing_goes_beyond_one_page(bucket: str, s3_endpoint: str, tmp_path: Path) -> None:
    store = open_store(f"s3://{bucket}", cache=tmp_path, endpoint_url=s3_endpoint)
    behind_the_server = s3_backends["123456789012"]["aws"]
    for number in range(1005):
        behind_the_server.put_object(bucket, f"many/{number:05d}", b"")
    assert len(list(store.list("many/"))) == 1005


def test_delete(store: Store) -> None:
    store.write_bytes("k", b"")
    store.delete("k")
    store.delete("k")
    assert not store.exists("k")


@pytest.mark.parametrize("use", ["read_bytes", "fetch"])
def test_nothing_there(store: Store, use: str) -> None:
    with pytest.raises(DataError, match=r"nope: must exist, got nothing there"):
        getattr(store, use)("nope")


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/.", "a\\b", "a\n"]
)
def test_keys_stay_inside(store: Store, key: str) -> None:
    with pytest.raises(DataError, match=r"relative path without '\.\.'"):
        store.write_bytes(key, b"")


def test_unfinished_files_are_not_listed(folder_store: Store, tmp_path: Path) -> None:
    folder_store.write_bytes("a/1", b"")
    (tmp_path / "store" / "a" / ".evergreen-killed").write_bytes(b"half")
    assert list(folder_store.list("a/")) == ["a/1"]


def test_folder_without_hard_links(folder_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(folder_module.os, "link", refuse)
    assert folder_store.write_bytes("k", b"1", if_absent=True)
    assert not folder_store.write_bytes("k", b"2", if_absent=True)
    assert folder_store.read_bytes("k") == b"1"


def test_full_disk_is_said_plainly_and_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from include.store.files import open_store\n"
        f"open_store({str(tmp_path / 's')!r}).write_bytes('k', b'x' * 5000)"
    )
    root = Path(folder_module.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ServiceError" in done.stderr
    assert "must be readable and writable, got: File too large. Free some space" in done.stderr
    assert list((tmp_path / "s").iterdir()) == []


def test_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="must be readable and writable"):
        open_store(str(tmp_path / "file" / "store")).write_bytes("k", b"")


@pytest.mark.parametrize("uri", ["gs://bucket/x", "s3://", "http://x"])
def test_unknown_store(uri: str) -> None:
    with pytest.raises(DataError, match="must be a folder or s3://"):
        open_store(uri)


# --- what only S3 can do wrong --------------------------------------------------------------------------


def test_s3_fetch_follows_new_versions(bucket: str, s3_endpoint: str, tmp_path: Path) -> None:
    store = open_store(f"s3://{bucket}/p", cache=tmp_path, endpoint_url=s3_endpoint)
    store.write_bytes("k", b"old")
    first = store.fetch("k")
    assert store.fetch("k") == first
    store.write_bytes("k", b"new")
    assert store.fetch("k").read_bytes() == b"new"
    first.write_bytes(b"damaged")
    store.write_bytes("k", b"old")
    assert store.fetch("k", fresh=True).read_bytes() == b"old"


def test_s3_big_upload_in_parts(
    bucket: str, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "_SINGLE_PUT_BYTES", 1000)
    path = tmp_path / "big"
    path.write_bytes(os.urandom(9 * 2**20))
    store = open_store(f"s3://{bucket}/p", cache=tmp_path / "c", endpoint_url=s3_endpoint)
    assert store.put_file("big", path, if_absent=True)
    assert not store.put_file("big", path, if_absent=True)
    assert store.fetch("big").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("conflicts", [2, 10**9])
def test_s3_puts_again_while_another_put_is_under_way(
    tmp_path: Path, conflicts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "_BUSY_SECONDS", 0.3)
    asked = []

    class Busy:
        def put_object(self, **_: object) -> None:
            asked.append(1)
            if len(asked) <= conflicts:
                code = {"Error": {"Code": "ConditionalRequestConflict", "Message": "conflict"}}
                raise ClientError(code, "PutObject")  # type: ignore[arg-type]

    store = s3_module.S3Store("b", "", cache=tmp_path, client=Busy())  # type: ignore[arg-type]
    if conflicts == 2:
        assert store.claim("k", b"")
        assert len(asked) == 3
    else:
        with pytest.raises(ServiceError, match="S3 must answer"):
            store.claim("k", b"")
        assert len(asked) > 1


def test_s3_without_credentials(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    store = open_store("s3://some-bucket/p", cache=tmp_path, endpoint_url=s3_endpoint)
    with pytest.raises(ServiceError, match=r"s3://some-bucket/p/k: needs S3 credentials, got none"):
        store.write_bytes("k", b"")


def test_s3_without_bucket(s3_endpoint: str, s3_keys: None, tmp_path: Path) -> None:
    store = open_store("s3://no-such-bucket/p", cache=tmp_path, endpoint_url=s3_endpoint)
    with pytest.raises(DataError, match="the bucket must exist, got NoSuchBucket"):
        store.write_bytes("k", b"")


def test_s3_unreachable(s3_keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client = s3_module.s3_client(f"http://127.0.0.1:{port}")
    store = s3_module.S3Store("bucket", "p", cache=tmp_path, client=client)
    with pytest.raises(ServiceError, match="S3 must answer, got: Could not connect"):
        store.write_bytes("k", b"")


def test_s3_refused(s3_endpoint: str, s3_keys: None, tmp_path: Path) -> None:
    from botocore.exceptions import ClientError

    error = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject")
    with (
        pytest.raises(ServiceError, match="must be allowed, got AccessDenied"),
        s3_module.s3_errors("s3://b/k"),
    ):
        raise error


def test_s3_endpoint_from_the_environment(
    bucket: str, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    assert open_store(f"s3://{bucket}/p", cache=tmp_path).write_bytes("k", b"1")
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    assert client.get_object(Bucket=bucket, Key="p/k")["Body"].read() == b"1"
