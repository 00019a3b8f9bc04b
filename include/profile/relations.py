"""How columns relate: which repeat one another, and which give the target away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import r2_score, roc_auc_score

from include.profile.column import Column
from include.profile.table import Table
from include.spec.metrics import Task
from include.validate.linear import find_combination

SAMPLE_ROWS = 50_000
# A single feature this good is not a feature: real ones stay far below.
LEAK_AUC = 0.99
LEAK_RECALL = 0.99
LEAK_R2 = 0.98
LEAK_RANK = 0.998
_BINS = 200
_FEW_VALUES = 50
_FEW_TERMS = 8  # a sum of more is rather how the target was made than a leak
_LEAST_ROWS = 50
_LEAST_KNOWN = 0.05

Floats = np.ndarray[Any, np.dtype[np.float64]]
Codes = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Repeat:
    """A column that says the same as another one.

    Args:
        name: The column that can go.
        of: The column that stays.
        how: The relation, as a phrase with its number.
    """

    name: str
    of: str
    how: str


@dataclass(frozen=True)
class Leak:
    """Columns that give the target away, alone or together.

    Args:
        names: One column, or those that make up the target together.
        how: The evidence, as a phrase with its number.
    """

    names: tuple[str, ...]
    how: str


# --- repeats --------------------------------------------------------------------------------------------


def find_repeats(table: Table, columns: Sequence[Column]) -> list[Repeat]:
    """Find columns that equal another one or stand in a one-to-one relation to it.

    Args:
        table: The typed rows.
        columns: Columns to compare; of two that repeat one another the earlier one is kept.
    """
    repeats: list[Repeat] = []
    kept: list[Column] = []
    for column in columns:
        if column.type == "other" or column.distinct < 2:
            continue
        found = next(
            (r for other in kept if (r := _compare(table, other, column)) is not None), None
        )
        if found:
            repeats.append(found)
        else:
            kept.append(column)
    return repeats


def _compare(table: Table, kept: Column, other: Column) -> Repeat | None:
    if kept.nulls != other.nulls or abs(kept.distinct - other.distinct) > 0.1 * kept.distinct:
        return None
    a, b = kept.ref, other.ref
    if kept.distinct > kept.rows / 2:  # nearly every row has its own value: one-to-one says nothing
        if not _same_values(table, kept, other):
            return None
        return Repeat(other.name, kept.name, f"moves exactly with {kept.name}")
    if max(kept.distinct, other.distinct) > 10_000 and not _same_values(table, kept, other):
        return None
    groups = 0 if kept.nulls == 0 else 1
    (pairs,) = table.query(
        f"SELECT count(*) FROM (SELECT DISTINCT {a}, {b} FROM {table.name})"  # noqa: S608
    )[0]
    (exact,) = table.row([f"count(DISTINCT {a})"])
    (exact_other,) = table.row([f"count(DISTINCT {b})"])
    if not pairs == exact + groups == exact_other + groups:
        return None
    how = f"its {exact_other:,} values go one to one with those of {kept.name}"
    return Repeat(other.name, kept.name, how)


def _same_values(table: Table, kept: Column, other: Column) -> bool:
    a, b = kept.ref, other.ref
    if kept.numeric and other.numeric:
        (correlation,) = table.row([f"corr(CAST({a} AS DOUBLE), CAST({b} AS DOUBLE))"])
        return correlation is not None and abs(correlation) > 1 - 1e-9
    if kept.type != other.type:
        return False
    (different,) = table.row([f"count(*) FILTER ({a} IS DISTINCT FROM {b})"])
    return bool(different == 0)


# --- leakage --------------------------------------------------------------------------------------------


def find_leaks(table: Table, columns: Sequence[Column], target: Column, task: Task) -> list[Leak]:
    """Find columns that predict the target near-perfectly alone, or make it up together.

    A little stricter than the check of the validate stage, so that a new spec passes it.

    Args:
        table: The typed rows; a fixed sample of 50,000 is looked at.
        columns: Columns that would become features.
        target: The column to predict.
        task: Kind of prediction.

    Returns:
        Single columns first, in the order given.
    """
    frame = _sample(table, [target, *columns])
    if len(frame) < _LEAST_ROWS:
        return []
    goal = frame[target.name]
    y: Floats = _numbers(goal) if task == "regression" else pd.factorize(goal)[0].astype(np.float64)
    leaks = []
    for column in columns:
        evidence = _alone(frame[column.name], column, y, task)
        if evidence:
            leaks.append(Leak((column.name,), evidence))
    guilty = {name for leak in leaks for name in leak.names}
    numeric = [c.name for c in columns if c.numeric and c.name not in guilty]
    found = None
    if task != "multiclass":
        arrays = {n: _numbers(frame[n]) for n in numeric}
        found = find_combination(arrays, y)
    if found and len(found.terms) <= _FEW_TERMS:
        leaks.append(Leak(tuple(found.terms), f"{found.text} = {target.name}"))
    return leaks


def _sample(table: Table, columns: Sequence[Column]) -> pd.DataFrame:
    """Return the rows with the smallest row-number hashes where the first column has a value."""
    selected = ", ".join(c.ref for c in columns)
    frame: pd.DataFrame = table.connection.execute(
        f"SELECT {selected} FROM {table.name} WHERE {columns[0].ref} IS NOT NULL "  # noqa: S608
        f"ORDER BY hash(rowid) LIMIT {SAMPLE_ROWS}"
    ).df()
    return frame.set_axis([c.name for c in columns], axis=1)


def _numbers(values: pd.Series) -> Floats:
    numbers: Floats = pd.to_numeric(values, errors="coerce").to_numpy("float64", na_value=np.nan)
    return numbers


def _alone(values: pd.Series, column: Column, y: Floats, task: Task) -> str | None:
    """Judge one column on all rows, and once more on the rows where it is known."""
    evidence = _judge(values, column, y, task)
    known = values.notna().to_numpy()
    if evidence or known.all() or known.sum() < max(_LEAST_ROWS, _LEAST_KNOWN * len(y)):
        return evidence
    evidence = _judge(values[known].reset_index(drop=True), column, y[known], task)
    return f"where it is known, {evidence}" if evidence else None


def _judge(values: pd.Series, column: Column, y: Floats, task: Task) -> str | None:
    """Score the best guess that one column allows, learnt on one half and tried on the other."""
    groups = _groups(values, column)
    learn = np.arange(len(y)) < len(y) // 2
    if min(len(np.unique(y[learn])), len(np.unique(y[~learn]))) < 2:
        return None
    if task == "multiclass":
        usual = pd.Series(y[learn]).groupby(groups[learn]).agg(lambda v: v.mode().iloc[0])
        guess = pd.Series(groups[~learn]).map(usual).fillna(-1).to_numpy("float64")
        recall = float(np.mean([np.mean(guess[y[~learn] == c] == c) for c in np.unique(y[~learn])]))
        return f"alone it tells {recall:.1%} of the classes" if recall >= LEAK_RECALL else None
    means = pd.Series(y[learn]).groupby(groups[learn]).mean()
    guess = pd.Series(groups[~learn]).map(means).fillna(y[learn].mean()).to_numpy("float64")
    if task == "binary":
        auc = float(roc_auc_score(y[~learn], guess))
        return f"alone it reaches a ROC AUC of {auc:.3f}" if auc >= LEAK_AUC else None
    r2 = float(r2_score(y[~learn], guess))
    if r2 >= LEAK_R2:
        return f"alone it explains {r2:.1%} of the target"
    rank = _rank_correlation(values, y) if column.numeric else 0.0
    return f"alone it ranks the target, correlation {rank:.4f}" if rank >= LEAK_RANK else None


def _groups(values: pd.Series, column: Column) -> Codes:
    """Put like values into one group; missing is a group of its own (-1)."""
    if column.type == "timestamp":  # a date tells by being there: `left_on` of those who left
        return np.where(values.isna(), -1, 0).astype("int64")
    if column.numeric and column.distinct > _FEW_VALUES:
        codes = pd.qcut(pd.Series(_numbers(values)), _BINS, labels=False, duplicates="drop")
        return codes.fillna(-1).to_numpy("int64")
    return np.asarray(pd.factorize(values)[0], dtype="int64")


def _rank_correlation(values: pd.Series, y: Floats) -> float:
    correlation = pd.Series(_numbers(values)).corr(pd.Series(y), method="spearman")
    return abs(float(correlation)) if np.isfinite(correlation) else 0.0
