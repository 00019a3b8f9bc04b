"""The scikit-learn engine: the fitted pipeline itself, asked through a data frame.

Imports scikit-learn and pandas, so it is itself imported only where a version needs it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from include.engines.predictor import SKLEARN, Answer, Columns, Kind
from include.store.features import Features, model_frame

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


class PipelinePredictor:
    """A fitted pipeline that takes a model frame.

    Args:
        pipeline: Fitted on `model_frame` rows and `target_array` codes.
        features: Its input.
        task: binary, multiclass or regression.
        size_bytes: Rough memory it takes.
    """

    kind: Kind = SKLEARN

    def __init__(
        self, pipeline: Any, features: Features, task: str, *, size_bytes: int = 0
    ) -> None:
        self.pipeline, self.features, self.task = pipeline, features, task
        self.size_bytes = size_bytes

    @cached_property
    def has_probability(self) -> bool:
        """Whether the estimator gives probabilities."""
        return self.task != "regression" and hasattr(self.pipeline, "predict_proba")

    @cached_property
    def codes(self) -> npt.NDArray[np.int64]:
        """Code of the class of each column of the probabilities."""
        known = self.pipeline.classes_ if self.task != "regression" else ()
        return np.asarray(known, dtype=np.int64)

    def answer(self, columns: Columns) -> Answer:
        """Predict; see `Predictor`."""
        frame = model_frame(columns, self.features)
        if self.task == "regression":
            values = np.asarray(self.pipeline.predict(frame), dtype=np.float64)
            return Answer(values.ravel(), None)
        if not self.has_probability:
            return Answer(np.asarray(self.pipeline.predict(frame), dtype=np.int64), None)
        probability = np.asarray(self.pipeline.predict_proba(frame), dtype=np.float64)
        if argmax_decides(self.pipeline):
            return Answer(self.codes[probability.argmax(axis=1)], probability)
        return Answer(np.asarray(self.pipeline.predict(frame), dtype=np.int64), probability)


def argmax_decides(pipeline: Any) -> bool:
    """Tell whether a classifier's label is always its most probable class."""
    last = pipeline.steps[-1][1] if hasattr(pipeline, "steps") else pipeline
    kind = type(last)
    return kind.__name__ in _ARGMAX and kind.__module__.startswith("sklearn.")
