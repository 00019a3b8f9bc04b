"""What happens to columns before an estimator sees them.

Owns the preprocessing, chosen by what the estimator can do and never by its name, so that any scikit-learn
compatible estimator gets what it needs. Input is `include.store.features.model_frame`: float64 numbers with NaN,
categories as text with None for missing. Every step is scikit-learn's own, so a stored model holds no code of ours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.utils import get_tags

from include.spec.schema import Candidate, Spec
from include.store.features import Features
from include.train.candidates import make_estimator

PREPARE, ESTIMATOR = "prepare", "estimator"

# One-hot columns per feature: the most frequent categories, one for all others.
_ONE_HOT_CATEGORIES = 50
_ONE_HOT_MIN_ROWS = 5
# HistGradientBoosting sorts every feature into at most 255 bins: more codes would be merged anyway.
_ORDINAL_CATEGORIES = 254
_TREE_ARGUMENTS = ("max_leaf_nodes", "num_leaves", "max_leaves")


@dataclass(frozen=True)
class Needs:
    """What an estimator asks of its input.

    Args:
        native_missing: Takes NaN as it is.
        trees: Splits on thresholds: indifferent to scale, content with codes for categories.
        positive: Refuses negative numbers.
        sparse: Takes sparse matrices.
    """

    native_missing: bool
    trees: bool
    positive: bool
    sparse: bool


def needs_of(estimator: Any) -> Needs:
    """Read an estimator's needs from its tags and arguments."""
    tags = get_tags(estimator).input_tags
    arguments = estimator.get_params(deep=True)
    grows_trees = any(n.rpartition("__")[2] in _TREE_ARGUMENTS for n in arguments)
    return Needs(
        native_missing=tags.allow_nan,
        trees=grows_trees or tags.allow_nan,
        positive=tags.positive_only,
        sparse=tags.sparse,
    )


def empty_columns(inputs: pd.DataFrame) -> frozenset[str]:
    """Return the columns that hold no value at all."""
    return frozenset(str(name) for name in inputs.columns if inputs[name].isna().all())


def crowded_columns(inputs: pd.DataFrame, features: Features) -> frozenset[str]:
    """Return the categorical columns with more categories than trees get codes for."""
    return frozenset(n for n in features.categorical if inputs[n].nunique() > _ORDINAL_CATEGORIES)


def preparation(
    needs: Needs,
    features: Features,
    empty: Collection[str] = (),
    crowded: Collection[str] | None = None,
) -> ColumnTransformer:
    """Build the unfitted preprocessing.

    Missing numbers stay for estimators that learn from them, else become the median, with an extra 0/1 column that
    says so. Categories become ordinal codes for trees and 0/1 columns for the rest. A missing category is a category
    of its own where training data has it. The rarest categories beyond a bound share one code or column. Categories
    never seen in training join them in their column, or get a code of their own (NaN where that is understood).

    Args:
        needs: What the estimator asks for.
        features: Names of the columns.
        empty: Columns without any value in the rows to fit on. They stay part of the input but do not reach the
            estimator: nothing can be learnt from them, and HistGradientBoosting fails on them.
        crowded: What `crowded_columns` says of the rows to fit on; None when it was not asked. Trees' codes of the
            other columns need no bound, and scikit-learn counts rows for it in a Python loop: a sixth of a small fit.
    """
    many = [n for n in features.categorical if crowded is None or not needs.trees or n in crowded]
    few = [n for n in features.categorical if n not in many]
    parts: list[tuple[str, Any, list[str]]] = []
    for name, names, step in (
        ("numeric", features.numeric, _numeric(needs)),
        ("categorical", few, _codes(needs)),
        ("crowded" if few else "categorical", many, _categorical(needs)),
    ):
        filled = [n for n in names if n not in empty]
        if filled:
            parts.append((name, step, filled))
    if empty:
        parts.append(("empty", "drop", [n for n in features.names if n in empty]))
    sparse = needs.sparse and not needs.trees
    prepare = ColumnTransformer(
        parts, sparse_threshold=0.3 if sparse else 0.0, verbose_feature_names_out=False
    )
    prepare.set_output(transform="default")  # whatever the process's global setting says
    return prepare


def _numeric(needs: Needs) -> Any:
    if needs.native_missing:
        return "passthrough"
    impute = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    if needs.trees:
        return impute
    # Scalers pass NaN through, and the indicator columns are better off as plain 0 and 1: so scale first.
    scale = MinMaxScaler(clip=True) if needs.positive else StandardScaler()
    return Pipeline([("scale", scale), ("impute", impute)])


def _categorical(needs: Needs) -> Any:
    if not needs.trees:
        return OneHotEncoder(
            handle_unknown="infrequent_if_exist",
            min_frequency=_ONE_HOT_MIN_ROWS,
            max_categories=_ONE_HOT_CATEGORIES,
            sparse_output=needs.sparse,
        )
    return _codes(needs, _ORDINAL_CATEGORIES)


def _codes(needs: Needs, most: int | None = None) -> OrdinalEncoder:
    return OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=np.nan if needs.native_missing else -1,
        max_categories=most,
    )


def assemble(features: Features, estimator: Any, inputs: pd.DataFrame | None = None) -> Pipeline:
    """Join an estimator with the preprocessing it needs; see `preparation` and `build_pipeline`."""
    needs = needs_of(estimator)
    if inputs is None:
        prepare = preparation(needs, features)
    else:
        prepare = preparation(
            needs, features, empty_columns(inputs), crowded_columns(inputs, features)
        )
    return Pipeline([(PREPARE, prepare), (ESTIMATOR, estimator)])


def build_pipeline(
    spec: Spec,
    features: Features,
    estimator: str,
    params: Mapping[str, Any],
    *,
    inputs: pd.DataFrame | None = None,
    allowed_prefixes: Sequence[str] | None = None,
) -> Pipeline:
    """Build the unfitted pipeline from raw columns to predictions.

    Args:
        spec: Gives task and seed.
        features: Names of the numeric and the categorical columns.
        estimator: Dotted path of the estimator's class.
        params: All its arguments, fixed and searched.
        inputs: The rows it will be fitted on, to find columns without any value and those with too many categories;
            None when there are no empty ones.
        allowed_prefixes: Where code may lie; None reads the settings.

    Raises:
        ModelError: The estimator does not exist, has no such argument or is for another task.
    """
    candidate = Candidate(estimator=estimator)
    built = make_estimator(spec, candidate, params, allowed_prefixes=allowed_prefixes)
    return assemble(features, built, inputs)
