"""What every engine gives: an answer to columns, and the same facts about itself.

Owns the contract between serving, batch scoring and what they run on; the engines are `include.engines.session`
(ONNX Runtime) and `include.engines.pipeline` (scikit-learn).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Kind = Literal["onnx", "sklearn"]
ONNX: Kind = "onnx"
SKLEARN: Kind = "sklearn"
PLATFORMS: Mapping[Kind, str] = {ONNX: "onnxruntime_onnx", SKLEARN: "sklearn_skops"}

Columns = Mapping[str, Sequence[Any] | npt.NDArray[Any]]
"""Values by feature, all of one length: JSON values with None for missing, or arrays (float64 with NaN; object)."""


@dataclass(frozen=True)
class Answer:
    """What an estimator says about n rows; not yet checked for being finite.

    Args:
        predict: Shape (n,): int64 codes of classes, or float64 values for regression.
        probability: Shape (n, classes the estimator knows), in the order of `Predictor.codes`; None without.
    """

    predict: npt.NDArray[Any]
    probability: npt.NDArray[np.float64] | None


Ties = Literal["first", "last"]
"""Which class a classifier names where several are the most probable."""


def most_probable(probability: npt.NDArray[np.float64], ties: Ties) -> npt.NDArray[np.int64]:
    """Return the place of the most probable class of each row."""
    if ties == "first":
        return np.asarray(probability.argmax(axis=1))
    return np.asarray(probability.shape[1] - 1 - probability[:, ::-1].argmax(axis=1))


class Predictor(Protocol):
    """A version opened by one of the engines. Safe to call from many threads."""

    @property
    def kind(self) -> Kind:
        """Which engine this is."""

    @property
    def has_probability(self) -> bool:
        """Whether `Answer.probability` is there."""

    @property
    def codes(self) -> npt.NDArray[np.int64]:
        """Code of the class of each column of `Answer.probability`; empty for regression."""

    @property
    def size_bytes(self) -> int:
        """Rough memory it takes, see `docs/engines.md`."""

    def answer(self, columns: Columns) -> Answer:
        """Predict.

        Raises:
            ValueError: The estimator cannot compute with the values.
        """
