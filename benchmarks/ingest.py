"""How fast, and in how much memory, does ingest turn a CSV file into a snapshot?

    python benchmarks/ingest.py                # 1 million rows
    python benchmarks/ingest.py --rows 1e7     # 10 million rows, 1.7 GB of CSV; target: <= 2,048 MB

Beside it, on the same file and each in a process of its own: plain pyarrow and pandas turning the CSV into one
zstd Parquet file, and DuckDB with the types decided over all rows, as a snapshot's are. The plain ones write no
digests, no manifest and decide types by the first block (pyarrow) or in memory (pandas).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
CHUNK = 250_000


def generate(path: Path, rows: int) -> None:
    """Write 20 columns: 10 floats (one in 50 missing), 5 ints, 3 texts, a boolean and a time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv as pacsv

    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, rows, CHUNK):
            n = min(CHUNK, rows - start)
            columns: dict[str, object] = {
                f"float{i}": pa.array(np.round(rng.normal(size=n), 4), mask=rng.random(n) < 0.02)
                for i in range(10)
            }
            columns |= {f"int{i}": rng.integers(0, 10 ** (i + 1), n) for i in range(5)}
            columns["id"] = [f"K{i:08d}" for i in range(start, start + n)]
            columns["colour"] = rng.choice(["red", "green", "blue"], n)
            columns["city"] = rng.choice([f"city {i}" for i in range(500)], n)
            columns["flag"] = rng.random(n) < 0.3
            seconds = start + np.arange(n)
            columns["at"] = (np.datetime64("2026-01-01", "s") + seconds).astype("datetime64[s]")
            pacsv.write_csv(pa.table(columns), file, pacsv.WriteOptions(include_header=start == 0))


def evergreen(source: Path, folder: Path) -> int:
    from include.ingest.ingest import ingest
    from include.spec.schema import Spec
    from include.store.files import open_store

    section = {
        "source": {"kind": "file", "path": str(source)},
        "target": "flag",
        "key": "id",
        "time": "at",
    }
    spec = Spec.model_validate({"model": "bench", "task": "binary", "ingest": section})
    store = open_store(str(folder / "store"))
    return ingest(spec, store, now=datetime.now(UTC), workdir=folder / "work").manifest.rows


def plain_pyarrow(source: Path, folder: Path) -> int:
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    rows = 0
    with (
        pacsv.open_csv(source, parse_options=pacsv.ParseOptions(newlines_in_values=True)) as reader,
        pq.ParquetWriter(folder / "plain.parquet", reader.schema, compression="zstd") as writer,
    ):
        for batch in reader:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def plain_pandas(source: Path, folder: Path) -> int:
    import pandas as pd

    frame = pd.read_csv(source, parse_dates=["at"])
    frame.to_parquet(folder / "plain.parquet", compression="zstd")
    return len(frame)


def plain_duckdb(source: Path, folder: Path) -> int:
    import duckdb

    connection = duckdb.connect()
    connection.execute("set threads = 2; set memory_limit = '2GB'")
    target = folder / "plain.parquet"
    connection.execute(
        f"copy (from read_csv('{source}', sample_size = -1)) to '{target}' (format parquet, compression zstd)"
    )
    row = connection.execute(f"select count(*) from '{target}'").fetchone()
    return int(row[0]) if row else 0


CONTENDERS: dict[str, Callable[[Path, Path], int]] = {
    "pyarrow, streamed": plain_pyarrow,
    "evergreen snapshot": evergreen,
    "duckdb, all rows typed": plain_duckdb,
    "pandas": plain_pandas,
}


def measure(name: str, source: Path) -> dict[str, float]:
    """Run one contender in a process of its own; imports are not counted."""
    command = [
        sys.executable,
        str(Path(__file__).resolve()),
        "--contender",
        name,
        "--source",
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def contend(name: str, source: Path) -> None:
    import duckdb  # noqa: F401
    import pandas as pd  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    import include.ingest.ingest  # noqa: F401

    idle = resource.getrusage(resource.RUSAGE_SELF)
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        start = time.perf_counter()
        rows = CONTENDERS[name](source, Path(folder))
        seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1024 if sys.platform != "darwin" else 1024**2
    print(
        json.dumps(
            {
                "rows": rows,
                "seconds": seconds,
                "cpu": used.ru_utime + used.ru_stime - idle.ru_utime - idle.ru_stime,
                "peak": used.ru_maxrss / unit,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=float, default=1e6, help="rows to generate (1e6)")
    parser.add_argument("--folder", type=Path, help="where to put temporary files (the system's)")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contender:
        contend(given.contender, given.source)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        source = Path(folder) / "rows.csv"
        generate(source, int(given.rows))
        print(
            f"{int(given.rows):,} rows x 20 columns, {source.stat().st_size / 2**20:,.0f} MB of CSV\n"
        )
        print(f"{'':24}{'seconds':>9}{'cpu s':>8}{'rows/s':>12}{'peak MB':>9}{'ratio':>8}")
        base = 0.0
        for name in CONTENDERS:
            result = measure(name, source)
            base = base or result["seconds"]
            print(
                f"{name:24}{result['seconds']:9.2f}{result['cpu']:8.2f}"
                f"{result['rows'] / result['seconds']:12,.0f}{result['peak']:9,.0f}"
                f"{result['seconds'] / base:8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
