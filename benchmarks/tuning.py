"""What tuning and fitting cost beside a plain script that does the same: `python benchmarks/tuning.py [rows]`.

Same rows, same folds, same arguments, one thread; each side in a process of its own, imports not counted.
The plain side is what a person writes: read Parquet, one scikit-learn pipeline per fold and set of arguments.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder
from threadpoolctl import threadpool_limits

from include.settings import ROOT
from include.spec.schema import Spec
from include.store.files import open_store
from include.store.snapshots import ARROW_TYPES, Column, File, Manifest, commit_snapshot, read_frame
from include.store.split import plan_split
from include.train.fit import fit
from include.train.tune import tune

NUMERIC = [f"x{n}" for n in range(16)]
CATEGORICAL = [f"c{n}" for n in range(4)]
TRIALS, FOLDS = 5, 3
SPEC = {
    "model": "bench",
    "task": "binary",
    "ingest": {
        "source": {"kind": "file", "path": "x.csv"},
        "target": "y",
        "time": "at",
        "features": {"numeric": NUMERIC, "categorical": CATEGORICAL},
    },
    "train": {
        "candidates": [
            {
                "estimator": "sklearn.ensemble.HistGradientBoostingClassifier",
                "search": {
                    "learning_rate": {"low": 0.02, "high": 0.3, "log": True},
                    "max_leaf_nodes": {"choices": [15, 31, 63]},
                },
            }
        ],
        "tune": {"trials": TRIALS, "folds": FOLDS},
    },
}


def make_frame(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({name: rng.normal(size=rows) for name in NUMERIC})
    for name in CATEGORICAL:
        frame[name] = rng.choice(np.array([f"k{n}" for n in range(12)], dtype=object), rows)
    frame.loc[rng.random(rows) < 0.1, "x0"] = np.nan
    signal = frame["x1"] * frame["x2"] + frame["x3"] + (frame["c0"] < "k3") * 1.5
    frame["y"] = (rng.random(rows) < 1 / (1 + np.exp(-signal))).astype(int)
    frame["at"] = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(rows), unit="s")
    return frame


def store_frame(folder: Path, frame: pd.DataFrame) -> Manifest:
    kinds = dict.fromkeys(NUMERIC, "float") | dict.fromkeys(CATEGORICAL, "string")
    kinds |= {"y": "int", "at": "timestamp"}
    path = folder / "part.parquet"
    schema = pa.schema([(n, ARROW_TYPES[k]) for n, k in kinds.items()])
    table = pa.Table.from_pandas(frame[list(kinds)], preserve_index=False).cast(schema)
    pq.write_table(table, path, compression="zstd")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    file = File(f"{digest}.parquet", digest, path.stat().st_size, len(frame))
    columns = tuple(Column(n, k, 0.0, None, None, None) for n, k in kinds.items())
    manifest = Manifest(
        "bench", digest[:32], len(frame), columns, (file,), None, None, "benchmark", "2026-01-01"
    )
    commit_snapshot(open_store(str(folder / "store")), manifest, {file.name: path})
    return manifest


def ours(folder: Path, manifest: Manifest) -> dict[str, object]:
    spec, store = Spec.model_validate(SPEC), open_store(str(folder / "store"))
    split = plan_split(spec, store, manifest)
    begun, idle = time.perf_counter(), time.process_time()
    result = tune(
        spec, store, manifest, split, 0, storage=f"sqlite:///{folder}/optuna.db", study="bench"
    )
    tuned, used = time.perf_counter(), time.process_time()
    fit(spec, store, manifest, split, 0, result.best_params, folder / "out")
    ended = time.perf_counter()
    return {
        "tune": tuned - begun,
        "cpu": used - idle,
        "fit": ended - tuned,
        "trials": sum(t.seconds for t in result.trials),
        "scores": [t.value for t in result.trials],
        "params": [t.params for t in result.trials],
        "best": result.best_params,
    }


def plain(folder: Path, manifest: Manifest, given: dict[str, object]) -> dict[str, object]:
    store = open_store(str(folder / "store"))
    spec = Spec.model_validate(SPEC)
    cutoff = pd.Timestamp(plan_split(spec, store, manifest).cutoff)
    names = NUMERIC + CATEGORICAL
    with threadpool_limits(1):
        begun, idle = time.perf_counter(), time.process_time()
        frame = read_frame(store, manifest, [*names, "y", "at"])
        frame = frame[frame["at"] <= cutoff].sort_values("at")
        inputs, target = frame[names], frame["y"].to_numpy()
        edges = [round(len(frame) * n / (FOLDS + 1)) for n in range(1, FOLDS + 2)]
        scores = []
        for params in given["params"]:  # type: ignore[attr-defined]
            found = []
            for start, end in itertools.pairwise(edges):
                pipeline = make_pipeline(params)
                pipeline.fit(inputs.iloc[:start], target[:start])
                chances = pipeline.predict_proba(inputs.iloc[start:end])[:, 1]
                found.append(roc_auc_score(target[start:end], chances))
            scores.append(statistics.fmean(found))
        tuned, used = time.perf_counter(), time.process_time()
        make_pipeline(given["best"]).fit(inputs, target)
        ended = time.perf_counter()
    seconds = {"tune": tuned - begun, "cpu": used - idle, "fit": ended - tuned}
    return {**seconds, "scores": scores}


def make_pipeline(params: object) -> Pipeline:
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    prepare = ColumnTransformer(
        [("numeric", "passthrough", NUMERIC), ("categorical", encode, CATEGORICAL)]
    )
    model = HistGradientBoostingClassifier(random_state=42, **params)  # type: ignore[arg-type]
    return Pipeline([("prepare", prepare), ("model", model)])


def run_apart(folder: Path, side: str, given: object) -> dict[str, object]:
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--side", side, "--folder", str(folder)],
        input=json.dumps(given),
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {**json.loads(done.stdout), "process": time.perf_counter() - begun}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="?", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=["ours", "plain"])
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.side:
        given = json.loads(sys.stdin.read())
        manifest = Manifest.from_json((args.folder / "manifest.json").read_text())
        side = (
            ours(args.folder, manifest)
            if args.side == "ours"
            else plain(args.folder, manifest, given)
        )
        print(json.dumps(side))
        return
    print(f"{args.rows:,} rows x 20 columns, {TRIALS} trials x {FOLDS} folds, one thread")
    print(f"{'':8}{'tune s':>9}{'cpu s':>8}{'of it trials':>14}{'fit s':>8}{'process s':>11}")
    ratios = []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            manifest = store_frame(folder, make_frame(args.rows))
            (folder / "manifest.json").write_text(manifest.to_json())
            mine = run_apart(folder, "ours", None)
            theirs = run_apart(folder, "plain", mine)
            for label, side in (("ours", mine), ("plain", theirs)):
                trials = f"{side['trials']:14.2f}" if "trials" in side else " " * 14
                print(
                    f"{label:8}{side['tune']:9.2f}{side['cpu']:8.2f}{trials}{side['fit']:8.2f}{side['process']:11.2f}"
                )
            ratios.append(float(mine["cpu"]) / float(theirs["cpu"]))  # type: ignore[arg-type]
            gaps = np.abs(np.subtract(mine["scores"], theirs["scores"]))  # type: ignore[arg-type]
            print(
                f"        ratio of tune's cpu {ratios[-1]:.3f}, largest gap of scores {gaps.max():.1e}"
            )
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
