"""The one convention by which a model gets its input, in training, in the gate and in serving.

Owns which columns are features, how raw values become model input and how the target becomes numbers.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from include.errors import DataError
from include.spec.schema import Spec
from include.store.inputs import Features as Features
from include.store.inputs import category_text as category_text
from include.store.inputs import is_missing
from include.store.snapshots import Manifest, to_frame

_NUMERIC_TYPES = ("int", "float", "bool")


def no_column(where: str, what: str, name: str, known: Iterable[str]) -> DataError:
    """Return the error for a column that is not there, with the closest name and all names."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return DataError(
        where,
        f"{what} {name!r} must be a column, got {', '.join(map(repr, names)) or 'no columns'}",
        f"{hint}Correct the spec or the data.",
    )


def resolve_features(spec: Spec, manifest: Manifest) -> Features:
    """Return the features: the spec's, or else inferred from the columns' types.

    Inferred: int, float and bool are numeric, string is categorical; never the target, the key, the time,
    other timestamps, or a dropped column.

    Raises:
        DataError: A listed column is missing or has the wrong type, or no feature is left.
    """
    ingest, types = spec.ingest, manifest.types
    if ingest.features is not None:
        listed = Features(ingest.features.numeric, ingest.features.categorical)
        _check_listed(spec, listed, manifest)
        return listed
    never = {ingest.target, ingest.key, ingest.time, *ingest.drop}
    usable = {n: t for n, t in types.items() if n not in never}
    features = Features(
        tuple(n for n, t in usable.items() if t in _NUMERIC_TYPES),
        tuple(n for n, t in usable.items() if t == "string"),
    )
    if not features.names:
        raise DataError(
            f"model {spec.model}: ingest.features",
            f"needs at least one column to learn from, got only {', '.join(types)}",
            "Bring more columns, or list the features.",
        )
    return features


def _check_listed(spec: Spec, features: Features, manifest: Manifest) -> None:
    for kind in ("numeric", "categorical"):
        where = f"model {spec.model}: ingest.features.{kind}"
        for name in getattr(features, kind):
            column = manifest.column(name)
            if column is None:
                raise no_column(where, "feature", name, manifest.types)
            if column.type == "timestamp" or (kind == "numeric" and column.type == "string"):
                rule = "numbers" if kind == "numeric" else "texts, numbers or booleans"
                raise DataError(
                    where,
                    f"{name!r} must hold {rule}, got type {column.type}",
                    "Correct the data (or ingest.source.missing), or move the column to another list.",
                )


# --- model input ----------------------------------------------------------------------------------------


def model_frame(
    data: pd.DataFrame | pa.Table | Mapping[str, Sequence[Any]], features: Features
) -> pd.DataFrame:
    """Return the data in the form every pipeline expects.

    Args:
        data: Rows, in whatever form; further columns are ignored, an index is dropped.
        features: The columns wanted.

    Returns:
        One column per feature in the order of `features.names`, index 0..n-1. Numeric: float64, NaN where
        missing, infinities kept. Categorical: object with Python str, None where missing; 3 and 3.0 are
        both `"3"`, True is `"true"`.

    Raises:
        DataError: A feature is missing, or a numeric one holds something else than numbers.
    """
    if isinstance(data, pa.Table):
        data = to_frame(data.select([n for n in features.names if n in data.column_names]))
    for name in features.names:
        if name not in data:
            raise no_column("model input", "feature", name, data.keys())
    columns: dict[str, npt.NDArray[Any]] = {n: _numbers(data[n], n) for n in features.numeric}
    columns |= {n: category_texts(data[n]) for n in features.categorical}
    return pd.DataFrame(columns, columns=list(features.names), copy=False)


def _numbers(values: pd.Series[Any] | Sequence[Any], name: str) -> npt.NDArray[np.float64]:
    if isinstance(values, pd.Series):
        kind = values.dtype
        if isinstance(kind, np.dtype) and kind.kind in "fiub":
            return values.to_numpy(np.float64)
        if not isinstance(kind, np.dtype) and pd.api.types.is_numeric_dtype(kind):
            return values.to_numpy(np.float64, na_value=np.nan)
    elif isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        return values.astype(np.float64)
    given = list(values)
    for value in given:
        if not (is_missing(value) or _is_number(value)):
            raise DataError(
                "model input",
                f"{name!r} must hold numbers, got {value!r}",
                "Send a number or null.",
            )
    return np.array([np.nan if is_missing(v) else float(v) for v in given], dtype=np.float64)


def _is_number(value: Any) -> bool:
    if isinstance(value, str | bytes):
        return False
    return isinstance(value, bool | np.bool_) or hasattr(value, "__float__")


def category_texts(values: pd.Series[Any] | Sequence[Any]) -> npt.NDArray[np.object_]:
    """Return values as categories are written: Python str, None where missing.

    Args:
        values: shape (n,), of any type.

    Returns:
        object, shape (n,).
    """
    series = values if isinstance(values, pd.Series) else pd.Series(values, dtype=object)
    if isinstance(series.dtype, pd.CategoricalDtype):
        texts = category_texts(pd.Series(series.cat.categories, dtype=object))
        return _pick(texts, series.cat.codes.to_numpy())
    kind = pd.api.types.infer_dtype(series, skipna=True)
    if kind in ("string", "empty"):
        objects = np.array(series.to_numpy(dtype=object))
        objects[series.isna().to_numpy()] = None
        return objects
    if kind not in ("integer", "floating", "boolean", "datetime64", "datetime"):
        # Mixed objects: to a dictionary, True, 1 and 1.0 are the same thing; to a category they are not.
        return np.array([category_text(v) for v in series], dtype=object)
    codes, distinct = pd.factorize(series)
    return _pick(np.array([category_text(v) for v in distinct], dtype=object), codes)


def _pick(texts: npt.NDArray[np.object_], codes: npt.NDArray[Any]) -> npt.NDArray[np.object_]:
    """Return the text of each code; -1 stands for missing."""
    choices = np.empty(len(texts) + 1, dtype=object)
    choices[:-1] = texts
    picked: npt.NDArray[np.object_] = choices[codes]
    return picked


# --- target ---------------------------------------------------------------------------------------------


def target_array(
    frame: pd.DataFrame, spec: Spec, classes: Sequence[Any] | None = None
) -> tuple[npt.NDArray[Any], list[Any]]:
    """Return the target as numbers.

    Args:
        frame: Holds the target column, n rows.
        spec: Names it, and the task.
        classes: Classes of a version fitted earlier; None means those found in the frame.

    Returns:
        The numbers, shape (n,), and the classes as JSON values. Binary: int64 0 and 1, where 1 is
        `ingest.positive` or the larger in sort order; classes are [negative, positive]. Multiclass: int64
        positions in the sorted classes. Regression: float64 and no classes.

    Raises:
        DataError: The target is missing somewhere, infinite, of the wrong kind or has too few or too many
            classes; with `classes` given, a value is none of them.
    """
    where = f"model {spec.model}: ingest.target {spec.ingest.target!r}"
    if spec.ingest.target not in frame:
        raise no_column(
            f"model {spec.model}: ingest.target",
            "target",
            spec.ingest.target,
            map(str, frame.columns),
        )
    values = frame[spec.ingest.target]
    absent = int(values.isna().sum())
    if absent or not len(values):
        got = f"{absent} of {len(values)} rows without" if absent else "no rows"
        raise DataError(where, f"every row must have a value, got {got}", "Correct the data.")
    if spec.task == "regression":
        return _regression_target(values, where), []
    texts = category_texts(values)
    found = list(classes) if classes is not None else _classes(values, spec, where)
    codes = {category_text(value): code for code, value in enumerate(found)}
    order, distinct = pd.factorize(texts)
    unknown = [text for text in distinct if text not in codes]
    if unknown:
        raise DataError(
            where, f"must be one of {found}, got {unknown[0]!r}", "Correct the data, or retrain."
        )
    return np.array([codes[text] for text in distinct], dtype=np.int64)[order], found


def _regression_target(values: pd.Series[Any], where: str) -> npt.NDArray[np.float64]:
    if not pd.api.types.is_numeric_dtype(values.dtype):
        raise DataError(
            where,
            f"task regression needs numbers, got {values.iloc[0]!r}",
            "Correct the data (or ingest.source.missing), or use task multiclass.",
        )
    numbers = values.to_numpy(np.float64)
    infinite = int((~np.isfinite(numbers)).sum())
    if infinite:
        raise DataError(
            where, f"must be finite, got {infinite} infinite values", "Correct the data."
        )
    return numbers


def _classes(values: pd.Series[Any], spec: Spec, where: str) -> list[Any]:
    found = sorted({_json_value(v) for v in values.unique()}, key=_sort_key)
    if len(found) < 2 or (spec.task == "binary" and len(found) > 2):
        wanted = "exactly two" if spec.task == "binary" else "at least two"
        shown = ", ".join(map(repr, found[:5])) + (", ..." if len(found) > 5 else "")
        raise DataError(
            where,
            f"task {spec.task} needs {wanted} classes, got {len(found)}: {shown}",
            "Bring rows of every class, or change the task.",
        )
    if spec.ingest.positive is None:
        return found
    positive = category_text(spec.ingest.positive)
    texts = [category_text(v) for v in found]
    if positive not in texts:
        raise DataError(
            f"model {spec.model}: ingest.positive",
            f"must be a value of the target ({', '.join(map(repr, found))}), got {spec.ingest.positive!r}",
            "Correct the spec.",
        )
    return found if texts[1] == positive else found[::-1]


def _json_value(value: Any) -> Any:
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, float) and plain.is_integer():
        return int(plain)
    return plain if isinstance(plain, bool | int | float | str) else category_text(plain)


def _is_plain_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, bool | int | float)


def _sort_key(value: Any) -> tuple[int, float, str]:
    return (0, float(value), "") if _is_plain_number(value) else (1, 0.0, str(value))
