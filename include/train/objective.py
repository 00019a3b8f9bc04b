"""What one trial measures: the primary metric over the folds.

Owns what is computed once. The search never touches the preprocessing, so each fold is prepared once and kept for all
trials, as long as it fits into a fixed amount of memory.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import optuna
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from include.errors import ModelError
from include.spec.schema import Spec
from include.train.candidates import candidate_key, make_estimator, spec_file
from include.train.folds import Fold
from include.train.pipeline import (
    Needs,
    crowded_columns,
    empty_columns,
    needs_of,
    preparation,
)
from include.train.rows import TrainingRows
from include.train.scoring import score

_log = logging.getLogger(__name__)

_KEPT_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class _Prepared:
    """A fold's data as the estimator takes it."""

    train: Any
    test: Any
    train_target: NDArray[Any]
    test_target: NDArray[Any]

    @property
    def bytes(self) -> int:
        """Memory the inputs take."""
        return sum(_bytes(part) for part in (self.train, self.test))


def _bytes(part: Any) -> int:
    arrays = [getattr(part, name, None) for name in ("data", "indices", "indptr")]
    if hasattr(part, "indptr"):
        return sum(int(a.nbytes) for a in arrays if a is not None)
    return int(part.nbytes)


class Objective:
    """Scores the arguments of a trial by cross-validation.

    Args:
        spec: Gives task, metric and seed.
        candidate: Position of the candidate in the spec.
        rows: The training part.
        folds: How it is cut.
    """

    def __init__(self, spec: Spec, candidate: int, rows: TrainingRows, folds: list[Fold]) -> None:
        self._spec, self._candidate = spec, candidate
        self._rows, self._folds = rows, folds
        self._kept: dict[tuple[Needs, int], _Prepared] = {}
        self._room = _KEPT_BYTES
        self._said_unconverged = False

    def __call__(self, trial: optuna.Trial, out_of_time: Callable[[], bool]) -> float:
        """Return the mean of the primary metric over the folds.

        Args:
            trial: Holds the arguments; hears the mean after each fold.
            out_of_time: Asked before each fold but the first.

        Raises:
            ModelError: The estimator cannot be built, fitted or scored with these arguments.
            optuna.TrialPruned: The trial is hopeless, or the time box is over.
        """
        candidate = self._spec.candidates[self._candidate]
        estimator = make_estimator(self._spec, candidate, trial.params)
        needs = needs_of(estimator)
        values: list[float] = []
        for number in range(len(self._folds)):
            if number and out_of_time():
                raise optuna.TrialPruned("train.tune.timeout is over")
            values.append(self._fold_value(clone(estimator), needs, number))
            if number + 1 < len(self._folds):
                trial.report(fmean(values), number)
                if trial.should_prune():
                    raise optuna.TrialPruned(
                        f"worse than the median of earlier trials after {number + 1} of "
                        f"{len(self._folds)} folds"
                    )
        return fmean(values)

    def _fold_value(self, estimator: Any, needs: Needs, number: int) -> float:
        task, metric = self._spec.task, self._spec.primary.metric
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("ignore")
                warnings.simplefilter("always", ConvergenceWarning)
                fold = self._prepared(needs, number)
                estimator.fit(fold.train, fold.train_target)
                value = score(
                    task, metric, estimator, fold.test, fold.test_target, len(self._rows.classes)
                )
        except Exception as error:  # an estimator may fail in any way; the trial says how
            reason = error.rule if isinstance(error, ModelError) else _one_line(error)
            raise ModelError(
                f"{spec_file(self._spec)}: {candidate_key(self._candidate)}",
                f"must be able to learn from the data, got {reason}",
                "Correct the arguments or the data.",
            ) from error
        self._say_unconverged(bool(caught))
        return value

    def _prepared(self, needs: Needs, number: int) -> _Prepared:
        kept = self._kept.get((needs, number))
        if kept is not None:
            return kept
        fold, rows = self._folds[number], self._rows
        train = rows.inputs.iloc[fold.train]
        features = rows.features
        crowded = crowded_columns(train, features)
        prepare = preparation(needs, features, empty_columns(train), crowded)
        done = _Prepared(
            prepare.fit_transform(train),
            prepare.transform(rows.inputs.iloc[fold.test]),
            rows.target[fold.train],
            rows.target[fold.test],
        )
        if done.bytes <= self._room:
            self._room -= done.bytes
            self._kept[needs, number] = done
        return done

    def _say_unconverged(self, happened: bool) -> None:
        if happened and not self._said_unconverged:
            self._said_unconverged = True
            _log.warning(
                "%s: a fit stopped before it converged; raise max_iter if scores suffer",
                candidate_key(self._candidate),
            )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}".rstrip(".")
