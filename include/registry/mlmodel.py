"""A package as an MLflow model folder, and the digest that guards it.

Writes the files by hand instead of calling `mlflow.sklearn.save_model`: that would dump the pipeline a second
time (other bytes than the gate judged) and load it again, and `log_model` starts a subprocess to guess the
requirements (8.9 s).
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
import sklearn
import yaml
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema

from include.registry.folder import MODEL_FILE, folder_digest
from include.registry.package import Package
from include.registry.trust import read_types

_REQUIRED = ("mlflow", "scikit-learn", "skops", "numpy", "scipy", "pandas")
_BY_TYPE = {"xgboost.": "xgboost", "lightgbm.": "lightgbm"}
_EXAMPLE, _SERVING_EXAMPLE = "input_example.json", "serving_input_example.json"


def write_folder(package: Package, folder: Path, *, model_id: str, run_id: str) -> str:
    """Write the folder MLflow, its UI and `mlflow.pyfunc.load_model` understand.

    Args:
        package: What to write; its model file is verified first.
        folder: A folder that does not exist yet.
        model_id: Id of the logged model in MLflow.
        run_id: Id of the run that produced it.

    Returns:
        The folder's digest.

    Raises:
        ModelError: The model file is missing, damaged, changed or untrusted.
    """
    types = read_types(package.model_path, package.sha256)
    folder.mkdir(parents=True)
    shutil.copyfile(package.model_path, folder / MODEL_FILE)
    for name, content in package.files.items():
        (folder / name).write_bytes(content)
    requirements = pinned_requirements(types)
    _write_environment(folder, requirements)
    model = Model(
        model_id=model_id,
        model_uuid=model_id,
        run_id=run_id,
        signature=signature(package),
        metadata={"evergreen": package.metadata()},
        model_size_bytes=(folder / MODEL_FILE).stat().st_size,
    )
    model.saved_input_example_info = _write_example(package.example, folder)
    mlflow.pyfunc.add_to_model(
        model,
        loader_module="mlflow.sklearn",
        model_path=MODEL_FILE,
        conda_env="conda.yaml",
        python_env="python_env.yaml",
        predict_fn="predict",
    )
    model.add_flavor(
        "sklearn",
        pickled_model=MODEL_FILE,
        sklearn_version=sklearn.__version__,
        serialization_format="skops",
        code=None,
        skops_trusted_types=types,  # for people who load with MLflow; Evergreen never reads it
    )
    model.save(str(folder / "MLmodel"))
    return folder_digest(folder)


def signature(package: Package) -> ModelSignature:
    """Return the signature by declared types, never guessed from an example.

    Whole numbers are doubles unless declared never to be missing: MLflow refuses the float64 that pandas makes
    of a whole column with one missing value.
    """
    columns = [
        ColSpec(_type(package, name), name, required=name in package.required)
        for name in package.features.names
    ]
    output = DataType.double if package.task == "regression" else DataType.long
    return ModelSignature(inputs=Schema(columns), outputs=Schema([ColSpec(output)]))


def _type(package: Package, name: str) -> DataType:
    if name in package.features.categorical:
        return DataType.string
    whole = package.types.get(name) == "int" and name in package.required
    return DataType.long if whole else DataType.double


def pinned_requirements(types: Sequence[str] = ()) -> list[str]:
    """Return what a process needs to load the model, pinned to what trained it."""
    names = [*_REQUIRED]
    names += [name for prefix, name in _BY_TYPE.items() if any(t.startswith(prefix) for t in types)]
    return [f"{name}=={importlib.metadata.version(name)}" for name in names]


def _write_environment(folder: Path, requirements: list[str]) -> None:
    version = platform.python_version()
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n")
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={version}", "pip", {"pip": requirements}],
    }
    (folder / "conda.yaml").write_text(yaml.safe_dump(conda, sort_keys=False))
    python = {
        "python": version,
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": ["-r requirements.txt"],
    }
    (folder / "python_env.yaml").write_text(yaml.safe_dump(python, sort_keys=False))


def _write_example(example: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """Write the example the way MLflow reads it back, and return its entry in MLmodel."""
    split = json.loads(example.to_json(orient="split", index=False))
    (folder / _EXAMPLE).write_text(json.dumps(split))
    (folder / _SERVING_EXAMPLE).write_text(json.dumps({"dataframe_split": split}))
    return {
        "artifact_path": _EXAMPLE,
        "serving_input_path": _SERVING_EXAMPLE,
        "type": "dataframe",
        "pandas_orient": "split",
    }
