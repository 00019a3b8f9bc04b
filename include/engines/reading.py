"""Reads a fitted ColumnTransformer into a `Preparation`.

Numbers are read from the fitted parts, whose arithmetic `include.engines.preparation` repeats. Categories are asked
for: each encoder is shown all its texts, a missing value and one it never saw, and what it answers is the table. So
infrequent, unknown and missing categories need no second implementation here.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from include.engines.preparation import Category, Numbers, Preparation, Step
from include.engines.unsupported import Unsupported
from include.store.inputs import Features

UNSEEN = "\u2014 never seen \u2014"
_ENCODERS = ("OrdinalEncoder", "OneHotEncoder", "SimpleImputer")


def read_preparation(prepare: Any, features: Features) -> Preparation:
    """Return what a fitted ColumnTransformer does.

    Args:
        prepare: Fitted on `model_frame` rows.
        features: Its input.

    Raises:
        Unsupported: It holds something that `include.train.pipeline` does not build.
    """
    if type(prepare).__name__ != "ColumnTransformer":
        raise Unsupported(f"{type(prepare).__name__} as preprocessing")
    blocks: list[Numbers | Category] = []
    for name, part, columns in prepare.transformers_:
        if isinstance(part, str) and part == "drop":
            continue
        if not isinstance(columns, list) or not all(isinstance(c, str) for c in columns):
            raise Unsupported(f"columns of the step {name} that are not listed by name")
        if not columns:
            continue
        if set(columns) <= set(features.categorical):
            blocks += _categories(part, columns)
        elif set(columns) <= set(features.numeric):
            blocks.append(Numbers(tuple(columns), tuple(_steps(part, len(columns)))))
        else:
            raise Unsupported(f"numbers and categories together in the step {name}")
    if not blocks:
        raise Unsupported("a preparation without columns")
    return Preparation(tuple(blocks))


def limits(estimator: Any, row: npt.NDArray[np.float64]) -> tuple[float, bool]:
    """Return the largest number an estimator takes, and whether it takes NaN, by asking it.

    Args:
        estimator: The fitted last step.
        row: Shape (1, width), a row it takes.
    """
    if _takes(estimator, row, np.inf):
        largest = np.inf
    elif _takes(estimator, row, 1e300):
        largest = float(np.finfo(np.float64).max)
    else:
        largest = float(np.finfo(np.float32).max)
    return largest, _takes(estimator, row, np.nan)


def _takes(estimator: Any, row: npt.NDArray[np.float64], value: float) -> bool:
    given = row.copy()
    given[0, 0] = value
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            estimator.predict(given)
    except ValueError:
        return False
    return True


def _steps(part: Any, width: int) -> list[Step]:
    kind = type(part).__name__
    if part == "passthrough" or (kind == "FunctionTransformer" and part.func is None):
        return []
    if kind == "Pipeline":
        found: list[Step] = []
        for _, step in part.steps:
            made = _steps(step, width)
            width += sum(len(step.flagged) for step in made)
            found += made
        return found
    if kind == "StandardScaler":
        none, one = np.zeros(width), np.ones(width)
        mean = part.mean_ if part.with_mean else none
        return [Step("standard", mean, part.scale_ if part.with_std else one)]
    if kind == "MinMaxScaler":
        low, high = part.feature_range
        bounds = (float(low), float(high)) if part.clip else None
        return [Step("minmax", part.scale_, part.min_, bounds)]
    if kind == "SimpleImputer" and isinstance(part.missing_values, float):
        return [_impute(part, width)]
    raise Unsupported(f"the step {kind} for numbers")


def _impute(part: Any, width: int) -> Step:
    fills = np.asarray(part.statistics_, dtype=np.float64)
    if not np.isnan(part.missing_values) or len(fills) != width or np.isnan(fills).any():
        raise Unsupported("an imputer that drops columns or replaces something else than NaN")
    flagged = part.indicator_.features_.tolist() if part.add_indicator else []
    return Step("impute", fills, np.zeros(0), flagged=tuple(flagged))


def _categories(part: Any, columns: Sequence[str]) -> list[Category]:
    steps = [step for _, step in part.steps] if type(part).__name__ == "Pipeline" else [part]
    kinds = [type(step).__name__ for step in steps]
    if not set(kinds) <= set(_ENCODERS) or kinds[-1] == "SimpleImputer":
        raise Unsupported(f"the step {' and '.join(kinds)} for categories")
    texts = [[c for c in known if isinstance(c, str)] for known in steps[-1].categories_]
    answers = _asked(part, columns, texts)
    if kinds[-1] == "OrdinalEncoder":
        widths = [1] * len(columns)
    else:
        widths = [int(width) for width in steps[-1]._n_features_outs]
    ends = np.cumsum(widths)
    return [
        _category(name, known, answers[:, end - width : end], hot=kinds[-1] == "OneHotEncoder")
        for name, known, width, end in zip(columns, texts, widths, ends.tolist(), strict=True)
    ]


def _asked(
    part: Any, columns: Sequence[str], texts: Sequence[Collection[str]]
) -> npt.NDArray[np.float64]:
    """Return an encoder's answers to every text of every column; the last two rows: missing, never seen."""
    rows = max(map(len, texts))
    shown = {}
    for name, known in zip(columns, texts, strict=True):
        values = np.empty(rows + 2, dtype=object)
        values[:] = None
        values[: len(known)] = list(known)
        values[rows + 1] = UNSEEN
        shown[name] = values
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answers = part.transform(pd.DataFrame(shown, columns=list(columns)))
    except ValueError as error:
        raise Unsupported("an encoder that refuses unknown or missing categories") from error
    dense = answers.toarray() if hasattr(answers, "toarray") else answers
    return np.asarray(dense, dtype=np.float64)


def _category(
    name: str, texts: Sequence[str], answers: npt.NDArray[np.float64], *, hot: bool
) -> Category:
    width: int | None = None
    if hot:
        width = answers.shape[1]
        if not np.isin(answers, (0.0, 1.0)).all() or (answers.sum(axis=1) > 1).any():
            raise Unsupported("an encoder whose columns are not 0 and 1")
        found = np.where(answers.any(axis=1), answers.argmax(axis=1) if width else 0, -1.0)
    else:
        found = answers[:, 0]
    values = dict(zip(texts, found[: len(texts)].tolist(), strict=True))
    return Category(name, values, float(found[-2]), float(found[-1]), width)
