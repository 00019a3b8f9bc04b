"""How long, and in how much memory, does one pass of the monitor take?

    python benchmarks/monitor.py                   # 1 million predictions x 20 features; target: <= 30 s and <= 1,536 MB
    python benchmarks/monitor.py --rows 1e5        # fewer
    python benchmarks/monitor.py --only evergreen  # without plain Evidently, which takes a minute or two

Evergreen's pass reads the window out of the prediction log, checks quality over all rows, drift on a seeded sample,
and writes the JSON report. Beside it, plain Evidently: both tables read by pandas, `DataDriftPreset(method="psi")`
on all rows, JSON. Each runs in a process of its own; its imports are counted, as a task pays for them too.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
CHUNK = 100_000
NUMERIC = [f"number{i}" for i in range(15)]
CATEGORICAL = [f"text{i}" for i in range(5)]
START = datetime(2026, 3, 1, tzinfo=UTC)

if TYPE_CHECKING:
    import pyarrow as pa


def columns(rows: int, seed: int, shift: float) -> dict[str, Any]:
    """Make 15 numbers (a third each normal, long-tailed and counts, one in 50 missing) and 5 texts."""
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    for i, name in enumerate(NUMERIC):
        draw = (rng.normal(0, 1, rows), rng.lognormal(0, 1, rows), rng.poisson(4, rows) + 0.0)
        values = draw[i % 3] + (shift if i < 3 else 0.0)
        made[name] = pa.array(values, mask=rng.random(rows) < 0.02)
    for i, name in enumerate(CATEGORICAL):
        texts = np.array([f"value {k}" for k in range(4 * (i + 1) ** 2)])
        made[name] = pa.array(texts[rng.integers(0, len(texts), rows)])
    return made


def predictions(rows: int, start: int, number: int) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    from include.store.predictions import prediction_schema

    place = start + np.arange(rows)
    times = np.datetime64("2026-03-01", "us") + place * 86_000
    score = np.random.default_rng(number).beta(2, 5, rows)
    made = {
        "_request_id": [f"{p:032x}" for p in place],
        "_row": np.zeros(rows, np.int32),
        "_time": times,
        "_logged_at": times,
        "_version": ["1"] * rows,
        "_arm": ["champion"] * rows,
        "_prediction": np.where(score > 0.5, "yes", "no"),
        "_score": score,
        "_latency_ms": np.full(rows, 2.0),
        **columns(rows, number, 0.8),
    }
    schema = prediction_schema(NUMERIC, CATEGORICAL)
    return pa.Table.from_arrays(
        [
            pa.array(made[f.name]).cast(f.type) if f.name in made else pa.nulls(rows, f.type)
            for f in schema
        ],
        schema=schema,
    )


def chunks(rows: int) -> Iterator[tuple[int, int, int]]:
    for number, start in enumerate(range(0, rows, CHUNK)):
        yield number, start, min(CHUNK, rows - start)


def generate(folder: Path, rows: int) -> None:
    """Write a log of `rows` predictions, a training table of as many rows, and its reference."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from include.monitor.profile import build_profile, dump
    from include.store.features import Features
    from include.store.files import open_store
    from include.store.predictions import write_part
    from include.store.snapshots import Manifest

    store = open_store(str(folder / "store"))
    training = folder / "training.parquet"
    writer = None
    for number, start, size in chunks(rows):
        write_part(store, "bench", predictions(size, start, number))
        table = pa.table(columns(size, 1000 + number, 0.0))
        if writer is None:
            writer = pq.ParquetWriter(training, table.schema, compression="zstd")
            inputs = table.append_column("target", pa.array(["no", "yes"] * (size // 2)))
        writer.write_table(table)
    if writer is None:
        sys.exit("--rows must be at least 1")
    writer.close()
    reference = folder / "reference"
    reference.mkdir()
    pq.write_table(inputs, reference / "inputs.parquet")
    score = np.random.default_rng(1).beta(2, 5, min(rows, CHUNK))
    scored = pa.table({"_score": score, "_prediction": np.where(score > 0.5, "yes", "no")})
    pq.write_table(scored, reference / "scored.parquet")
    manifest = Manifest("bench", "0" * 32, rows, (), (), None, None, "made", "")
    profile = build_profile([training], manifest, Features(tuple(NUMERIC), tuple(CATEGORICAL)))
    facts = {"format": 1, "version": "1", "metrics": {}, "profile": profile.to_dict()}
    (reference / "reference.json").write_text(dump(facts))


def evergreen(folder: Path, steps: dict[str, float]) -> int:
    from include.monitor.collect import collect
    from include.monitor.drift import check_drift
    from include.monitor.quality import check_quality
    from include.monitor.reference import load_reference
    from include.monitor.report import write_report
    from include.monitor.windows import Window
    from include.spec.schema import Spec
    from include.store.files import open_store

    steps["imports"] = time.perf_counter()
    source = {"kind": "file", "path": "x.parquet"}
    spec = Spec.model_validate(
        {"model": "bench", "task": "binary", "ingest": {"source": source, "target": "target"}}
    )
    window = Window(START, START + timedelta(days=1))
    out = folder / "pass"
    collected = collect(spec, open_store(str(folder / "store")), window, "1", out=out)
    steps["collect"] = time.perf_counter()
    reference = load_reference(folder / "reference")
    quality = check_quality(spec, collected.path, reference, window, now=window.end)
    steps["quality"] = time.perf_counter()
    findings = (*quality, *check_drift(spec, collected.path, reference))
    steps["drift"] = time.perf_counter()
    write_report(
        spec,
        out,
        version="1",
        window=window,
        findings=[f for f in findings if f.status == "ok"],  # the JSON alone
        html=False,
        path=collected.path,
        reference=reference,
    )
    steps["report"] = time.perf_counter()
    return sum(f.status == "alert" for f in findings)


def plain_evidently(folder: Path, steps: dict[str, float]) -> int:
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    steps["imports"] = time.perf_counter()
    names = [*NUMERIC, *CATEGORICAL]
    files = sorted((folder / "store").rglob("*.parquet"))
    current = pd.concat([pd.read_parquet(file, columns=names) for file in files])
    reference = pd.read_parquet(folder / "training.parquet")
    steps["read"] = time.perf_counter()
    definition = DataDefinition(numerical_columns=NUMERIC, categorical_columns=CATEGORICAL)
    run = Report([DataDriftPreset(method="psi", threshold=0.2)]).run(
        Dataset.from_pandas(current, definition), Dataset.from_pandas(reference, definition)
    )
    steps["drift"] = time.perf_counter()
    (folder / "evidently.json").write_text(run.json())
    steps["report"] = time.perf_counter()
    count = run.dict()["metrics"][0]["value"]["count"]
    return int(count)


CONTENDERS: dict[str, Callable[[Path, dict[str, float]], int]] = {
    "evergreen": evergreen,
    "evidently": plain_evidently,
}


def contend(name: str, folder: Path) -> None:
    steps = {"": time.perf_counter()}
    drifted = CONTENDERS[name](folder, steps)
    used = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1024 if sys.platform != "darwin" else 1024**2
    moments = list(steps.values())
    spent = {step: b - a for step, (a, b) in zip(list(steps)[1:], pairwise(moments), strict=True)}
    whole = moments[-1] - moments[0]
    peak = used.ru_maxrss / unit
    print(json.dumps({"seconds": whole, "peak": peak, "drifted": drifted, "steps": spent}))


def measure(name: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--contender", name]
    done = subprocess.run(
        [*command, "--folder", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=float, default=1e6, help="rows on either side (1e6)")
    parser.add_argument("--folder", type=Path, help="where to put temporary files (the system's)")
    parser.add_argument("--only", choices=CONTENDERS, help="run one of them")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contender:
        contend(given.contender, given.folder)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        generate(folder, int(given.rows))
        print(f"{int(given.rows):,} predictions x {len(NUMERIC) + len(CATEGORICAL)} features\n")
        print(f"{'':12}{'seconds':>9}{'peak MB':>9}{'ratio':>8}{'drifted':>9}  steps")
        base = 0.0
        for contender in [given.only] if given.only else CONTENDERS:
            result = measure(contender, folder)
            base = base or result["seconds"]
            steps = ", ".join(f"{step} {s:.1f}" for step, s in result["steps"].items())
            print(
                f"{contender:12}{result['seconds']:9.1f}{result['peak']:9,.0f}"
                f"{result['seconds'] / base:8.1f}{result['drifted']:9}  {steps}",
                flush=True,
            )


if __name__ == "__main__":
    main()
