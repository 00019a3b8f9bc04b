"""Which rows validate which: the cross-validation of the search.

Owns the folds' form. With time, a fold trains on the past and validates on what came right after it, and rows of
the same instant are never on both sides.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold, StratifiedKFold

from include.errors import DataError
from include.spec.metrics import Task
from include.train.rows import TrainingRows

Rows = slice | NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """Positions of the rows to fit on and to validate on."""

    train: Rows
    test: Rows


def make_folds(
    rows: TrainingRows, task: Task, folds: int, seed: int, *, where: str = "train.tune.folds"
) -> list[Fold]:
    """Cut the training part into folds.

    Args:
        rows: The training part.
        task: Classification folds are stratified where there is no time.
        folds: Number of folds asked for; fewer come back where the time column has too few distinct values or a
            fold would lack a class.
        seed: Shuffles where there is no time.
        where: File and key for error messages.

    Raises:
        DataError: Not one fold can be used.
    """
    if len(rows.target) < 2 * (folds + 1):
        raise DataError(
            where,
            f"needs at least {2 * (folds + 1)} rows in the training part, got {len(rows.target)}",
            "Ingest more rows.",
        )
    if rows.times is not None:
        cut = expanding_folds(rows.times, folds)
    else:
        kind = KFold if task == "regression" else StratifiedKFold
        count = folds if task == "regression" else min(folds, _largest_class(rows.target))
        splitter = kind(max(count, 2), shuffle=True, random_state=seed)
        cut = [Fold(a, b) for a, b in splitter.split(rows.target, rows.target)]
    return _usable(cut, rows, task, where)


def _largest_class(target: NDArray[Any]) -> int:
    return int(np.bincount(target).max())


def expanding_folds(times: NDArray[np.int64], folds: int) -> list[Fold]:
    """Cut time-ordered rows into blocks; each block but the first validates what all before it taught.

    Args:
        times: Rank of each row's time, never falling, shape (n,).
        folds: Number of folds, at least one.

    Returns:
        At most `folds` folds, oldest first. A block ends where an instant ends, so blocks differ in size where many
        rows share one.
    """
    count = len(times)
    ends: list[int] = []
    for number in range(1, folds + 1):
        last = -(-number * count // (folds + 1)) - 1
        end = int(np.searchsorted(times, times[last], side="right"))
        if end == count:  # the newest instant holds most rows: let it validate as a whole
            end = int(np.searchsorted(times, times[last], side="left"))
        if end > (ends[-1] if ends else 0):
            ends.append(end)
    return [Fold(slice(0, a), slice(a, b)) for a, b in itertools.pairwise([*ends, count])]


def _usable(folds: list[Fold], rows: TrainingRows, task: Task, where: str) -> list[Fold]:
    """Leave out folds that cannot be fitted or scored, but keep at least one."""
    if not folds:
        raise DataError(
            where,
            "needs rows of at least two different times in the training part, got one",
            "Ingest a longer window, or correct ingest.time.",
        )
    if task == "regression":
        return folds

    def classes(part: Rows) -> int:
        return len(np.unique(rows.target[part]))

    scored = [f for f in folds if classes(f.train) > 1 and classes(f.test) > 1]
    complete = [f for f in scored if classes(f.train) == len(rows.classes)]
    if not scored:
        raise DataError(
            where,
            "needs two classes on both sides of at least one fold, got one class everywhere",
            "Ingest a longer window with more of the rare class.",
        )
    return complete or scored
