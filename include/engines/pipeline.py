"""The scikit-learn engine: the fitted pipeline itself, asked through a data frame.

Imports scikit-learn and pandas, so it is itself imported only where a version needs it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from include.engines.predictor import SKLEARN, Answer, Columns, Kind, Ties, most_probable
from include.store.features import Features, model_frame

# Estimators, by library, whose predict() is the most probable class of predict_proba(): one pass gives both. Others
# (SVC, tuned thresholds) may disagree with themselves, so they are asked twice and stay on scikit-learn.
_MOST_PROBABLE = {
    "sklearn": (
        "AdaBoostClassifier",
        "BaggingClassifier",
        "CalibratedClassifierCV",
        "DecisionTreeClassifier",
        "ExtraTreesClassifier",
        "GaussianNB",
        "GradientBoostingClassifier",
        "HistGradientBoostingClassifier",
        "LinearDiscriminantAnalysis",
        "LogisticRegression",
        "MLPClassifier",
        "QuadraticDiscriminantAnalysis",
        "RandomForestClassifier",
    ),
    "xgboost": ("XGBClassifier", "XGBRFClassifier"),
    "lightgbm": ("LGBMClassifier",),
}


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
        ties = ties_of(self.pipeline)
        if ties is not None:
            return Answer(self.codes[most_probable(probability, ties)], probability)
        return Answer(np.asarray(self.pipeline.predict(frame), dtype=np.int64), probability)

    def predict(self, columns: Columns) -> npt.NDArray[Any]:
        """Return the pipeline's own labels, as codes, or values: no rule of ours in between."""
        found = np.asarray(self.pipeline.predict(model_frame(columns, self.features)))
        return found.astype(np.float64 if self.task == "regression" else np.int64).ravel()


def ties_of(pipeline: Any) -> Ties | None:
    """Return how a classifier names one of several classes that are the most probable.

    None where its label need not be the most probable class at all.
    """
    last = pipeline.steps[-1][1] if hasattr(pipeline, "steps") else pipeline
    kind = type(last)
    if kind.__name__ not in _MOST_PROBABLE.get(kind.__module__.partition(".")[0], ()):
        return None
    if callable(getattr(last, "objective", None)):  # of the user's own: predict() may give scores
        return None
    # With two classes it asks whether the score is >= 0; everything else takes the first maximum.
    boosted = kind.__name__ == "GradientBoostingClassifier" and len(last.classes_) == 2
    return "last" if boosted else "first"
