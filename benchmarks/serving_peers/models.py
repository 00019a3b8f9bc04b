"""Three fitted models in a real MLflow registry, their rows to ask for, and the answers those must get.

    python benchmarks/serving_peers/models.py FOLDER MLFLOW_URL hgb,logistic,forest

Fits with the platform's own stages on generated data and registers with its own `register`, so that serving gets what
users get. Beside them lie the same pipelines as joblib files, for the servers that take those.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
NUMERIC = [f"number_{n}" for n in range(14)]
CATEGORICAL = [f"category_{n}" for n in range(6)]
NAMES = [*NUMERIC, *CATEGORICAL]
ROWS = 20_000
#: Bodies of each size that a round goes through in turn.
BODIES = {1: 64, 100: 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "hgb": {"estimator": "sklearn.ensemble.HistGradientBoostingClassifier"},
    "logistic": {
        "estimator": "sklearn.linear_model.LogisticRegression",
        "params": {"max_iter": 1000},
    },
    "forest": {
        "estimator": "sklearn.ensemble.RandomForestClassifier",
        "params": {"n_estimators": 100, "min_samples_leaf": 5},
    },
}
#: The same model as `hgb`, with a second version that takes a tenth of its traffic.
CANARY_OF, CANARY, CANARY_SHARE = "hgb", "hgb-canary", 0.1


def make_rows(count: int, seed: int) -> dict[str, list[Any]]:
    """Return columns of plain values; None is a missing one (a twentieth of all)."""
    import numpy as np

    random = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {}
    for n, name in enumerate(NUMERIC):
        values = np.round(random.normal(size=count) * 10 ** (n % 4), 4).tolist()
        columns[name] = _with_gaps(values, random.random(count))
    for n, name in enumerate(CATEGORICAL):
        codes = (random.random(count) ** 2 * (4 + 4 * n)).astype(int)
        columns[name] = _with_gaps([f"k{code}" for code in codes], random.random(count))
    return columns


def _with_gaps(values: list[Any], chance: Any) -> list[Any]:
    return [None if drawn < 0.05 else value for value, drawn in zip(values, chance, strict=True)]


def write_training_data(path: Path) -> None:
    """Write a Parquet file with a key, a time, the features and a target that depends on some of them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = make_rows(ROWS, seed=0)
    numbers = [np.array(columns[n], dtype=float) for n in NUMERIC[:4]]
    scaled = [np.nan_to_num(values / 10**n) for n, values in enumerate(numbers)]
    signal = scaled[0] * scaled[1] + scaled[2] + np.array([v == "k0" for v in columns[NAMES[-1]]])
    chance = 1 / (1 + np.exp(-signal))
    target = np.random.default_rng(1).random(ROWS) < chance
    made: dict[str, Any] = {"id": [f"C{n:06d}" for n in range(ROWS)], **columns}
    made["at"] = (np.datetime64("2026-01-01", "s") + np.arange(ROWS)).astype("datetime64[us]")
    made["churned"] = np.where(target, "yes", "no")
    pq.write_table(pa.table(made), path)


def make_spec(data: Path) -> Any:
    """Return one spec with the three families as its candidates."""
    from include.spec.schema import Spec

    return Spec.model_validate(
        {
            "model": "bench",
            "task": "binary",
            "ingest": {
                "source": {"kind": "file", "path": str(data)},
                "key": "id",
                "time": "at",
                "target": "churned",
            },
            "train": {"candidates": list(FAMILIES.values())},
        }
    )


@dataclass(frozen=True)
class Fitted:
    """A fitted model, and what it was fitted from."""

    spec: Any
    store: Any
    manifest: Any
    split: Any
    result: Any


def build(folder: Path, url: str, families: list[str]) -> None:
    """Fit, register and describe the models; write `models.json` when all is done."""
    import joblib

    from include.ingest.ingest import ingest
    from include.registry.gateway import Registry
    from include.registry.trust import load_model
    from include.store.files import open_store
    from include.store.split import plan_split
    from include.train.fit import fit

    data = folder / "data.parquet"
    write_training_data(data)
    spec, store = make_spec(data), open_store(str(folder / "store"))
    manifest = ingest(spec, store, now=datetime.now(UTC), workdir=folder / "work").manifest
    split = plan_split(spec, store, manifest)
    registry = Registry(url)
    done: dict[str, Any] = {}
    for place, family in enumerate(FAMILIES):
        if family not in families:
            continue
        result = fit(spec, store, manifest, split, place, {}, folder / family)
        pipeline = load_model(result.model_path, result.sha256)
        joblib.dump(pipeline, folder / family / "model.joblib")
        package, said = make_package(Fitted(spec, store, manifest, split, result), pipeline)
        version = register(registry, replace(package, name=family))
        found = registry.get_version(family, version)
        (folder / family / "version").symlink_to(registry.load(found, folder / "cache").folder)
        done[family] = {"engine": said, "expected": expected(pipeline)}
        if family == CANARY_OF:
            start_canary(registry, replace(package, name=CANARY))
    (folder / "models.json").write_text(json.dumps(done))


def make_package(fitted: Fitted, pipeline: Any) -> tuple[Any, str]:
    """Return what the platform's `register` would register, and what it says of the engine."""
    from include.engines.convert import convert
    from include.engines.sample import holdout_sample
    from include.registry.package import Package
    from include.store.example import example_frame
    from include.store.features import resolve_features

    spec, store, manifest = fitted.spec, fitted.store, fitted.manifest
    features = resolve_features(spec, manifest)
    held_out = holdout_sample(store, manifest, fitted.split, features)
    conversion = convert(pipeline, features, spec.task, held_out, budget=spec.register_.parity)
    package = Package(
        name="",
        model_path=fitted.result.model_path,
        sha256=fitted.result.sha256,
        features=features,
        types={name: manifest.types[name] for name in features.names},
        classes=fitted.result.classes,
        task=spec.task,
        target=spec.ingest.target,
        example=example_frame(store, manifest, features),
        meta={
            "snapshot_id": manifest.snapshot_id,
            "key": spec.ingest.key,
            "time": spec.ingest.time,
        },
        engine=conversion.engine,
        files=conversion.files,
    )
    return package, ": ".join(conversion.tags().values())


def register(registry: Any, package: Any, alias: str = "champion") -> str:
    """Register a package and give its version the alias."""
    key = f"{package.name}-{alias}"
    run_id = registry.ensure_run("bench", key, package.name, {})
    version: str = registry.register(package, run_id=run_id, key=key, tags={}).version
    registry.finish_run(run_id)
    registry.set_alias(package.name, alias, version, expected=None)
    return version


def start_canary(registry: Any, package: Any) -> None:
    """Register a champion and a challenger that takes a share of the traffic, as a rollout shows it to serving."""
    from include.registry.rollouts import TAG_ROLLOUT, Rollout

    register(registry, package)
    challenger = register(registry, package, "challenger")
    tag = Rollout("bench", challenger, "canary", CANARY_SHARE).to_tag()
    registry.client.set_registered_model_tag(package.name, TAG_ROLLOUT, tag)


def expected(pipeline: Any) -> dict[str, Any]:
    """Return what scikit-learn says of the first body of each size: codes and the second class's chance."""
    from include.store.features import Features, model_frame

    features = Features(tuple(NUMERIC), tuple(CATEGORICAL))
    answers: dict[str, Any] = {}
    for rows in BODIES:
        chance = pipeline.predict_proba(model_frame(body_rows(rows, 0), features))[:, 1]
        codes = [int(value >= 0.5) for value in chance]
        answers[str(rows)] = {"chance": chance.tolist(), "codes": codes}
    return answers


def body_rows(rows: int, number: int) -> dict[str, list[Any]]:
    """Return the columns of the body with this number."""
    return make_rows(rows, seed=1000 * rows + number)


if __name__ == "__main__":
    build(Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(","))
