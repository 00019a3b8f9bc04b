"""A version on trial: what it takes to ask one for predictions, in the gate's own classes.

Owns the order of probabilities: versions may have learned different classes, or the same ones in another
order, and are compared class by class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from include.errors import EvergreenError, ModelError
from include.scoring.metrics import Floats
from include.spec.metrics import Task
from include.store.features import Features, category_text
from include.store.split import Split

if TYPE_CHECKING:
    from include.registry.package import LoadedPackage

_BATCH_ROWS = 65_536  # encoders may widen a row a hundredfold


@dataclass(frozen=True)
class LoadedModel:
    """A fitted version.

    Attributes:
        pipeline: Fitted on `model_frame` rows and `target_array` codes.
        features: Its input.
        classes: Target values by code, as JSON values; empty for regression.
        version: Its name for people.
        cutoff: Training cutoff as ISO text in UTC: it may have trained on rows up to this time; None
            where rows were not held out by time.
        split: How its own holdout was chosen; None leaves that unchecked.
    """

    pipeline: Any
    features: Features
    classes: list[Any]
    version: str
    cutoff: str | None = None
    split: Split | None = None


def as_asked(package: LoadedPackage, name: str) -> LoadedModel:
    """Return a registered version as the gate and the monitor ask it; `name` is for people."""
    split = package.meta.get("split")
    return LoadedModel(
        package.pipeline,
        package.features,
        package.classes,
        name,
        package.meta.get("cutoff"),
        Split.from_dict(split) if split else None,
    )


class Unloadable:
    """Stands where a version's pipeline cannot be loaded: whoever asks it anything gets the reason.

    Args:
        error: Why it cannot be loaded.
    """

    def __init__(self, error: EvergreenError) -> None:
        self._error = error

    def __getattr__(self, name: str) -> NoReturn:
        raise self._error


def predict(
    model: LoadedModel, frame: pd.DataFrame, task: Task, classes: Sequence[Any]
) -> NDArray[np.float64]:
    """Predict rows, in batches.

    Args:
        model: The version asked.
        frame: Its `model_frame`, n >= 1 rows.
        task: Kind of prediction.
        classes: The classes to answer in; one the version never saw gets probability 0.

    Returns:
        As in `include.scoring.metrics`: shape (n,), for multiclass (n, len(classes)). Values may be NaN
        or infinite if the model says so.

    Raises:
        ModelError: A classifier has no `predict_proba`, the pipeline fails on the rows, or it answers in
            another shape or outside 0..1.
    """
    if task != "regression" and not hasattr(model.pipeline, "predict_proba"):
        raise ModelError(
            f"version {model.version}",
            f"task {task} needs probabilities, got {_estimator(model)} without predict_proba",
            "Choose an estimator with predict_proba, or wrap it in "
            "sklearn.calibration.CalibratedClassifierCV.",
        )
    parts = [
        _batch(model, frame.iloc[start : start + _BATCH_ROWS], task, classes)
        for start in range(0, len(frame), _BATCH_ROWS)
    ]
    predicted: NDArray[np.float64] = np.concatenate(parts)
    if task != "regression" and ((predicted < 0) | (predicted > 1)).any():
        raise ModelError(
            f"version {model.version}",
            f"probabilities must lie in 0..1, got {np.nanmin(predicted):g} to {np.nanmax(predicted):g}",
            "Check the estimator's predict_proba.",
        )
    return predicted


def shared_classes(task: Task, *known: Sequence[Any]) -> list[Any]:
    """Return the classes to compare in: the first version's, for multiclass joined by all others'.

    Args:
        task: Kind of prediction; regression has no classes.
        known: Class lists, the challenger's first.
    """
    if task != "multiclass":
        return list(known[0])
    by_text = {category_text(value): value for classes in reversed(known) for value in classes}
    texts = dict.fromkeys(category_text(value) for classes in known for value in classes)
    return [by_text[text] for text in texts]


def _batch(
    model: LoadedModel, rows: pd.DataFrame, task: Task, classes: Sequence[Any]
) -> NDArray[np.float64]:
    ask = model.pipeline.predict if task == "regression" else model.pipeline.predict_proba
    try:
        answer = np.asarray(ask(rows), dtype=np.float64)
    except Exception as error:  # an estimator's own code may raise anything
        raise ModelError(
            f"version {model.version}",
            f"must predict {len(rows):,} rows of the holdout, got {type(error).__name__}: {error}",
            "Train it again, or correct the data.",
        ) from error
    if task == "regression" and answer.size == len(rows):
        return answer.reshape(len(rows))
    if task != "regression" and answer.ndim == 2:
        return _in_order(model, answer, task, classes)
    raise ModelError(
        f"version {model.version}",
        f"must answer one target, got shape {answer.shape} for {len(rows):,} rows",
        "Use an estimator with a single output.",
    )


def _in_order(
    model: LoadedModel, answer: Floats, task: Task, classes: Sequence[Any]
) -> NDArray[np.float64]:
    positions = {category_text(value): place for place, value in enumerate(classes)}
    foreign = [v for v in model.classes if category_text(v) not in positions]
    if foreign:
        raise ModelError(
            f"version {model.version}",
            f"must know only the classes {list(classes)}, got {foreign[0]!r}",
            "The target changed its values since this version: correct the data.",
        )
    ordered = np.zeros((len(answer), len(classes)))
    for column, code in enumerate(model.pipeline.classes_):
        ordered[:, positions[category_text(model.classes[int(code)])]] = answer[:, column]
    return ordered[:, 1] if task == "binary" else ordered


def _estimator(model: LoadedModel) -> str:
    steps = getattr(model.pipeline, "steps", None)
    return type(steps[-1][1] if steps else model.pipeline).__name__
