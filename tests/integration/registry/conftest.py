import itertools
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from include.ledger.ledger import Ledger
from include.registry.gateway import Registry
from include.registry.package import TAG_DIGEST, TAG_PRODUCER, Package
from include.registry.trust import dump_model
from include.store.features import Features
from tests.servers import start_mlflow

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory):
    with start_mlflow(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture(scope="session", autouse=True)
def no_telemetry():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield


@pytest.fixture
def registry(mlflow_url):
    return Registry(mlflow_url)


@pytest.fixture
def name():
    """A model nobody else uses."""
    return f"model_{next(_NUMBERS)}"


@pytest.fixture
def ledger(tmp_path):
    return Ledger(f"sqlite:///{tmp_path}/ledger.db")


@pytest.fixture
def run_id(registry, name):
    return registry.ensure_run(name, "run", "run", {})


@pytest.fixture(scope="session")
def fitted():
    """A pipeline with numbers, categories and missing values of both, and its training frame."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": draw.integers(18, 80, 200).astype(float),
            "income": draw.normal(0, 1, 200),
            "plan": draw.choice(["a", "b"], 200).astype(object),
        }
    )
    frame.loc[3, "income"] = np.nan
    frame.loc[4, "plan"] = None
    words = make_pipeline(
        SimpleImputer(missing_values=None, strategy="constant", fill_value="?"),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    )
    pipeline = make_pipeline(
        ColumnTransformer([("n", SimpleImputer(), ["age", "income"]), ("c", words, ["plan"])]),
        HistGradientBoostingClassifier(max_iter=5),
    )
    return pipeline.fit(frame, (frame["age"] > 50).astype(int)), frame


@pytest.fixture
def package(fitted, name, tmp_path):
    pipeline, frame = fitted
    path = tmp_path / "model.skops"
    return Package(
        name=name,
        model_path=path,
        sha256=dump_model(pipeline, path),
        features=Features(("age", "income"), ("plan",)),
        types={"age": "int", "income": "int", "plan": "string"},
        classes=["no", "yes"],
        task="binary",
        target="churned",
        example=frame.head(3),
        meta={"snapshot_id": "s1", "cutoff": None},
        required=frozenset({"age"}),
    )


@pytest.fixture
def versions(registry, name, run_id):
    """Four versions that carry our tags and no files: enough to move aliases between them."""
    registry._ensure_model(name)
    experiment = registry.experiment_id(name)
    model_id = registry.client.create_logged_model(experiment, source_run_id=run_id).model_id
    tags = {TAG_PRODUCER: "evergreen", TAG_DIGEST: "0" * 64}
    for _ in range(4):
        registry.client.create_model_version(
            name, f"models:/{model_id}", run_id, tags=tags, model_id=model_id
        )
    return ["1", "2", "3", "4"]
