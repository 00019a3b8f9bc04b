"""Labels and logged answers as texts, turned into the numbers the metrics take.

Owns how the log alone tells which class is which: the log and the reference keep classes as texts, and a version's
classes by code show in its own answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.scoring.metrics import LABEL_METRICS, Floats
from include.spec.metrics import Task


@dataclass(frozen=True)
class Answers:
    """Truth and prediction as `include.scoring.metrics` takes them.

    Attributes:
        y: Codes or values, shape (n,).
        prediction: Shape (n,), for multiclass (n, k).
        foreign: Labels left out because they are no class, or no number.
    """

    y: NDArray[Any]
    prediction: Floats
    foreign: int


class Unreadable(Exception):  # noqa: N818
    """Answers cannot be turned into what the metric needs; the text says why. A caller turns it into its own words."""


def answers_of(
    task: Task, metric: str, rows: pa.Table, truth: str, classes: Sequence[str], evidence: pa.Table
) -> Answers:
    """Return what one metric of labelled rows is computed from.

    Args:
        task: Kind of prediction.
        metric: The metric.
        rows: `_score`, `_prediction`, for multiclass probabilities also `_probability`, and the truth.
        truth: Name of the column that holds the truth: text, for regression text or number.
        classes: Texts of all classes, in any order; empty for regression.
        evidence: Further answers of the same version, for which class is which: `_score` and `_prediction`.

    Raises:
        Unreadable: The answers do not tell what the metric needs.
    """
    if task == "regression":
        return _numbers(rows, truth)
    if task == "binary":
        order = _binary_order(classes, [rows, evidence])
        codes = _codes(rows.column(truth), order)
        kept = codes >= 0
        score = rows.column("_score").to_numpy()[kept]
        return Answers(codes[kept], score, int((~kept).sum()))
    return _multiclass(metric, rows, truth, classes)


def _numbers(rows: pa.Table, truth: str) -> Answers:
    values = rows.column(truth)
    if not pa.types.is_floating(values.type):
        texts = values.to_pylist()
        numbers = np.array([_number(text) for text in texts], dtype=float)
    else:
        numbers = values.to_numpy()
    kept = np.isfinite(numbers)
    return Answers(numbers[kept], rows.column("_score").to_numpy()[kept], int((~kept).sum()))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _binary_order(classes: Sequence[str], answers: Iterable[pa.Table]) -> list[str]:
    """Return [negative, positive]: what was answered below a score of one half, and above it.

    Where a version always answers alike, the other class is the one that is left.
    """
    said: dict[bool, str] = {}
    for table in answers:
        likely = pc.greater(table.column("_score"), 0.5)
        for side in (False, True):
            if side not in said:
                found = pc.unique(table.column("_prediction").filter(pc.equal(likely, side)))
                if len(found):
                    said[side] = str(found[0].as_py())
    for side in (False, True):
        others = [c for c in classes if c != said.get(not side)]
        if side not in said and len(others) == 1:
            said[side] = others[0]
    if len(said) < 2 or said[False] == said[True]:
        raise Unreadable("the log does not tell which class is the positive one")
    return [said[False], said[True]]


def _codes(values: pa.ChunkedArray, order: Sequence[str]) -> NDArray[np.int64]:
    """Return the place of each text in `order`, -1 where it has none."""
    places = pc.index_in(values.cast(pa.string()), value_set=pa.array(order, pa.string()))
    codes: NDArray[np.int64] = places.fill_null(-1).to_numpy().astype(np.int64)
    return codes


def _multiclass(metric: str, rows: pa.Table, truth: str, classes: Sequence[str]) -> Answers:
    if metric in LABEL_METRICS:
        order = sorted(classes)
        label = _codes(rows.column("_prediction"), order)
        if (label < 0).any():
            raise Unreadable("the log holds a class the reference does not know")
        prediction: Floats = np.eye(len(order))[label]
    else:
        prediction = _probabilities(rows)
        order = _multiclass_order(classes, rows, prediction)
    codes = _codes(rows.column(truth), order)
    kept = codes >= 0
    return Answers(codes[kept], prediction[kept], int((~kept).sum()))


def _probabilities(rows: pa.Table) -> Floats:
    if "_probability" not in rows.column_names:
        raise Unreadable("the probabilities of all classes are not known")
    lists = rows.column("_probability").combine_chunks()
    lengths = pc.unique(pc.list_value_length(lists)).to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        raise Unreadable("the log must hold the probabilities of all classes in every row")
    values: Floats = pc.list_flatten(lists).to_numpy().reshape(len(lists), lengths[0])
    return values


def _multiclass_order(classes: Sequence[str], rows: pa.Table, prediction: Floats) -> list[str]:
    """Return the classes in the order of the probabilities: sorted as numbers or as texts, whichever fits.

    The rule of a version's classes is the sort order of the values; the most probable one is the answer, which
    proves which of the two it was.
    """
    likeliest = prediction.argmax(axis=1)
    answered = rows.column("_prediction").to_pylist()
    seen = {(int(code), str(text)) for code, text in zip(likeliest, answered, strict=True)}
    by_number = sorted(classes, key=lambda text: (_number(text), text))
    for order in (by_number, sorted(classes)):
        if len(order) == prediction.shape[1] and all(order[code] == text for code, text in seen):
            return order
    raise Unreadable("the log does not tell which probability belongs to which class")
