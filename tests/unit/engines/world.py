"""Rows with everything that is awkward, and pipelines as training builds them for the three tasks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from include.engines.convert import Conversion
from include.engines.preparation import Preparation
from include.engines.session import ONNX_FILE, PREPARATION_FILE, OnnxPredictor
from include.store.features import Features, model_frame
from include.train.pipeline import assemble

FEATURES = Features(("age", "tiny", "whole", "member", "empty"), ("region", "many", "nothing"))
TASKS = ("binary", "multiclass", "regression")


def rows(count: int, seed: int) -> pd.DataFrame:
    """Numbers with holes, one of them of a spread far below its size; categories with a long tail and holes."""
    random = np.random.default_rng(seed)
    regions = np.array(["north", "süd", "", None], dtype=object)
    frame = pd.DataFrame(
        {
            "age": random.normal(40, 12, count),
            "tiny": 1e6 + random.normal(size=count) * 1e-3,
            "whole": random.integers(0, 80, count).astype(float),
            "member": random.integers(0, 2, count).astype(float),
            "empty": np.nan,
            "region": random.choice(regions, count),
            "many": np.array([f"m{n}" for n in random.zipf(1.3, count) % 600], dtype=object),
            "nothing": np.array([None] * count, dtype=object),
        }
    )
    for name in ("age", "tiny", "whole"):
        frame.loc[random.random(count) < 0.05, name] = np.nan
    return model_frame(frame, FEATURES)


def target(frame: pd.DataFrame, task: str) -> Any:
    """A target that needs every column, also the tiny differences."""
    noise = np.random.default_rng(9).normal(size=len(frame)) * 0.5
    signal = np.nan_to_num(frame["age"] - 40) / 12 + np.nan_to_num(frame["tiny"] - 1e6) * 500
    signal = signal + (frame["region"] == "süd") + noise
    if task == "regression":
        return signal.to_numpy() * 100 + 5000
    return np.digitize(signal, [0.0] if task == "binary" else [-0.7, 0.7])


def fit(estimator: Any, task: str, count: int = 800) -> Any:
    """Return the pipeline training would make of an estimator."""
    frame = rows(count, seed=0)
    return assemble(FEATURES, estimator, frame).fit(frame, target(frame, task))


def opened(conversion: Conversion) -> OnnxPredictor:
    """Return the ONNX engine of a conversion."""
    assert conversion.engine["kind"] == "onnx", conversion.engine
    preparation = Preparation.from_dict(json.loads(conversion.files[PREPARATION_FILE]))
    codes = np.array(conversion.engine["codes"], dtype=np.int64)
    return OnnxPredictor(preparation, conversion.files[ONNX_FILE], codes, conversion.engine["ties"])


def plain(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Return rows as a request has them: lists of JSON values."""
    return {
        str(name): [None if value is None or value != value else value for value in frame[name]]
        for name in frame
    }
