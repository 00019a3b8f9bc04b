"""The yardstick of `pipeline.py`: the same work as one plain script, as a competent engineer writes it.

CSV to Parquet with a digest, checks in pandas, five settings by three time-ordered folds, the final fit, a paired
bootstrap against the trivial baseline, MLflow. No retries, no idempotency, no reports, no plots, no second look at
the file that was written. Usage: plain_pipeline.py CSV FOLDER MLFLOW_URL; prints seconds by stage as JSON.
"""

from __future__ import annotations

import time

_begun, _cpu = time.perf_counter(), time.process_time()

import hashlib  # noqa: E402  # everything from here on is timed as `imports`
import json  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import mlflow  # noqa: E402
import mlflow.sklearn  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pyarrow.csv as pacsv  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from mlflow.models import infer_signature  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: E402
from sklearn.metrics import (  # noqa: E402
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
)
from sklearn.model_selection import TimeSeriesSplit  # noqa: E402
from sklearn.pipeline import Pipeline  # noqa: E402
from sklearn.preprocessing import OrdinalEncoder  # noqa: E402

KEY, TIME, TARGET = "id", "at", "y"
RATES = (0.03, 0.06, 0.1, 0.15, 0.25)
FOLDS, HOLDOUT, SEED, RESAMPLES = 3, 0.2, 42, 2000
SKOPS_TYPES = [
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn._loss.loss.HalfBinomialLoss",
]


class Laps:
    """Wall and processor seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {}
        self._wall, self._cpu = _begun, _cpu

    def lap(self, stage: str) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self.seconds[stage] = {"wall": wall - self._wall, "cpu": cpu - self._cpu}
        self._wall, self._cpu = wall, cpu


def ingest(source: Path, folder: Path) -> tuple[Path, str]:
    path = folder / "snapshot.parquet"
    pq.write_table(pacsv.read_csv(source), path, compression="zstd")
    with path.open("rb") as file:
        return path, hashlib.file_digest(file, "sha256").hexdigest()


def validate(frame: pd.DataFrame) -> None:
    numbers = frame.select_dtypes("number")
    problems = {
        "too few rows": len(frame) < 1000,
        "a key stands twice": frame[KEY].duplicated().any(),
        "a target is missing": frame[TARGET].isna().any(),
        "one class": frame[TARGET].nunique() != 2,
        "infinite values": bool(np.isinf(numbers.to_numpy()).any()),
        "an empty column": frame.isna().all().any(),
        "x0 out of range": not frame["x0"].between(-100, 100).mean() > 0.8,
        "unknown category": not frame["c0"].isin([f"k{n}" for n in range(12)]).all(),
        "a leak": (numbers.drop(columns=TARGET).corrwith(frame[TARGET]).abs() > 0.99).any(),
    }
    if found := [name for name, bad in problems.items() if bad]:
        raise ValueError(", ".join(found))


def make_pipeline(frame: pd.DataFrame, rate: float) -> Pipeline:
    categorical = [c for c in frame.columns if c.startswith("c")]
    numeric = [c for c in frame.columns if c.startswith("x")]
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    prepare = ColumnTransformer([("n", "passthrough", numeric), ("c", encode, categorical)])
    model = HistGradientBoostingClassifier(learning_rate=rate, random_state=SEED)
    return Pipeline([("prepare", prepare), ("model", model)])


def tune(inputs: pd.DataFrame, target: Any) -> dict[float, float]:
    scores = {}
    for rate in RATES:
        found = []
        for train, test in TimeSeriesSplit(FOLDS).split(inputs):
            pipeline = make_pipeline(inputs, rate).fit(inputs.iloc[train], target[train])
            found.append(
                roc_auc_score(target[test], pipeline.predict_proba(inputs.iloc[test])[:, 1])
            )
        scores[rate] = statistics.fmean(found)
    return scores


def bootstrap_auc(target: Any, scores: Any, resamples: int) -> Any:
    """Score resamples by counts in the order of the scores; ties are ignored."""
    order = np.argsort(scores, kind="stable")
    positive, n = target[order] == 1, len(target)
    rng = np.random.default_rng(SEED)
    found = np.empty(resamples)
    for number in range(resamples):
        counts = np.bincount(rng.integers(0, n, n), minlength=n)[order]
        negatives = np.where(positive, 0, counts)
        pairs = (counts[positive] * np.cumsum(negatives)[positive]).sum()
        found[number] = pairs / (counts[positive].sum() * negatives.sum())
    return found


def gate(pipeline: Pipeline, inputs: pd.DataFrame, target: Any) -> dict[str, float]:
    chances = pipeline.predict_proba(inputs)[:, 1]
    metrics = {
        "roc_auc": roc_auc_score(target, chances),
        "average_precision": average_precision_score(target, chances),
        "log_loss": log_loss(target, chances),
        "brier": brier_score_loss(target, chances),
        "accuracy": accuracy_score(target, chances > 0.5),
    }
    low = np.quantile(bootstrap_auc(target, chances, RESAMPLES) - 0.5, 0.025)
    if low <= 0 or metrics["roc_auc"] < 0.6:
        raise ValueError(f"rejected: {metrics}")
    return {**metrics, "gain_low": float(low)}


def register(
    pipeline: Pipeline, example: pd.DataFrame, digest: str, params: Any, metrics: Any, trials: Any
) -> str:
    mlflow.set_experiment("plain")
    with mlflow.start_run(tags={"snapshot": digest}):
        for rate, value in trials.items():
            with mlflow.start_run(nested=True):
                mlflow.log_params({"learning_rate": rate})
                mlflow.log_metric("value", value)
        mlflow.log_params(params)
        mlflow.log_metrics(metrics)
        info = mlflow.sklearn.log_model(
            pipeline,
            name="model",
            serialization_format="skops",
            skops_trusted_types=SKOPS_TYPES,
            signature=infer_signature(example, pipeline.predict(example)),
            input_example=example,
            pip_requirements=["scikit-learn", "pandas", "skops"],
            registered_model_name="plain",
        )
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("plain", "champion", info.registered_model_version)
    return str(info.registered_model_version)


def main() -> None:
    source, folder, url = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    laps = Laps()
    laps.lap("imports")
    path, digest = ingest(source, folder)
    laps.lap("ingest")
    frame = pq.read_table(path).to_pandas().sort_values(TIME)
    validate(frame)
    laps.lap("validate")
    held = len(frame) - round(len(frame) * HOLDOUT)
    inputs, target = frame.drop(columns=[KEY, TIME, TARGET]), frame[TARGET].to_numpy()
    trials = tune(inputs.iloc[:held], target[:held])
    best = max(trials, key=lambda rate: trials[rate])
    laps.lap("train.tune")
    pipeline = make_pipeline(inputs, best).fit(inputs.iloc[:held], target[:held])
    laps.lap("train.fit")
    metrics = gate(pipeline, inputs.iloc[held:], target[held:])
    laps.lap("evaluate")
    mlflow.set_tracking_uri(url)
    params = {"learning_rate": best, "seed": SEED}
    register(pipeline, inputs.head(5), digest, params, metrics, trials)
    laps.lap("register")
    print(json.dumps({"laps": laps.seconds, "best": best, "roc_auc": metrics["roc_auc"]}))


if __name__ == "__main__":
    main()
