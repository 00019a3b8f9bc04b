"""Opens a verified version folder with the engine its metadata names.

Owns the rule which of its files are used: ONNX where parity held at
registration and the file is there, else the skops file, whose digest and types are checked again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from include.engines.predictor import ONNX, Predictor
from include.engines.session import ONNX_FILE, open_onnx
from include.registry.folder import MODEL_FILE
from include.store.inputs import Features

# A pipeline's arrays plus the Python objects around them, against its file: measured, see docs/engines.md.
_PIPELINE_FACTOR, _PIPELINE_BYTES = 1, 200_000


def open_version(folder: Path, meta: Mapping[str, Any]) -> Predictor:
    """Return a version, ready to answer.

    Args:
        folder: The version's folder; its digest was checked by whoever brought it.
        meta: Evergreen's metadata of the version, as recorded at registration.

    Raises:
        ModelError: A file is damaged, not what was registered or not to be trusted.
    """
    engine = meta.get("engine") or {}
    if engine.get("kind") == ONNX and (folder / ONNX_FILE).is_file():
        return open_onnx(folder, engine)
    from include.engines.pipeline import PipelinePredictor  # brings scikit-learn and pandas
    from include.registry.trust import load_model

    path = folder / MODEL_FILE
    pipeline = load_model(path, str(meta["model_sha256"]))
    size = path.stat().st_size * _PIPELINE_FACTOR + _PIPELINE_BYTES
    features = Features.from_dict(meta["features"])
    return PipelinePredictor(pipeline, features, str(meta["task"]), size_bytes=size)
