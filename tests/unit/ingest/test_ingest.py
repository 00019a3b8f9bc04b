from __future__ import annotations

import csv
import gzip
import os
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.errors import DataError, SpecError
from include.ingest import ingest as ingest_module
from include.ingest import readers, writer
from include.ingest.ingest import IngestResult
from include.store.files import Store
from include.store.snapshots import read_manifest, snapshot_paths

Run = Callable[..., IngestResult]
Write = Callable[..., Path]
RowsOf = Callable[[IngestResult], pd.DataFrame]

CSV = "id,at,x,c,y\n1,2026-01-01,0.5,red,0\n2,2026-01-03T12:00:00Z, ,,1\n3,2026-01-02,7,blue,1\n"


def test_csv(run: Run, write: Write, rows_of: RowsOf, store: Store) -> None:
    write(a__csv=CSV)
    result = run(time="at", key="id")
    manifest = result.manifest
    assert result.new
    assert manifest.types == {
        "id": "string",
        "at": "timestamp",
        "x": "float",
        "c": "string",
        "y": "int",
    }
    assert (manifest.rows, manifest.model) == (3, "m")
    assert manifest.time_start == "2026-01-01T00:00:00.000000Z"
    assert manifest.time_end == "2026-01-03T12:00:00.000000Z"
    assert manifest.created_at == "2026-06-01T00:00:00+00:00"
    x = manifest.column("x")
    assert x is not None
    assert (round(x.null_share, 3), x.low, x.high, x.distinct) == (0.333, 0.5, 7.0, 2)
    assert rows_of(result)["c"].tolist() == ["red", None, "blue"]
    assert read_manifest(store, "m", manifest.snapshot_id) == manifest
    assert manifest.files[0].name == f"{manifest.files[0].sha256}.parquet"
    assert (
        pq.ParquetFile(snapshot_paths(store, manifest)[0])
        .metadata.row_group(0)
        .column(0)
        .compression
        == "ZSTD"
    )


def test_again_is_the_same_snapshot(run: Run, write: Write, store: Store) -> None:
    write(a__csv=CSV)
    first = run()
    keys = list(store.list(""))
    second = run()
    assert not second.new
    assert second.manifest == first.manifest
    assert list(store.list("")) == keys


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet", "jsonl"])
def test_formats_hold_the_same(
    run: Run, write: Write, tmp_path: Path, rows_of: RowsOf, form: str
) -> None:
    frame = pd.DataFrame(
        {"y": [0, 1, 1], "x": [0.5, None, 2.0], "c": ["a", None, "b"], "b": [True, False, True]}
    )
    write()
    path = tmp_path / "in" / f"data.{form}"
    if form == "parquet":
        frame.to_parquet(path)
    elif form == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    result = run()
    assert result.manifest.types == {"y": "int", "x": "float", "c": "string", "b": "bool"}
    assert result.manifest.snapshot_id == "e28b3c6615b37926121c2996a04b89ca"
    assert rows_of(result).astype(object).where(frame.notna(), None).to_dict("list") == {
        "y": [0, 1, 1],
        "x": [0.5, None, 2.0],
        "c": ["a", None, "b"],
        "b": [True, False, True],
    }


ROWS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.none() | st.integers(-5, 5) | st.sampled_from([0.5, 1e9, -2.25]),
        st.none() | st.sampled_from(["red", "x,y", 'say "hi"', "two\nlines", " ", "ü"]),
    ),
    min_size=1,
    max_size=25,
)


@given(
    rows=ROWS,
    seed=st.integers(0, 99),
    files=st.integers(1, 4),
    block=st.sampled_from([64, 4 * 2**20]),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_neither_files_nor_order_nor_chunks_matter(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[Any],
    seed: int,
    files: int,
    block: int,
) -> None:
    def snapshot(parts: list[list[Any]]) -> IngestResult:
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for number, part in enumerate(parts):
            with (folder / f"{number}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("y", "x", "c"), *part])
        return run()

    monkeypatch.setattr(readers, "_BLOCK_BYTES", 4 * 2**20)
    whole = snapshot([rows])
    shuffled = rows[:]
    random.Random(seed).shuffle(shuffled)
    # A row with quotes must fit a block.
    monkeypatch.setattr(readers, "_BLOCK_BYTES", block)
    monkeypatch.setattr(writer, "_ROW_GROUP", 3)
    parts = [part for part in (shuffled[i::files] for i in range(files)) if part]
    assert snapshot(parts).manifest.snapshot_id == whole.manifest.snapshot_id


def test_types_are_decided_over_all_rows(
    run: Run, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_PEEK_BYTES", 256)
    rows = [f"{i % 2},{i},{i},2026-01-01,true" for i in range(500)]
    rows[400] = "1,4.5,four,later,perhaps"
    write(a__csv="y,a,b,c,d\n" + "\n".join(rows))
    late = run().manifest
    assert late.types == {"y": "int", "a": "float", "b": "string", "c": "string", "d": "string"}
    rows.insert(0, rows.pop(400))
    write(a__csv="y,a,b,c,d\n" + "\n".join(rows))
    assert run().manifest.snapshot_id == late.snapshot_id


def test_types_are_decided_over_all_files(run: Run, write: Write, rows_of: RowsOf) -> None:
    write(a__csv="y,a\n0,007\n", b__csv="y,a\n1,08\n", c__csv="y,a\n1,x9\n")
    assert sorted(rows_of(run())["a"]) == ["007", "08", "x9"]


def test_parquet_files_of_different_types(
    run: Run, write: Write, tmp_path: Path, rows_of: RowsOf
) -> None:
    write()
    pd.DataFrame({"y": [0], "a": [1], "b": [True]}).to_parquet(tmp_path / "in" / "1.parquet")
    pd.DataFrame({"b": [3], "y": [1], "a": [2.5], "extra": ["e"]}).to_parquet(
        tmp_path / "in" / "2.parquet"
    )
    result = run()
    assert result.manifest.types == {"y": "int", "a": "float", "b": "string", "extra": "string"}
    assert rows_of(result)["b"].tolist() == ["true", "3"]
    assert rows_of(result)["extra"].tolist() == [None, "e"]


def test_categories_keep_their_text(run: Run, write: Write, rows_of: RowsOf) -> None:
    write(a__csv="y,zip,n\n0,007,1\n1,08,2\n")
    result = run(features={"categorical": ["zip"], "numeric": ["n"]})
    assert rows_of(result)["zip"].tolist() == ["007", "08"]


def test_the_champions_types_hold(run: Run, write: Write) -> None:
    write(a__csv="y,a,b,c\n0,1,0.5,x\n1,2,1.5,y\n")
    champion = run().manifest
    write(a__csv="y,a,b,c\n0,1.0,5,1\n1,,6,2\n")
    assert run(expected=champion).manifest.types == champion.types
    assert run().manifest.types == {"y": "int", "a": "float", "b": "int", "c": "int"}
    write(a__csv="y,a,b,c\n0,one,5,1\n")
    assert run(expected=champion).manifest.types == {**champion.types, "a": "string"}


def test_missing_markers(run: Run, write: Write, rows_of: RowsOf, tmp_path: Path) -> None:
    write(a__csv='y,a,b\n0,"?",NA\n1, ? ,x\n0,3,"  "\n')
    source = {"kind": "file", "path": str(tmp_path / "in" / "a.csv"), "missing": ["", "NA", "?"]}
    frame = rows_of(run(source=source))
    assert frame["a"].dropna().tolist() == [3.0]
    assert frame["b"].tolist() == [None, "x", None]


def test_dialects(run: Run, write: Write, rows_of: RowsOf) -> None:
    write(a__csv='\ufeffy;"a;b"; c \r\n1;"x;1";"two\nlines"\r\n0;z;\r\n')
    frame = rows_of(run())
    assert frame.to_dict("list") == {"y": [1, 0], "a;b": ["x;1", "z"], "c": ["two\nlines", None]}


def test_unnamed_columns_get_a_name(run: Run, write: Write) -> None:
    write(a__csv='"",y,\n1,0,5\n2,1,6\n')
    assert list(run().manifest.types) == ["column0", "y", "column2"]


def test_window_keeps_the_newest(
    run: Run, write: Write, rows_of: RowsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_ROW_GROUP", 4)
    days = [f"{i % 2},2026-01-{i:02d}" for i in range(1, 31)]
    random.Random(1).shuffle(days)
    write(a__csv="y,at\n" + "\n".join(days))
    result = run(time="at", window="7d")
    assert sorted(rows_of(result)["at"].dt.day) == list(range(23, 31))
    assert (result.manifest.rows, result.manifest.time_start) == (8, "2026-01-23T00:00:00.000000Z")
    write(a__csv="y,at\n" + "\n".join(sorted(days, reverse=True, key=lambda d: d[2:])[:8]))
    assert run(time="at").manifest.snapshot_id == result.manifest.snapshot_id


@pytest.mark.parametrize("group", [4, 1000])
def test_a_run_of_the_past_sees_no_later_row(
    run: Run,
    write: Write,
    rows_of: RowsOf,
    monkeypatch: pytest.MonkeyPatch,
    group: int,
) -> None:
    monkeypatch.setattr(writer, "_ROW_GROUP", group)
    days = [f"{i % 2},2026-01-{i:02d}T12:00:00Z" for i in range(1, 31)]
    random.Random(1).shuffle(days)
    write(a__csv="y,at\n" + "\n".join(days))
    moment = datetime(2026, 1, 20, 12, tzinfo=UTC)
    result = run(time="at", window="7d", as_of=moment)
    assert sorted(rows_of(result)["at"].dt.day) == list(range(13, 21))
    assert result.manifest.time_end == "2026-01-20T12:00:00.000000Z", "the moment itself is in"
    assert result.manifest.created_at == "2026-06-01T00:00:00+00:00", "made at the true time"
    before = run(time="at", window="7d", as_of=moment - timedelta(microseconds=1))
    assert before.manifest.time_end == "2026-01-19T12:00:00.000000Z"
    with pytest.raises(DataError, match="must hold at least one row"):
        run(time="at", as_of=datetime(2025, 1, 1, tzinfo=UTC))


def test_a_row_without_a_time_is_named_in_the_past_too(run: Run, write: Write) -> None:
    write(a__csv="y,at\n0,2026-01-01\n1,\n")
    with pytest.raises(DataError, match="every row must have a time, got 1"):
        run(time="at", as_of=datetime(2026, 1, 2, tzinfo=UTC))


def test_without_times_there_is_no_past(run: Run, write: Write, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()  # refused before anything is made
    write(a__csv="y,x\n0,1\n1,2\n")
    with pytest.raises(SpecError, match="must be given to see only the rows of a time before"):
        run(as_of=datetime(2026, 1, 2, tzinfo=UTC))


def test_dropped_columns_reach_no_file(
    run: Run, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        a__csv="y,mail,x\n0,secret-1,1\n1,secret-2,2\n",
        b__jsonl='{"y": 1, "mail": "secret-3", "x": 3}\n',
    )
    pd.DataFrame({"y": [1], "mail": ["secret-4"], "x": [4]}).to_parquet(
        tmp_path / "in" / "c.parquet"
    )
    seen: list[bytes] = []
    real = ingest_module.shutil.rmtree

    def look_then_remove(folder: Path, **options: Any) -> None:
        seen.extend(p.read_bytes() for p in Path(folder).rglob("*") if p.is_file())
        real(folder, **options)

    monkeypatch.setattr(ingest_module.shutil, "rmtree", look_then_remove)
    monkeypatch.setattr(
        ingest_module, "commit_snapshot", lambda *a: seen.append(a[1].to_json().encode()) or True
    )
    for name in ("a.csv", "b.jsonl", "c.parquet"):
        source = {"kind": "file", "path": str(tmp_path / "in" / name)}
        assert "mail" not in run(source=source, drop=["mail"]).manifest.types
    assert len(seen) >= 6
    assert not any(b"secret" in content or b"mail" in content for content in seen)


def test_a_damaged_row_is_not_quoted_with_its_dropped_columns(run: Run, write: Write) -> None:
    write(a__csv='y,mail,x\n0,a,1\n1,"secret-1\nsecret-2: 3",2,secret-3\n')
    with pytest.raises(DataError, match=r"a\.csv: .* Expected 3 columns, got 4\.") as caught:
        run(drop=["mail"])
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("column", ["mail", "y"])
def test_a_dropped_value_of_another_type_is_quoted_nowhere(
    run: Run, write: Write, column: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_PEEK_BYTES", 64)
    rows = "".join(f"{i % 2},{i},{i}\n" for i in range(50))
    broken = {"mail": "1,secret,2\n", "y": "\udcff,secret,2\n"}[column]
    write(a__csv=f"y,mail,x\n{rows}{broken}".encode(errors="surrogateescape"))
    if column == "mail":
        assert run(drop=["mail"]).manifest.rows == 51
        return
    with pytest.raises(DataError, match="invalid UTF8") as caught:
        run(drop=["mail"])
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_only_the_spec_makes_patterns(
    run: Run, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "check[out] * 1"
    write(a__csv="y,x\n0,1\n1,2\n").rename(tmp_path / "given")
    root.mkdir()
    (tmp_path / "given").rename(root / "in")
    monkeypatch.setattr("include.settings.ROOT", root)
    source = {"kind": "file", "path": "in/[ab].csv"}
    assert run(source=source).manifest.rows == 2


def test_a_typo_in_drop_would_leak(run: Run, write: Write) -> None:
    write(a__csv="y,email,x\n0,a@b,1\n1,c@d,2\n")
    with pytest.raises(
        DataError,
        match=r"ingest\.drop: dropped column 'emial' must be a column.*Did you mean 'email'",
    ):
        run(drop=["emial"])
    assert "x" in run(drop=["email", "phone"]).manifest.types


def test_jsonl_lines_may_differ(
    run: Run, write: Write, rows_of: RowsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.ingest import sources

    monkeypatch.setattr(sources, "_JSON_BLOCK_BYTES", 90)
    lines = ['{"y": 0, "d": "2026-01-01 10:00:00", "m": 1}'] * 3
    lines += [
        '{"y": 1, "d": "2026-01-02", "m": "two", "late": true}',
        "",
        '{"y": 1, "m": null, "late": false}',
    ]
    write(a__jsonl="\n".join(lines))
    result = run()
    assert result.manifest.types == {"y": "int", "d": "timestamp", "m": "string", "late": "bool"}
    assert rows_of(result)["m"].tolist() == ["1", "1", "1", "two", None]
    lines[0] = '{"y": 0, "d": "2026-01-01 10:00 or so", "m": 1}'
    write(a__jsonl="\n".join(lines))
    assert rows_of(run())["d"].tolist()[:2] == ["2026-01-01 10:00 or so", "2026-01-01 10:00:00"]


def test_infinities_and_wide_numbers_survive(run: Run, write: Write) -> None:
    write(a__csv="y,a,b\n0,inf,123456789012345678901\n1,-inf,1\n")
    a = run().manifest.column("a")
    assert a is not None
    assert (a.low, a.high) == (float("-inf"), float("inf"))


def test_progress(store: Store, write: Write, make_spec: Any, tmp_path: Path) -> None:
    from datetime import UTC, datetime

    write(a__csv=CSV)
    seen: list[int] = []
    ingest_module.ingest(
        make_spec(), store, now=datetime.now(UTC), workdir=tmp_path / "w", progress=seen.append
    )
    assert seen == sorted(seen)
    assert len(seen) > 0


def test_real_data(run: Run) -> None:
    folder = os.environ.get("EVERGREEN_REAL_DATA")
    if not folder:
        pytest.skip("EVERGREEN_REAL_DATA is not set")
    source = {"kind": "file", "path": str(Path(folder).absolute() / "telco_churn.csv")}
    telco = run(source=source, target="Churn", key="customerID").manifest
    charges = telco.column("TotalCharges")
    assert charges is not None
    assert charges.type == "float"
    assert charges.null_share > 0
    source = {"kind": "file", "path": str(Path(folder).absolute() / "bike_hour.csv")}
    bike = run(
        source=source, target="cnt", time="dteday", time_format="%m/%d/%y", task="regression"
    ).manifest
    assert (bike.time_start or "").startswith("2011-01-01")
    assert "column0" in bike.types


# --- bad input ------------------------------------------------------------------------------------------


def test_nothing_matches(run: Run, write: Write) -> None:
    write()
    with pytest.raises(DataError, match=r"in/\*: must match at least one file, got none"):
        run()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"a__csv": ""},
            r"a\.csv: must be UTF-8 text that begins with one header line, got an empty file",
        ),
        (
            {"a__csv": b"y,\xff\n1,2\n"},
            r"a\.csv: must be readable, got: .*utf-8.*Convert the file to UTF-8",
        ),
        ({"a__csv": b"y,a\n1,caf\xe9\n"}, r"a\.csv: must be readable, got: .*utf-8.*Convert"),
        ({"a__csv": b"y,a\n\0\0,1\n"}, r"a\.csv: must be UTF-8 text"),
        (
            {"a__csv": "y,a\n1,2\n1,2,3\n"},
            r"a\.csv: must be readable, got: CSV parse error: .*Expected 2 columns, got 3",
        ),
        ({"a__csv": 'y,"a\n1,2\n'}, r"a\.csv: must be UTF-8 text that begins with one header line"),
        ({"a__csv__gz": b"not gzip at all"}, r"a\.csv\.gz: must be readable, got"),
        ({"a__parquet": b"PAR1 not really"}, r"a\.parquet: must be readable, got: .*arquet"),
        ({"a__jsonl": '{"y": 1}\n{"y": \n'}, r"a\.jsonl line 2: must be readable, got"),
        ({"a__jsonl": '{"y": 1}\n[1, 2]\n'}, r"a\.jsonl line 2: must be one JSON object"),
        ({"a__jsonl": '{"y": 1, "n": {"a": 1}}\n'}, r"column 'n': must hold numbers.*got struct"),
        ({"a__csv": "y,a,a\n1,2,3\n"}, r"a\.csv: column names must differ, got 'a' more than once"),
        ({"a__csv": "y,a\n"}, r"model m: ingest\.source: must hold at least one row, got none"),
        ({"a__jsonl": ""}, r"must hold|target 'y' must be a column, got no columns"),
        ({"a__csv": "Y,a\n1,2\n"}, r"ingest\.target: target 'y' must be a column, got 'Y', 'a'"),
        ({"a__xlsx": "x"}, r"a file must end in \.csv.*got \.xlsx"),
        (
            {"a__csv": "y\n1\n", "b__parquet": ""},
            r"all files must have one format, got csv and parquet",
        ),
    ],
)
def test_bad_files(
    run: Run, write: Write, store: Store, files: dict[str, Any], message: str
) -> None:
    write(**files)
    with pytest.raises(DataError, match=message):
        run()
    assert list(store.list("")) == []


def test_damage_in_the_middle(run: Run, write: Write, tmp_path: Path, store: Store) -> None:
    write()
    path = tmp_path / "in" / "b.parquet"
    pq.write_table(
        pa.table({"y": [0, 1] * 5000, "x": np.random.default_rng(0).random(10_000)}), path
    )
    content = bytearray(path.read_bytes())
    content[200:4000] = b"\xff" * 3800
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"b\.parquet: must be readable, got"):
        run()
    zipped = gzip.compress(("y,a\n" + "1,2\n" * 50_000).encode())
    path.unlink()
    write(c__csv__gz=zipped[: len(zipped) // 2])
    with pytest.raises(DataError, match=r"c\.csv\.gz: must be readable, got"):
        run()
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    ("role", "message"),
    [
        (
            {"target": "yy"},
            r"ingest\.target: target 'yy' must be a column, got 'y', 'key', 'at'\. Did you mean 'y'",
        ),
        ({"key": "kye"}, r"ingest\.key: key 'kye' must be a column.*Did you mean 'key'"),
        ({"time": "att"}, r"ingest\.time: time 'att' must be a column.*Did you mean 'at'"),
        (
            {"time": "key"},
            r"ingest\.time 'key': must be a time in ISO 8601 form in every row, got 'k1'",
        ),
        (
            {"time": "at", "time_format": "%d.%m.%Y"},
            r"in the form '%d\.%m\.%Y' in every row, got '2026-01-01'",
        ),
    ],
)
def test_columns_with_a_role(run: Run, write: Write, role: dict[str, str], message: str) -> None:
    write(a__csv="y,key,at\n0,k1,2026-01-01\n1,k2,2026-01-02\n")
    with pytest.raises(DataError, match=message):
        run(**role)


def test_every_row_needs_a_time(run: Run, write: Write) -> None:
    write(a__csv="y,at\n0,2026-01-01\n1,\n1,\n")
    with pytest.raises(DataError, match="every row must have a time, got 2 rows without"):
        run(time="at")
    write(a__csv="y,at\n" + "0,2026-01-01\n" * 30_000 + "1,never\n")
    with pytest.raises(
        DataError, match="must be a time in ISO 8601 form in every row, got 'never'"
    ):
        run(time="at")


def test_unreadable_file(
    run: Run, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(a__csv=CSV)
    if os.geteuid() == 0:  # nothing is forbidden to root
        real = pa.input_stream

        def refuse(path: str, **options: Any) -> Any:
            raise (
                PermissionError(13, "Permission denied", path)
                if "a.csv" in path
                else real(path, **options)
            )

        monkeypatch.setattr(pa, "input_stream", refuse)
    (folder / "a.csv").chmod(0)
    with pytest.raises(DataError, match=r"a\.csv: must be readable, got: Permission denied"):
        run()


def test_a_folder_is_no_file(run: Run, write: Write, tmp_path: Path) -> None:
    write(a__csv=CSV)
    with pytest.raises(DataError, match="must be a file, got a folder"):
        run(source={"kind": "file", "path": str(tmp_path / "in")})


def test_full_disk(tmp_path: Path, write: Write) -> None:
    lines = "\n".join(f"{i % 2},{random.Random(i).random()}" for i in range(20_000))
    write(a__csv=f"y,x\n{lines}\n")
    code = f"""
import resource, signal
from datetime import datetime, UTC
from pathlib import Path
from include.errors import ServiceError
from include.ingest.ingest import ingest
from include.spec.schema import Spec
from include.store.files import open_store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spec = Spec.model_validate({{"model": "m", "task": "binary",
    "ingest": {{"source": {{"kind": "file", "path": {str(tmp_path / "in" / "*")!r}}}, "target": "y"}}}})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    ingest(spec, open_store({str(tmp_path / "store")!r}), now=datetime.now(UTC), workdir=Path({str(tmp_path / "work")!r}))
except ServiceError as error:
    print(error)
"""
    root = Path(ingest_module.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "must be readable and writable, got: File too large. Free some space" in done.stdout, (
        done.stderr
    )
    assert str(tmp_path / "work") in done.stdout
    assert list((tmp_path / "work").iterdir()) == []
    assert not (tmp_path / "store").exists()


def test_leftovers_of_killed_runs(run: Run, write: Write, tmp_path: Path) -> None:
    write(a__csv=CSV)
    base = tmp_path / "work"
    for name, days in (("m-old", 2), ("m-young", 0.5), ("other-old", 2)):
        (base / name).mkdir(parents=True)
        (base / name / "first.parquet").write_bytes(b"half")
        moment = time.time() - days * 86_400
        os.utime(base / name, (moment, moment))
    with pytest.raises(AssertionError):  # the fixture finds the folders of others
        run()
    assert sorted(p.name for p in base.iterdir()) == ["m-young", "other-old"]


def test_a_source_that_changes_while_it_is_read(
    run: Run, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_PEEK_BYTES", 64)
    folder = write(a__csv="y,a\n" + "1,2\n" * 100 + "1,2.5\n")
    real = ingest_module._decide

    def decide_then_change(*args: Any) -> Any:
        types = real(*args)
        (folder / "a.csv").write_text(
            "y,a\n" + "1,2\n" * 100 + ("1,2.5\n" if types["a"] == "int" else "1,x\n")
        )
        return types

    monkeypatch.setattr(ingest_module, "_decide", decide_then_change)
    with pytest.raises(DataError, match="must not change while it is read"):
        run()
