from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from include.spec.schema import Spec
from include.store.files import Store, open_store
from include.store.snapshots import (
    ARROW_TYPES,
    Column,
    File,
    Manifest,
    commit_snapshot,
    file_sha256,
)

_NAMES = {arrow: name for name, arrow in ARROW_TYPES.items()}


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@pytest.fixture
def bucket(s3_endpoint: str, s3_keys: None, request: pytest.FixtureRequest) -> str:
    name = f"bucket-{abs(hash(request.node.nodeid))}"
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    client.create_bucket(Bucket=name)
    return name


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Every test with this fixture runs against both kinds of store."""
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    name = request.getfixturevalue("bucket")
    endpoint = request.getfixturevalue("s3_endpoint")
    return open_store(f"s3://{name}/some/prefix", cache=tmp_path / "cache", endpoint_url=endpoint)


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def make_spec() -> Callable[..., Spec]:
    def make(task: str = "binary", holdout: Any = "20%", **ingest: Any) -> Spec:
        source = {"kind": "file", "path": "nowhere.csv"}
        return Spec.model_validate(
            {
                "model": "m",
                "task": task,
                "ingest": {"source": source, "target": "y", **ingest},
                "evaluate": {"holdout": holdout},
            }
        )

    return make


def snapshot_of(
    table: pa.Table, folder: Path, snapshot_id: str = "0" * 32
) -> tuple[Manifest, Path]:
    path = folder / "rows.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    digest = file_sha256(path)
    columns = tuple(Column(f.name, _NAMES[f.type], 0.0, None, None, None) for f in table.schema)
    file = File(f"{digest}.parquet", digest, path.stat().st_size, table.num_rows)
    manifest = Manifest(
        "m", snapshot_id, table.num_rows, columns, (file,), None, None, "test", "2026-01-01"
    )
    return manifest, path


@pytest.fixture
def commit(tmp_path: Path) -> Callable[[Store, pa.Table], Manifest]:
    def run(store: Store, table: pa.Table) -> Manifest:
        manifest, path = snapshot_of(table, tmp_path / "rows")
        assert commit_snapshot(store, manifest, {manifest.files[0].name: path})
        return manifest

    return run
