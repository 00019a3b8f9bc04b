"""Small real pipelines of the three tasks, and an in-memory registry that can fail in the ways a real one does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from include.engines.opening import open_version
from include.engines.pipeline import PipelinePredictor
from include.errors import ModelError, ServiceError
from include.registry.rollouts import Rollout
from include.registry.trust import dump_model
from include.serving.engine import LoadedModel
from include.serving.served import Wanted
from include.store.features import Features, model_frame

FEATURES = Features(("age", "income", "member"), ("region", "plan"))
TYPES = {"age": "int", "income": "float", "member": "bool", "region": "string", "plan": "int"}
CHURN = {
    "task": "binary",
    "target": "churned",
    "features": FEATURES.to_dict(),
    "types": TYPES,
    "classes": ["no", "yes"],
    "key": "customer",
    "time": "seen_at",
}
PRICE = CHURN | {"task": "regression", "target": "price", "classes": []}
COLOUR = CHURN | {"task": "multiclass", "target": "colour", "classes": [1, 2, 7]}
EXAMPLE = {
    "age": [30, None, 55],
    "income": [1000.5, 2000.0, None],
    "member": [1.0, 0.0, None],
    "region": ["north", None, "south"],
    "plan": ["1", "2", None],
}


def rows(count: int = 300, seed: int = 0) -> dict[str, Any]:
    """Columns of the three tasks' features, with missing values."""
    random = np.random.default_rng(seed)
    age = random.integers(18, 80, count).astype(float)
    age[::17] = np.nan
    region = random.choice(np.array(["north", "south", "east", None], dtype=object), count)
    return {
        "age": age,
        "income": random.normal(3000, 900, count),
        "member": random.integers(0, 2, count).astype(float),
        "region": region,
        "plan": random.choice(np.array(["1", "2", "3"], dtype=object), count),
    }


def fit(meta: Mapping[str, Any], seed: int = 0) -> Any:
    """Fit a small real pipeline for one of the three tasks."""
    columns = rows(seed=seed)
    frame = model_frame(columns, FEATURES)
    signal = np.nan_to_num(columns["age"], nan=40) * 50 + columns["income"]
    if meta["task"] == "regression":
        encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
        last: Any = HistGradientBoostingRegressor(max_iter=10, random_state=seed)
        parts = [("n", "passthrough", list(FEATURES.numeric)), ("c", encode, ["region", "plan"])]
        return Pipeline([("prepare", ColumnTransformer(parts)), ("estimator", last)]).fit(
            frame, signal
        )
    parts = [
        ("n", make_pipeline(SimpleImputer(), StandardScaler()), list(FEATURES.numeric)),
        ("c", OneHotEncoder(handle_unknown="ignore"), ["region", "plan"]),
    ]
    edges = np.quantile(signal, [0.5] if meta["task"] == "binary" else [0.3, 0.7])
    steps = [("prepare", ColumnTransformer(parts)), ("estimator", LogisticRegression(max_iter=500))]
    return Pipeline(steps).fit(frame, np.digitize(signal, edges))


def loaded(pipeline: Any, meta: Mapping[str, Any] = CHURN, example: Any = EXAMPLE) -> LoadedModel:
    """A version that is opened but not tried."""
    predictor = PipelinePredictor(pipeline, FEATURES, str(meta["task"]))
    return LoadedModel("churn", "3", predictor, meta, example, Path("unused"))


class MemoryRegistry:
    """A `ModelSource` that keeps aliases and rollouts in memory and model files in a folder, and can be taken down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.down = False
        self.hangs = threading.Event()
        self.hangs.set()  # cleared: calls wait
        self.loads: list[tuple[str, str]] = []
        self._aliases: dict[str, dict[str, str]] = {}
        self._rollouts: dict[str, Rollout] = {}
        self._stored: dict[tuple[str, str], tuple[Path, dict[str, Any], dict[str, Any]]] = {}

    def add(
        self, name: str, version: str, meta: Mapping[str, Any], pipeline: Any, example: Any = None
    ) -> None:
        path = self.folder / name / version / "model.skops"
        digest = dump_model(pipeline, path)
        stored = dict(EXAMPLE if example is None else example)
        known = {**meta, "model_sha256": digest}
        self._stored[name, version] = (path, known, stored)

    def spoil(self, name: str, version: str) -> None:
        path = self._stored[name, version][0]
        path.write_bytes(path.read_bytes()[:-20])

    def set(self, name: str, alias: str, version: str | None) -> None:
        of = {k: v for k, v in self._aliases.get(name, {}).items() if k != alias}
        self._aliases = {**self._aliases, name: of if version is None else of | {alias: version}}

    def roll_out(self, name: str, rollout: Rollout | None) -> None:
        others = {k: v for k, v in self._rollouts.items() if k != name}
        self._rollouts = others if rollout is None else others | {name: rollout}

    def _answer(self) -> None:
        self.hangs.wait(20)
        if self.down:
            raise ServiceError("MLflow", "must answer, got connection refused", "Start it.")

    def models(self) -> dict[str, Wanted]:
        self._answer()
        return {name: Wanted(of, self._rollouts.get(name)) for name, of in self._aliases.items()}

    def load(self, name: str, version: str, cache: Path) -> LoadedModel:
        self._answer()
        self.loads.append((name, version))
        if (name, version) not in self._stored:
            raise ModelError(f"{name} {version}", "must exist, got nothing", "Register it.")
        path, meta, example = self._stored[name, version]
        copy = cache / name / version / "model.skops"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        predictor = open_version(copy.parent, meta)
        return LoadedModel(name, version, predictor, meta, example, copy.parent)


def wait_for(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Poll until the condition holds; fail at the deadline."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {condition}")
