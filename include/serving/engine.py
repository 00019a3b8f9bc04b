"""One loaded model version, ready to answer: predictions, labels, metadata, self-test.

Owns everything between checked columns and plain numbers. Immutable once built, so any number of threads may
hold one while the table moves on to the next version; the last request to finish frees it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from include.engines.predictor import PLATFORMS, Columns, Kind, Predictor
from include.errors import ModelError
from include.serving.columns import Schema
from include.serving.rejection import RequestError
from include.serving.tensors import tensor
from include.store.inputs import Features

_WARM_UPS = 3
_FEW = 16  # values
_BATCH = 64  # rows by which the cost of a further row is measured


@dataclass(frozen=True)
class LoadedModel:
    """A model version as its source hands it over: verified, but not yet tried.

    Args:
        name: Registered name.
        version: Registered version.
        predictor: The version opened by its engine.
        meta: task, target, features, types, classes and lineage, as recorded at registration.
        example: The stored input example: one list of plain values per feature.
        folder: Its verified files.
    """

    name: str
    version: str
    predictor: Predictor
    meta: Mapping[str, Any]
    example: Mapping[str, Sequence[Any]]
    folder: Path


@dataclass(slots=True)
class Prediction:
    """What a model says about some rows. Not declared frozen only because that makes each cost more.

    Args:
        predict: Label (as in the training data) or number per row, as plain values.
        probability: Shape (rows, classes), columns in the order of the model's classes; None without.
    """

    predict: list[Any]
    probability: npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class Engine:
    """Answers for one version; build one with `build_engine`.

    Args:
        model: What answers.
        schema: Its input.
        classes: Labels by code; empty for regression.
        task: binary, multiclass or regression.
        warm_ms: Time one row took when it was built.
        row_ms: Time each further row of a request took.
    """

    model: LoadedModel
    schema: Schema
    classes: tuple[Any, ...]
    task: str
    warm_ms: float = field(default=0.0, compare=False)
    row_ms: float = field(default=0.0, compare=False)

    @property
    def version(self) -> str:
        """The registered version."""
        return self.model.version

    @property
    def kind(self) -> Kind:
        """What computes: onnx or sklearn."""
        return self.model.predictor.kind

    @property
    def platform(self) -> str:
        """The same, as the Open Inference Protocol names it."""
        return PLATFORMS[self.kind]

    @property
    def size_bytes(self) -> int:
        """Rough memory it takes."""
        return self.model.predictor.size_bytes

    @cached_property
    def has_probability(self) -> bool:
        """Whether the estimator gives probabilities."""
        return self.task != "regression" and self.model.predictor.has_probability

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
        """Return predictions for checked columns, all of one length.

        Raises:
            RequestError: 422: the model cannot compute with the values, or has no finite answer for them.
        """
        try:
            answer = self.model.predictor.answer(columns)
        except ValueError as error:
            raise _no_answer(
                f"must be values the model can compute with, got {_first_line(error)}"
            ) from error
        if self.task == "regression":
            return Prediction(_finite(answer.predict).tolist(), None)
        labels = [self.classes[code] for code in answer.predict.tolist()]
        if answer.probability is None:
            return Prediction(labels, None)
        return Prediction(labels, self._spread(answer.probability))

    def _spread(self, probability: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return one column per class of the model, also for classes the estimator never saw."""
        _finite(probability)
        if probability.shape[1] == len(self.classes):
            return np.ascontiguousarray(probability)
        full = np.zeros((len(probability), len(self.classes)))
        full[:, self.model.predictor.codes] = probability
        return full

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
                shape, found = [rows, len(self.classes)], prediction.probability
                # Of one row a list is made and written faster than an array is looked into.
                flat = found[0].tolist() if rows == 1 else found.ravel()
                made.append(tensor(name, "FP64", flat, shape))
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
        prediction = engine.predict(columns)
        warm_ms, row_ms = _timed(engine, columns, rows)
    except RequestError as error:
        raise _untested(where, f"{error.where}: {error.rule}") from error
    except Exception as error:  # whatever an estimator raises on its own example
        raise _untested(where, f"{type(error).__name__}: {error}") from error
    probability = prediction.probability
    if len(prediction.predict) != rows:
        raise _untested(where, f"{len(prediction.predict)} predictions for {rows} rows")
    if probability is not None and not np.allclose(probability.sum(axis=1), 1.0, atol=1e-6):
        raise _untested(where, "probabilities that do not sum to 1")
    return replace(engine, warm_ms=warm_ms, row_ms=row_ms)


def _timed(engine: Engine, columns: Columns, rows: int) -> tuple[float, float]:
    """Return the milliseconds of one row and of each further one, best of a few: this also warms up."""
    one = {name: list(values[:1]) for name, values in columns.items()}
    many = {name: [values[row % rows] for row in range(_BATCH)] for name, values in columns.items()}
    single, batch = (min(_seconds(engine, some) for _ in range(_WARM_UPS)) for some in (one, many))
    return round(single * 1000, 4), round(max(0.0, batch - single) / (_BATCH - 1) * 1000, 5)


def _seconds(engine: Engine, columns: Columns) -> float:
    started = time.perf_counter()
    engine.predict(columns)
    return time.perf_counter() - started


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _untested(where: str, got: str) -> ModelError:
    return ModelError(
        where,
        f"must answer its own input example, got {got}",
        "Train and register it again; the version before keeps serving.",
    )


def _finite(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return values, shape (n,) or (n, classes), that are all finite.

    Raises:
        RequestError: 422, naming the first row that is not.
    """
    if values.size <= _FEW and all(map(math.isfinite, values.ravel().tolist())):
        return values  # of one row this takes 1 us; NumPy's two calls take 10 in the middle of a request
    sane = np.isfinite(values)
    if sane.all():
        return values
    row = int(np.atleast_2d(~sane.T).any(axis=0).argmax())
    raise _no_answer(f"must lead to a finite prediction, got none for row {row}")


def _no_answer(rule: str) -> RequestError:
    fix = "Check the values for extremes the training data never had."
    return RequestError(422, "inputs", rule, fix)
