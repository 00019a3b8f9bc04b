"""One loaded model version, ready to answer: predictions, labels, metadata, self-test.

Owns everything between checked columns and plain numbers. Immutable once built, so any number of threads may
hold one while the table moves on to the next version; the last request to finish frees it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from include.errors import ModelError
from include.serving.columns import Columns, Schema
from include.serving.rejection import RequestError, bad
from include.serving.tensors import tensor
from include.store.features import Features, model_frame

_WARM_UPS = 3
# Estimators whose predict() is the argmax of predict_proba(): one pass gives both. Others (probability-calibrated
# SVC, tuned thresholds) may disagree with themselves, so they are asked twice.
_ARGMAX = frozenset(
    (
        "AdaBoostClassifier",
        "DecisionTreeClassifier",
        "ExtraTreesClassifier",
        "GaussianNB",
        "GradientBoostingClassifier",
        "HistGradientBoostingClassifier",
        "LogisticRegression",
        "MLPClassifier",
        "RandomForestClassifier",
    )
)


@dataclass(frozen=True)
class LoadedModel:
    """A model version as its source hands it over: verified, but not yet tried.

    Args:
        name: Registered name.
        version: Registered version.
        pipeline: Fitted scikit-learn pipeline that takes a model frame.
        meta: task, target, features, types, classes and lineage, as recorded at registration.
        example: The stored input example: one list of plain values per feature.
        file: The verified model file.
        sha256: Its digest.
    """

    name: str
    version: str
    pipeline: Any
    meta: Mapping[str, Any]
    example: Mapping[str, Sequence[Any]]
    file: Path
    sha256: str


@dataclass(frozen=True)
class Prediction:
    """What a model says about some rows.

    Args:
        predict: Label (as in the training data) or number per row, as plain values.
        probability: Shape (rows, classes), columns in the order of the model's classes; None without.
    """

    predict: list[Any]
    probability: npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class Engine:
    """Answers for one version; build one with `build_engine`."""

    model: LoadedModel
    schema: Schema
    classes: tuple[Any, ...]
    task: str
    warm_ms: float = field(default=0.0, compare=False)

    @property
    def version(self) -> str:
        """The registered version."""
        return self.model.version

    @cached_property
    def has_probability(self) -> bool:
        """Whether the estimator gives probabilities."""
        return self.task != "regression" and hasattr(self.model.pipeline, "predict_proba")

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in the order they are answered."""
        return ("predict", "probability") if self.has_probability else ("predict",)

    @cached_property
    def label_datatype(self) -> str:
        """Tensor datatype of `predict`."""
        if self.task == "regression":
            return "FP64"
        kinds = {type(label) for label in self.classes}
        if kinds == {bool}:
            return "BOOL"
        if kinds == {int}:
            return "INT64"
        return "FP64" if kinds and kinds <= {int, float} else "BYTES"

    def predict(self, columns: Columns) -> Prediction:
        """Return predictions for checked columns, one array of equal length per feature.

        Raises:
            RequestError: The pipeline refuses the values, or gives no finite answer for them.
        """
        frame = model_frame(columns, self.schema.features)
        pipeline = self.model.pipeline
        try:
            if self.task == "regression":
                return self._numbers(np.asarray(pipeline.predict(frame), dtype=np.float64))
            if not self.has_probability:
                return Prediction(self._labels(pipeline.predict(frame)), None)
            probability = np.asarray(pipeline.predict_proba(frame), dtype=np.float64)
            codes = (
                self._codes[probability.argmax(axis=1)] if self._argmax else pipeline.predict(frame)
            )
        except ValueError as error:
            raise bad(
                "inputs",
                f"must be values the model can compute with, got {_first_line(error)}",
                "Check the values for extremes the training data never had.",
            ) from error
        return Prediction(self._labels(codes), self._spread(probability))

    @cached_property
    def _argmax(self) -> bool:
        pipeline = self.model.pipeline
        last = pipeline.steps[-1][1] if hasattr(pipeline, "steps") else pipeline
        kind = type(last)
        return kind.__name__ in _ARGMAX and kind.__module__.startswith("sklearn.")

    @cached_property
    def _codes(self) -> npt.NDArray[np.int64]:
        return np.asarray(self.model.pipeline.classes_, dtype=np.int64)

    def _labels(self, codes: npt.NDArray[Any]) -> list[Any]:
        return [self.classes[code] for code in np.asarray(codes, dtype=np.int64).tolist()]

    def _spread(self, probability: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return one column per class of the model, also for classes the estimator never saw."""
        if not np.isfinite(probability).all():
            raise _not_finite(probability.sum(axis=1))
        if probability.shape[1] == len(self.classes):
            return np.ascontiguousarray(probability)
        full = np.zeros((len(probability), len(self.classes)))
        full[:, self._codes] = probability
        return full

    def _numbers(self, values: npt.NDArray[np.float64]) -> Prediction:
        flat = values.ravel()
        if not np.isfinite(flat).all():
            raise _not_finite(flat)
        return Prediction(flat.tolist(), None)

    def tensors(self, prediction: Prediction, wanted: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Return the prediction as output tensors, those in `wanted` or all."""
        rows = len(prediction.predict)
        made = []
        for name in wanted or self.outputs:
            if name == "predict":
                data: Any = prediction.predict
                if self.label_datatype == "BYTES":
                    data = [label if isinstance(label, str) else str(label) for label in data]
                made.append(tensor(name, self.label_datatype, data, [rows]))
            elif prediction.probability is not None:
                shape = [rows, len(self.classes)]
                made.append(tensor(name, "FP64", prediction.probability.ravel(), shape))
        return made

    def input_metadata(self) -> list[dict[str, Any]]:
        """Return name, datatype and shape of every input."""
        return [
            {"name": name, "datatype": self.schema.datatype(name), "shape": [-1]}
            for name in self.schema.names
        ]

    def output_metadata(self) -> list[dict[str, Any]]:
        """Return name, datatype and shape of every output; `probability` also lists its classes."""
        made: list[dict[str, Any]] = [
            {"name": "predict", "datatype": self.label_datatype, "shape": [-1]}
        ]
        if self.has_probability:
            made.append(
                {
                    "name": "probability",
                    "datatype": "FP64",
                    "shape": [-1, len(self.classes)],
                    "parameters": {"classes": list(self.classes)},
                }
            )
        return made

    def example_body(self) -> dict[str, Any]:
        """Return the stored input example as a ready-made infer request."""
        inputs = []
        for name in self.schema.names:
            values = list(self.model.example[name])
            if name in self.schema.numeric:
                datatype = "FP64"
                values = [None if value is None else float(value) for value in values]
            else:
                texts = any(isinstance(value, str) for value in values)
                datatype = "BYTES" if texts else self.schema.datatype(name)
            inputs.append(tensor(name, datatype, values, [len(values)]))
        return {"inputs": inputs}


def build_engine(model: LoadedModel) -> Engine:
    """Return an engine that has answered the model's stored example: warmed up and self-tested.

    Raises:
        ModelError: The metadata is incomplete, the example is missing, or the answer to it is not sane.
    """
    where = f"model {model.name} version {model.version}"
    try:
        meta = model.meta
        features = Features.from_dict(meta["features"])
        types = dict(meta.get("types") or {})
        schema = Schema(features, types, meta.get("key"), meta.get("time"))
        engine = Engine(model, schema, tuple(meta["classes"]), str(meta["task"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            where,
            f"must carry features, classes and task, got {type(error).__name__}: {error}",
            "Register it through Evergreen.",
        ) from error
    return _tested(engine, where)


def _tested(engine: Engine, where: str) -> Engine:
    example = engine.model.example
    absent = [name for name in engine.schema.names if name not in example]
    rows = len(example[engine.schema.names[0]]) if not absent else 0
    if absent or not rows:
        raise ModelError(
            where,
            f"must carry an input example of every feature, got none of {', '.join(absent) or 'its rows'}",
            "Register it through Evergreen.",
        )
    try:
        columns = {
            name: engine.schema.column(name, list(example[name]), "example column")
            for name in engine.schema.names
        }
        one_row = {name: values[:1] for name, values in columns.items()}
        prediction = engine.predict(columns)
        started = time.perf_counter()
        for _ in range(_WARM_UPS):
            engine.predict(one_row)
    except RequestError as error:
        raise _untested(where, f"{error.where}: {error.rule}") from error
    except Exception as error:  # whatever an estimator raises on its own example
        raise _untested(where, f"{type(error).__name__}: {error}") from error
    probability = prediction.probability
    if len(prediction.predict) != rows:
        raise _untested(where, f"{len(prediction.predict)} predictions for {rows} rows")
    if probability is not None and not np.allclose(probability.sum(axis=1), 1.0, atol=1e-6):
        raise _untested(where, "probabilities that do not sum to 1")
    warm_ms = (time.perf_counter() - started) / _WARM_UPS * 1000
    return Engine(engine.model, engine.schema, engine.classes, engine.task, round(warm_ms, 3))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _untested(where: str, got: str) -> ModelError:
    return ModelError(
        where,
        f"must answer its own input example, got {got}",
        "Train and register it again; the version before keeps serving.",
    )


def _not_finite(values: npt.NDArray[np.float64]) -> RequestError:
    row = int((~np.isfinite(values)).argmax())
    return bad(
        "inputs",
        f"must lead to a finite prediction, got none for row {row}",
        "Check the values for extremes the training data never had.",
    )
