"""Whether two engines say the same: on held-out rows, and on rows made from them that data seldom has.

Owns the derived rows (each column blanked in turn, categories nobody saw, extremes) and the measure. All differences
ever found between ONNX and scikit-learn sat in such rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from include.engines.predictor import Answer, Columns, Predictor
from include.engines.reading import UNSEEN
from include.store.inputs import Features

if TYPE_CHECKING:
    from include.engines.pipeline import PipelinePredictor

_BASE_ROWS = 20  # rows that every column is blanked in, made extreme in, ...
_ONE_BY_ONE = 50  # rows also asked alone: one row takes a path of its own
_STRETCH = 1e6
_IMPOSSIBLE = (np.inf, -np.inf, 1e300)


@dataclass(frozen=True)
class Parity:
    """The comparison of two engines.

    Args:
        rows: Rows compared.
        difference: Largest difference: of probabilities, or of values as a share of the held-out predictions' spread
            (of the distance from their mean, where a row is further out).
        labels: Rows with another label than the pipeline itself gives, although their two best classes differ by more
            than the budget, or are equal to the last bit on both sides: then a rule decides.
        refusals: Rows that one refused and the other answered.
    """

    rows: int
    difference: float
    labels: int = 0
    refusals: int = 0

    def problem(self, budget: float) -> str | None:
        """Return why the engines do not say the same; None where they do."""
        if not self.difference <= budget:
            return f"a difference of {self.difference:.2g} in {self.rows:,} rows, allowed is {budget:g}"
        if self.labels:
            return f"{self.labels} other labels in {self.rows:,} rows"
        if self.refusals:
            return f"{self.refusals} rows that only one of the two engines answers"
        return None


def compare(
    trusted: PipelinePredictor, other: Predictor, frame: pd.DataFrame, budget: float
) -> Parity:
    """Ask two engines the same.

    Args:
        trusted: The engine that is right by definition.
        other: The engine on trial.
        frame: `model_frame` rows, at least one.
        budget: Largest difference that counts as the same.
    """
    texts = [str(name) for name in frame if frame[name].dtype == object]
    features = Features(tuple(str(n) for n in frame if n not in texts), tuple(texts))
    asked = columns_of(pd.concat([frame, derived(frame, features)], ignore_index=True))
    expected, found = trusted.answer(asked), other.answer(asked)
    # Labels are the pipeline's own: a rule of ours that makes them of probabilities is on trial, too.
    expected = replace(expected, predict=trusted.predict(asked))
    scale = _scale(expected, len(frame))
    difference = float((_differences(_numbers(expected), _numbers(found)) / scale).max())
    count = len(expected.predict)
    for row in range(0, count, max(1, count // _ONE_BY_ONE)):
        one = other.answer({name: _json(values[row]) for name, values in asked.items()})
        alone = _differences(_numbers(found)[row : row + 1], _numbers(one)) / scale[row]
        difference = max(difference, float(alone.max()))
    labels = _other_labels(expected, found, budget)
    return Parity(count, difference, labels, _refusals(trusted, other, frame, features))


def _json(value: Any) -> list[Any]:
    """Return one value as a request brings it."""
    plain = value.item() if isinstance(value, np.generic) else value
    return [None if plain != plain else plain]


def columns_of(frame: pd.DataFrame) -> dict[str, npt.NDArray[Any]]:
    """Return a model frame as the arrays an engine takes."""
    return {str(name): frame[name].to_numpy() for name in frame}


def derived(frame: pd.DataFrame, features: Features) -> pd.DataFrame:
    """Return rows with one column each that is missing, never seen, or far outside what there was."""
    base = frame.iloc[np.linspace(0, len(frame) - 1, min(_BASE_ROWS, len(frame))).astype(int)]
    made = [_with(base, list(features.names), None)]
    for name in features.categorical:
        made += [_with(base, [name], None), _with(base, [name], UNSEEN), _with(base, [name], "")]
    for name in features.numeric:
        values = frame[name].to_numpy()
        known = values[np.isfinite(values)]
        ends = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
        far = [end * _STRETCH for end in ends]
        made += [_with(base, [name], value) for value in (None, 0.0, *ends, *far)]
    return pd.concat(made, ignore_index=True)


def _with(base: pd.DataFrame, names: list[str], value: str | float | None) -> pd.DataFrame:
    changed = base.copy()
    for name in names:
        kind = base[name].dtype
        changed[name] = pd.Series([value] * len(base), index=base.index, dtype=kind)
    return changed


def _refusals(trusted: Predictor, other: Predictor, frame: pd.DataFrame, features: Features) -> int:
    """Count impossible numbers that one of the two takes."""
    count = 0
    for name in features.numeric[:1] + features.numeric[-1:]:
        for value in _IMPOSSIBLE:
            asked = columns_of(_with(frame.iloc[:1], [name], value))
            first, second = _try(trusted, asked), _try(other, asked)
            if (first is None) != (second is None):
                count += 1
            elif first is not None and second is not None:
                finite = np.isfinite(_numbers(first)).all() == np.isfinite(_numbers(second)).all()
                count += not finite
    return count


def _try(engine: Predictor, asked: Columns) -> Answer | None:
    try:
        with np.errstate(all="ignore"):
            return engine.answer(asked)
    except ValueError:
        return None


def _other_labels(expected: Answer, found: Answer, budget: float) -> int:
    if expected.probability is None or found.probability is None:
        return 0
    lead = _lead(expected.probability)
    tied = (lead == 0) & (_lead(found.probability) == 0)
    return int(((expected.predict != found.predict) & ((lead > budget) | tied)).sum())


def _lead(probability: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return by how much the best class of each row is ahead of the next."""
    if probability.shape[1] < 2:
        return probability[:, -1]
    ranked = np.sort(probability, axis=1)
    return np.asarray(ranked[:, -1] - ranked[:, -2])


def _numbers(answer: Answer) -> npt.NDArray[np.float64]:
    return answer.predict if answer.probability is None else answer.probability


def _differences(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return absolute differences; 0 where both are the same infinity or none, infinite where one is."""
    if first.shape != second.shape:
        return np.array([np.inf])
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore"):
        return np.where(same, 0.0, np.nan_to_num(np.abs(first - second), nan=np.inf))


def _scale(expected: Answer, held_out: int) -> npt.NDArray[np.float64]:
    """Return what the difference of each row is a share of, shape (rows, 1): 1 for probabilities.

    For regression the spread of the first rows, which are held-out ones: that of the rows made from them may be a million
    times as large, and a model that is wrong everywhere would pass. A row further from their middle than that is
    measured by how far it is.
    """
    if expected.probability is not None:
        return np.ones((len(expected.predict), 1))
    usual = expected.predict[:held_out]
    usual = usual[np.isfinite(usual)]
    middle, spread = (usual.mean(), usual.std()) if len(usual) else (0.0, 0.0)
    away = np.abs(np.where(np.isfinite(expected.predict), expected.predict - middle, 0.0))
    return np.maximum(away, spread or 1.0)
