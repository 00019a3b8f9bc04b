"""How fast, and in how much memory, is a partition scored, written and logged?

    python benchmarks/scoring.py                # 1 million rows of 20 features
    python benchmarks/scoring.py --rows 4e6     # memory must stay where it is

The model is a histogram gradient boosting of 100 trees, on the engine that serving would use: ONNX Runtime, and beside
it scikit-learn. Each line is a process of its own that reads, predicts, puts the output in its place and logs all
rows with their inputs; the peak is that process's, libraries included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
CHUNK = 250_000
NUMERIC = tuple(f"number{i}" for i in range(16))
CATEGORICAL = ("colour", "city", "plan", "region")
KINDS = ("onnx parquet file", "sklearn parquet file", "onnx csv file", "onnx parquet sql")


def columns(rows: int, seed: int) -> dict[str, Any]:
    """Return 16 numbers (one in 50 missing) and 4 categories."""
    import numpy as np

    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {name: np.round(rng.normal(size=rows), 4) for name in NUMERIC}
    for values in made.values():
        values[rng.random(rows) < 0.02] = np.nan
    for name, size in zip(CATEGORICAL, (3, 50, 5, 12), strict=True):
        made[name] = rng.choice([f"{name} {i}" for i in range(size)], rows)
    return made


def prepare(folder: Path, rows: int) -> None:
    """Train and convert a model; write the rows as Parquet and as CSV."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq
    from sklearn.ensemble import HistGradientBoostingClassifier

    from include.engines.convert import convert
    from include.registry.trust import dump_model
    from include.store.features import model_frame
    from include.store.inputs import Features
    from include.train.pipeline import assemble

    features = Features(NUMERIC, CATEGORICAL)
    frame = model_frame(columns(20_000, 1), features)
    signal = np.nan_to_num(frame["number0"]) + (frame["colour"] == "colour 1")
    truth = (signal + np.random.default_rng(2).normal(size=len(frame)) > 0).astype(int)
    estimator = HistGradientBoostingClassifier(max_iter=100, random_state=0)
    pipeline = assemble(features, estimator, frame).fit(frame, truth)
    made = convert(pipeline, features, "binary", frame.iloc[:2000], budget=1e-5)
    for name in ("onnx", "sklearn"):
        (folder / name).mkdir()
        digest = dump_model(pipeline, folder / name / "model.skops")
        engine = made.engine if name == "onnx" else {"kind": "sklearn"}
        if engine["kind"] != name:
            raise SystemExit(f"the model did not convert: {engine}")
        for file, data in made.files.items():
            (folder / name / file).write_bytes(data)
        meta = {"features": features.to_dict(), "task": "binary", "classes": [0, 1]}
        meta |= {"types": dict.fromkeys(NUMERIC, "float") | dict.fromkeys(CATEGORICAL, "string")}
        meta |= {"engine": dict(engine), "model_sha256": digest}
        (folder / name / "meta.json").write_text(json.dumps(meta))
    writer, csv = None, (folder / "rows.csv").open("wb")
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        given = columns(count, start)
        given["customer"] = [f"K{n:08d}" for n in range(start, start + count)]
        seconds = np.arange(start, start + count) % 86_400
        given["at"] = np.datetime64("2026-03-01", "us") + seconds.astype("timedelta64[s]")
        table = pa.Table.from_pandas(pd.DataFrame(given), preserve_index=False)
        writer = writer or pq.ParquetWriter(folder / "rows.parquet", table.schema)
        writer.write_table(table)
        pacsv.write_csv(table, csv, pacsv.WriteOptions(include_header=start == 0))
    if writer is not None:
        writer.close()
    csv.close()


def score(kind: str, folder: Path) -> dict[str, Any]:
    """Score the rows once; return what it took."""
    from include.engines.opening import open_version
    from include.ingest.partition import open_partition
    from include.score.score import Work
    from include.score.score import score as run
    from include.score.targets import open_target
    from include.serving.engine import LoadedModel, build_engine
    from include.spec.schema import Spec
    from include.store.files import open_store

    name, form, to = kind.split()
    at = Path(tempfile.mkdtemp(dir=folder))
    os.environ["SCORES_URL"] = f"sqlite:///{at / 'scores.db'}"
    target = {"kind": "file", "path": str(at / "out")}
    if to == "sql":
        target = {"kind": "sql", "url_env": "SCORES_URL", "table": "scores"}
    source = {"kind": "file", "path": str(folder / f"rows.{form}")}
    ingest = {"source": source, "target": "y", "key": "customer", "time": "at"}
    section = {"source": source, "to": target}
    spec = Spec.model_validate(
        {"model": "bench", "task": "binary", "ingest": ingest, "score": section}
    )
    assert spec.score is not None
    meta = json.loads((folder / name / "meta.json").read_text())
    example = {n: [float(i) for i in range(3)] for n in NUMERIC}
    example |= {n: [f"{n} {i}" for i in range(3)] for n in CATEGORICAL}
    predictor = open_version(folder / name, meta)
    engine = build_engine(LoadedModel("bench", "1", predictor, meta, example, folder / name))
    for part in ("spool", "made"):
        (at / part).mkdir()
    now = datetime(2026, 3, 2, tzinfo=UTC)
    started, cpu = time.perf_counter(), time.process_time()
    work = Work(
        spec=spec,
        engine=engine,
        rows=open_partition(spec, "2026-03-01", folder=at / "spool"),
        store=open_store(str(at / "store")),
        partition="2026-03-01",
        at=now,
        now=now,
        folder=at / "made",
    )
    done = run(work, open_target(spec.score.to, now=now))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cpu = time.process_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "rows": done.rows, "peak_mb": peak}


def main() -> None:
    """Prepare once, then measure each kind in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only == "prepare":
        prepare(arguments.folder, int(arguments.rows))
        return
    if arguments.only:
        print(json.dumps(score(arguments.only, arguments.folder)))
        return
    with tempfile.TemporaryDirectory(prefix="evergreen-scoring-") as name:
        own = [sys.executable, __file__, "--rows", str(arguments.rows), "--folder", name, "--only"]
        subprocess.run([*own, "prepare"], check=True)
        print(
            "| engine, from, to | seconds | of a core | rows/s | peak MB |\n|---|---|---|---|---|"
        )
        for kind in KINDS:
            answer = subprocess.run([*own, kind], check=True, capture_output=True, text=True)
            found = json.loads(answer.stdout.splitlines()[-1])
            rate = found["rows"] / found["seconds"]
            spent = f"{found['seconds']:.1f} | {found['cpu']:.1f} | {rate:,.0f}"
            print(f"| {kind} | {spent} | {found['peak_mb']:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
