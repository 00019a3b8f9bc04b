"""At registration: a fitted pipeline becomes ONNX where that says the same, and stays scikit-learn where not.

Never fails a registration: whatever goes wrong is the reason that is recorded.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from include.engines.graph import estimator_graph
from include.engines.parity import Parity, columns_of, compare
from include.engines.pipeline import PipelinePredictor, ties_of
from include.engines.predictor import ONNX, SKLEARN, Ties
from include.engines.preparation import Preparation
from include.engines.reading import limits, read_preparation
from include.engines.session import ONNX_FILE, PREPARATION_FILE, OnnxPredictor
from include.engines.size import check_size
from include.engines.unsupported import Unsupported
from include.store.inputs import Features

_REASON = 300  # characters: it becomes a tag in MLflow


@dataclass(frozen=True)
class Conversion:
    """What a version's engine will be.

    Args:
        engine: For the version's metadata: `kind`; for onnx `codes`, `ties`, `max_difference`, `rows`, `budget` and the
            files' digests; for sklearn the `reason`.
        files: Content by name, to be stored beside the model; empty for sklearn.
    """

    engine: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)

    def tags(self) -> dict[str, str]:
        """Return the version's tags: the engine, and the comparison or the reason in a few words."""
        engine = self.engine
        said = engine.get("reason") or (
            f"max difference {engine['max_difference']:.1e} in {engine['rows']} rows, "
            f"allowed {engine['budget']:g}"
        )
        return {"evergreen.engine": engine["kind"], "evergreen.parity": said}


def convert(
    pipeline: Any, features: Features, task: str, frame: pd.DataFrame, *, budget: float
) -> Conversion:
    """Convert a fitted pipeline and compare both engines.

    Args:
        pipeline: As `include.train` fits it: preparation and estimator.
        features: Its input.
        task: binary, multiclass or regression.
        frame: `model_frame` rows to compare on, of the holdout.
        budget: Largest difference allowed, see `spec.register.parity`.
    """
    try:
        return _converted(pipeline, features, task, frame, budget)
    except Unsupported as error:
        return _stays(f"cannot convert {error}")
    except Exception as error:
        logging.getLogger(__name__).warning("conversion to ONNX failed", exc_info=True)
        return _stays(f"conversion failed with {type(error).__name__}: {error}")


def _converted(
    pipeline: Any, features: Features, task: str, frame: pd.DataFrame, budget: float
) -> Conversion:
    if frame.empty:
        raise Unsupported("without held-out rows to compare on")
    steps = getattr(pipeline, "steps", ())
    if len(steps) != 2:
        raise Unsupported("a pipeline of other than two steps")
    trusted = PipelinePredictor(pipeline, features, task)
    if task != "regression" and not trusted.has_probability:
        raise Unsupported("a classifier without probabilities")
    ties = "first" if task == "regression" else ties_of(pipeline)
    if ties is None:
        raise Unsupported("a classifier whose label need not be its most probable class")
    prepare, estimator = (step for _, step in steps)
    preparation = read_preparation(prepare, features)
    row = preparation.matrix(columns_of(frame.iloc[:1]))
    largest, missing = limits(estimator, row)
    preparation = replace(preparation, largest=largest, missing=missing)
    check_size(estimator)
    graph = estimator_graph(estimator, preparation.width).SerializeToString()
    # What serving will read is what is compared.
    stored = json.dumps(preparation.to_dict(), allow_nan=False).encode()
    read = Preparation.from_dict(json.loads(stored))
    parity = compare(trusted, _opened(read, graph, trusted.codes, ties), frame, budget)
    problem = parity.problem(budget)
    if problem:
        return _stays(f"ONNX answers otherwise: {problem}")
    return Conversion(
        {**_engine(parity, budget, graph, stored), "codes": trusted.codes.tolist(), "ties": ties},
        {ONNX_FILE: graph, PREPARATION_FILE: stored},
    )


def _opened(
    preparation: Preparation, graph: bytes, codes: npt.NDArray[np.int64], ties: Ties
) -> OnnxPredictor:
    try:
        return OnnxPredictor(preparation, graph, codes, ties)
    except Exception as error:  # ONNX Runtime has a dozen kinds, none with a base of its own
        raise Unsupported(f"to a graph ONNX Runtime opens: {error}") from error


def _engine(parity: Parity, budget: float, graph: bytes, stored: bytes) -> dict[str, Any]:
    return {
        "kind": ONNX,
        "max_difference": float(np.format_float_scientific(parity.difference, precision=2)),
        "rows": parity.rows,
        "budget": budget,
        "onnx_sha256": hashlib.sha256(graph).hexdigest(),
        "preparation_sha256": hashlib.sha256(stored).hexdigest(),
    }


def _stays(reason: str) -> Conversion:
    text = " ".join(reason.split())
    return Conversion({"kind": SKLEARN, "reason": text[:_REASON]})
