from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from moto.server import ThreadedMotoServer

from include.ingest.ingest import IngestResult, ingest
from include.spec.schema import Spec
from include.store.files import Store, open_store
from include.store.snapshots import read_frame

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def make_spec(tmp_path: Path) -> Callable[..., Spec]:
    def make(task: str = "binary", source: Any = None, **ingest: Any) -> Spec:
        source = source or {"kind": "file", "path": str(tmp_path / "in" / "*")}
        section = {"source": source, "target": "y", **ingest}
        return Spec.model_validate({"model": "m", "task": task, "ingest": section})

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write an input file; `{"a.csv": text}` and the like."""

    def run(**files: str | bytes) -> Path:
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            (folder / name.replace("__", ".")).write_bytes(data)
        return folder

    return run


@pytest.fixture
def run(
    store: Store, make_spec: Callable[..., Spec], tmp_path: Path
) -> Callable[..., IngestResult]:
    """Ingest with a spec made of the arguments; the work folder must be empty afterwards."""

    def go(
        expected: Any = None,
        sql_url: str | None = None,
        s3_options: Any = None,
        as_of: Any = None,
        **spec: Any,
    ) -> IngestResult:
        try:
            return ingest(
                make_spec(**spec),
                store,
                now=NOW,
                as_of=as_of,
                expected=expected,
                sql_url=sql_url,
                s3_options=s3_options,
                workdir=tmp_path / "work",
            )
        finally:
            assert list((tmp_path / "work").iterdir()) == []

    return go


@pytest.fixture
def rows_of(store: Store) -> Callable[[IngestResult], pd.DataFrame]:
    return lambda result: read_frame(store, result.manifest)
