"""What does the prediction log cost serving, and how fast is it written and read?

    python benchmarks/prediction_log.py                 # everything; target: log on >= 95 % of off
    python benchmarks/prediction_log.py --only serving --rounds 20

Serving: two processes with the same model (20 features, logistic regression), one with the log and one without,
are loaded in turns by this process over kept connections; the order of the two alternates from round to round.
Compared are requests per second and, less noisy on a busy machine, processor time of the serving process per
request. Writing: entries as requests leave them become Parquet parts. Reading: a log of one million rows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
NUMERIC = [f"number_{n}" for n in range(14)]
CATEGORICAL = [f"category_{n}" for n in range(6)]
PATH = "/v2/models/bench/infer"
START = datetime(2026, 1, 1, tzinfo=UTC)
TICKS = os.sysconf("SC_CLK_TCK")


# --- a model and its traffic ----------------------------------------------------------------------------


def columns(rows: int, seed: int) -> dict[str, Any]:
    import numpy as np

    random = np.random.default_rng(seed)
    made: dict[str, Any] = {name: random.normal(size=rows) for name in NUMERIC}
    texts = np.array(["red", "green", "blue", None], dtype=object)
    return made | {name: random.choice(texts, rows) for name in CATEGORICAL}


def build_model() -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    from include.engines.pipeline import PipelinePredictor
    from include.serving.engine import LoadedModel
    from include.store.features import Features, model_frame

    features = Features(tuple(NUMERIC), tuple(CATEGORICAL))
    rows = columns(2000, seed=1)
    parts = [
        ("n", make_pipeline(SimpleImputer(), StandardScaler()), NUMERIC),
        ("c", OneHotEncoder(handle_unknown="ignore"), CATEGORICAL),
    ]
    steps = [("prepare", ColumnTransformer(parts)), ("estimator", LogisticRegression())]
    target = (rows[NUMERIC[0]] + rows[NUMERIC[1]] > 0).astype(int)
    meta = {
        "task": "binary",
        "features": features.to_dict(),
        "types": {},
        "classes": ["no", "yes"],
        "key": "customer",
        "time": "at",
    }
    pipeline = Pipeline(steps).fit(model_frame(rows, features), target)
    example = {name: values.tolist() for name, values in columns(3, seed=2).items()}
    predictor = PipelinePredictor(pipeline, features, "binary")
    return LoadedModel("bench", "1", predictor, meta, example, Path("unused"))


def request_body(rows: int, seed: int) -> bytes:
    inputs = []
    for name, values in columns(rows, seed).items():
        kind = "FP64" if name in NUMERIC else "BYTES"
        inputs.append({"name": name, "shape": [rows], "datatype": kind, "data": values.tolist()})
    keys = [f"customer-{seed}-{n}" for n in range(rows)]
    inputs.append({"name": "customer", "shape": [rows], "datatype": "BYTES", "data": keys})
    return json.dumps({"inputs": inputs}).encode()


def serve(store: str, port: int) -> None:
    """Serve the model until told to stop; without a log where `store` is empty."""
    import uvicorn

    from include.serving.app import create_app
    from include.serving.follower import Follower
    from include.serving.served import Wanted
    from include.serving.telemetry import Metrics
    from include.store.files import open_store

    model = build_model()

    class Source:
        def models(self) -> dict[str, Wanted]:
            return {"bench": Wanted({"champion": "1"})}

        def load(self, name: str, version: str, cache: Path) -> Any:  # noqa: ARG002
            return model

    with tempfile.TemporaryDirectory() as cache:
        metrics = Metrics()
        follower = Follower(Source(), Path(cache), metrics)
        app = create_app(follower, metrics, store=open_store(store) if store else None)
        uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, access_log=False)


# --- load -----------------------------------------------------------------------------------------------


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """Send one request over a kept connection; return the status."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head[9:12])


async def load(port: int, bodies: list[bytes], seconds: float, connections: int) -> float:
    """Return requests per second."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
    requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    until = time.perf_counter() + seconds
    done = 0

    async def one(offset: int) -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        number = offset
        while time.perf_counter() < until:
            status = await ask(reader, writer, requests[number % len(requests)])
            if status != 200:
                raise RuntimeError(f"status {status}")
            number += 1
            done += 1
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(one(7 * n) for n in range(connections)))
    return done / (time.perf_counter() - started)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def wait_ready(port: int) -> None:
    import httpx

    for _ in range(600):
        try:
            if httpx.get(f"http://127.0.0.1:{port}/v2/models/bench/ready").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise RuntimeError("serving did not start")


def compare(folder: Path, rows: int, rounds: int, seconds: float, connections: int) -> None:
    from tests.servers import free_port, run_process

    ports = {"off": free_port(), "on": free_port()}
    stores = {"off": "", "on": str(folder / f"store-{rows}")}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    bodies = [request_body(rows, seed) for seed in range(64)]
    rate: dict[str, list[float]] = {"off": [], "on": []}
    cost: dict[str, list[float]] = {"off": [], "on": []}

    def command(side: str) -> list[str]:
        return [sys.executable, __file__, "--serve", stores[side], "--port", str(ports[side])]

    with (
        run_process(command("off"), folder / "off.log", environment) as off,
        run_process(command("on"), folder / "on.log", environment) as on,
    ):
        pids = {"off": off.pid, "on": on.pid}
        for port in ports.values():
            wait_ready(port)
            asyncio.run(load(port, bodies, 1.0, connections))
        for number in range(rounds):
            for side in ("off", "on") if number % 2 else ("on", "off"):
                before, started = cpu_seconds(pids[side]), time.perf_counter()
                rate[side].append(asyncio.run(load(ports[side], bodies, seconds, connections)))
                count = rate[side][-1] * (time.perf_counter() - started)
                cost[side].append((cpu_seconds(pids[side]) - before) / count * 1e6)
        page = metrics_page(ports["on"])
    ratios = [on / off for on, off in zip(rate["on"], rate["off"], strict=True)]
    spent = [on / off for on, off in zip(cost["on"], cost["off"], strict=True)]
    print(
        f"\n{rows} row(s) a request, {connections} connections, {rounds} rounds of {seconds:g} s each:"
    )
    print(f"{'':14}{'off':>10}{'on':>10}{'on / off (median of rounds; quartiles)':>42}")
    print(_line("requests/s", rate, ratios))
    print(_line("cpu us/request", cost, spent))
    print("rows: " + ", ".join(f"{name} {value:,.0f}" for name, value in page.items()))


def _line(name: str, values: dict[str, list[float]], ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    medians = "".join(f"{statistics.median(values[side]):>10,.0f}" for side in ("off", "on"))
    return f"{name:14}{medians}{middle:>24.3f} ({low:.3f} to {high:.3f})"


def metrics_page(port: int) -> dict[str, float]:
    import httpx

    prefix = "evergreen_serving_log_"
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    pairs = [line.removeprefix(prefix).split() for line in lines if line.startswith(prefix)]
    return {name.removesuffix("_total"): float(value) for name, value in pairs}


# --- writing and reading --------------------------------------------------------------------------------


def write(folder: Path) -> None:
    from include.serving.engine import build_engine
    from include.serving.log_rows import Author, Entry, to_tables
    from include.store.files import open_store
    from include.store.predictions import write_part

    engine = build_engine(build_model())
    store = open_store(str(folder / "written"))
    print("\nwriting, entries as requests leave them, 20,000 rows a part:")
    for rows in (1, 100, 10_000):
        entries = []
        for n in range(20_000 // rows):
            given = {name: values.tolist() for name, values in columns(rows, seed=n).items()}
            row = tuple(values[0] for values in given.values()) if rows == 1 else given
            prediction = engine.predict(given) if not entries else entries[0].prediction
            at = 1_767_225_600_000_000 + n
            entries.append(
                Entry(Author.of(engine), "champion", f"{rows}-{n}", at, 1.0, 500, row, prediction)
            )
        started = time.perf_counter()
        ((_, table),) = to_tables(entries)
        built = time.perf_counter()
        write_part(store, "bench", table)
        done = time.perf_counter()
        size = sum(f.stat().st_size for f in (folder / "written").rglob("*.parquet"))
        print(
            f"  {rows:>6} row(s) a request: {20_000 / (done - started):>10,.0f} rows/s "
            f"(build {built - started:.3f} s, write {done - built:.3f} s, {size / 1e6:.1f} MB so far)"
        )


def read(folder: Path, rows: int) -> None:
    import duckdb
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from include.store.files import open_store
    from include.store.predictions import compact, copy_window, prediction_schema, write_part

    store = open_store(str(folder / "read"))
    schema = prediction_schema(NUMERIC, CATEGORICAL)
    random = np.random.default_rng(0)
    each = 20_000
    for part in range(rows // each):
        at = int(START.timestamp() * 1e6) + part * each * 1000 + np.arange(each) * 1000
        times = pa.array(at).cast(pa.timestamp("us", "UTC"))
        half = pa.array(np.arange(each + 1, dtype=np.int32) * 2)
        made = {
            "_request_id": [f"{n:032x}" for n in random.integers(0, 2**62, each).tolist()],
            "_row": np.zeros(each, np.int32),
            "_key": [f"customer-{n}" for n in random.integers(0, 50_000, each)],
            "_time": times,
            "_logged_at": times,
            "_version": ["1"] * each,
            "_arm": ["champion"] * each,
            "_prediction": ["yes"] * each,
            "_score": random.random(each),
            "_probability": pa.ListArray.from_arrays(half, random.random(2 * each)),
            "_latency_ms": random.random(each),
            "_error": pa.nulls(each, pa.string()),
            **columns(each, part),
        }
        write_part(
            store,
            "bench",
            pa.table([pa.array(made[f.name], f.type) for f in schema], schema=schema),
        )
    root = folder / "read" / "predictions" / "bench"
    means = ", ".join(f'avg("{name}")' for name in NUMERIC)
    query = (
        f"SELECT count(*), {means} FROM read_parquet('{root}/*/*.parquet', union_by_name = true)"
    )
    window = (START, START + timedelta(days=1))
    print(f"\nreading {rows:,} rows of {len(schema)} columns:")

    def timed(name: str, work: Callable[[], Any]) -> None:
        started = time.perf_counter()
        work()
        print(f"  {name:48}{time.perf_counter() - started:>8.2f} s")

    for state in (f"{rows // each} parts", "after compaction"):
        timed(f"DuckDB, means of 14 columns, {state}", lambda: duckdb.sql(query).fetchall())
        timed(f"pandas.read_parquet, everything, {state}", lambda: pd.read_parquet(root))
        timed(
            f"copy_window into one file, {state}",
            lambda: copy_window(store, "bench", *window, folder / "copy.parquet", version="1"),
        )
        if state != "after compaction":
            timed(
                "compact", lambda: compact(store, "bench", before=START.date() + timedelta(days=9))
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=["serving", "writing", "reading"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rows", type=float, default=1e6, help="rows of the log that is read")
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve, options.port)
        return
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as name:
        folder = Path(name)
        if options.only in (None, "serving"):
            for rows in (1, 100):
                compare(folder, rows, options.rounds, options.seconds, options.connections)
        if options.only in (None, "writing"):
            write(folder)
        if options.only in (None, "reading"):
            subprocess.run(["sync"], check=False)
            read(folder, int(options.rows))


if __name__ == "__main__":
    main()
