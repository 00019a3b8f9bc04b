"""Turns what was found in a file into the decisions of a spec, each with the number that led to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from include.errors import DataError
from include.profile.column import Column
from include.profile.columns import missing_texts
from include.profile.omit import (
    MAX_CATEGORIES,
    Finding,
    find_identifying,
    find_related,
    find_useless,
    first_reasons,
    is_personal,
    without,
)
from include.profile.roles import (
    Target,
    choose_key,
    choose_time,
    is_id_name,
    pick,
    read_target,
)
from include.profile.table import Table

RARE_SHARE = 0.1  # below it, average precision tells more than ROC AUC


@dataclass(frozen=True)
class Draft:
    """Every decision of the new spec.

    Args:
        rows: Rows of the file.
        target: What is predicted.
        key: Entity id; None where no column is one.
        time: Event time; None where no column is one.
        missing: Texts that mean missing; None for formats that have a null of their own.
        numeric: Columns used as numbers.
        categorical: Columns used as categories.
        drop: Columns left out, with the reason.
        findings: What was found, in the order it should be told.
    """

    rows: int
    target: Target
    key: Column | None
    time: Column | None
    missing: tuple[str, ...] | None
    numeric: tuple[Column, ...]
    categorical: tuple[Column, ...]
    drop: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]

    @property
    def metric(self) -> str:
        """The metric that suits the target best."""
        if self.target.task == "regression":
            return "rmse"
        if self.target.task == "multiclass":
            return "log_loss"
        return "average_precision" if (self.target.positive_share or 0) < RARE_SHARE else "roc_auc"

    @property
    def min_rows(self) -> int:
        """Half of today's rows, rounded to two digits: less than that is an accident upstream."""
        half = max(self.rows // 2, 1)
        step = int(10 ** max(int(math.log10(half)) - 1, 0))
        return max(half // step * step, 1)


def decide(
    table: Table,
    columns: Sequence[Column],
    *,
    target: str,
    time: str | None = None,
    key: str | None = None,
    task: str | None = None,
    path: str,
) -> Draft:
    """Decide what every column is for.

    Args:
        table: The typed rows.
        columns: Their descriptions, as `read_columns` returns them.
        target: Column to predict.
        time: Event time; None looks for one.
        key: Entity id; None looks for one.
        task: binary, multiclass or regression; None goes by the target's values.
        path: Name of the file, for messages.

    Raises:
        DataError: A named column does not exist or cannot play its part.
    """
    goal = read_target(pick(columns, target, "--target", path), task, path)
    taken = {name for name in (target, time, key) if name}
    personal = {c.name for c in columns if is_personal(c)}
    key_column = choose_key(columns, key, taken | personal, path)
    taken |= {key_column.name} if key_column else set()
    time_column = choose_time(columns, time, taken, path)
    taken |= {time_column.name} if time_column else set()

    findings = _about_roles(goal, key_column, time_column)
    missing = missing_texts(columns) if table.text else None
    findings += _about_missing(columns)
    roles = [c for c in (time_column, key_column) if c]
    rest = [c for c in columns if c.name not in taken]
    dropped = [*find_useless(rest), *find_identifying(rest)]
    dropped = first_reasons(dropped)
    dropped += find_related(table, without(rest, dropped), roles, goal)
    features = without(rest, dropped)
    if not features:
        # Nothing is left to learn from: rather show the leaks to the person than write a spec that cannot train.
        kept = {f.column for f in dropped if f.kind == "leakage"}
        dropped = [f for f in dropped if f.column not in kept]
        features = [c for c in rest if c.name in kept]
    if not features:
        raise DataError(
            path,
            f"must hold a column to learn {target} from, got none of use",
            "Bring more columns.",
        )
    categorical = tuple(c for c in features if _is_category(c))
    order = {c.name: i for i, c in enumerate(columns)}
    dropped.sort(key=lambda f: order[f.column or ""])
    return Draft(
        rows=table.rows,
        target=goal,
        key=key_column,
        time=time_column,
        missing=missing,
        numeric=tuple(c for c in features if c not in categorical),
        categorical=categorical,
        drop=tuple((f.column or "", f"{f.kind}: {f.message}") for f in dropped),
        findings=(*findings, *dropped, *_about_rows(goal, table.rows)),
    )


# --- what is told ---------------------------------------------------------------------------------------


def _about_roles(goal: Target, key: Column | None, time: Column | None) -> list[Finding]:
    column = goal.column
    found = [Finding("target", column.name, f"{goal.task}: {goal.reason}")]
    if column.nulls:
        text = f"{column.nulls:,} rows have no value: remove them before training"
        found.append(Finding("target", column.name, text, warn=True))
    if key:
        found.append(Finding("key", key.name, f"{key.distinct:,} different values, none missing"))
    if time:
        text = f"{time.low} to {time.high}"
        if time.date and time.date.format:
            text += f", written as {time.date.format}"
        ambiguous = bool(time.date and time.date.ambiguous)
        if time.date and time.date.evidence:
            text += f" ({time.date.evidence})"
        found.append(Finding("time", time.name, text, warn=ambiguous))
        if time.nulls:
            text = f"{time.nulls:,} rows have no time: remove them before training"
            found.append(Finding("time", time.name, text, warn=True))
    return found


def _about_missing(columns: Sequence[Column]) -> list[Finding]:
    found = []
    for column in columns:
        if column.markers:
            shown = ", ".join(f"{text!r} {count:,} times" for text, count in column.markers)
            found.append(Finding("missing", column.name, f"{shown} among {_kind(column)}"))
        if column.infinite:
            text = f"{column.infinite:,} infinite values: validate refuses them"
            found.append(Finding("missing", column.name, text, warn=True))
        if column.doubtful:
            shown = ", ".join(f"{text!r} {count:,} times" for text, count in column.doubtful)
            text = (
                f"{shown} read as values; if they mean missing, add them to ingest.source.missing"
            )
            found.append(Finding("missing", column.name, text, warn=True))
    return found


def _kind(column: Column) -> str:
    names = {"int": "whole numbers", "float": "numbers", "timestamp": "dates", "bool": "booleans"}
    return names.get(column.type, "texts")


def _about_rows(goal: Target, rows: int) -> list[Finding]:
    found = []
    share = goal.positive_share
    if share is not None and min(share, 1 - share) < RARE_SHARE:
        text = f"only {min(share, 1 - share):.1%} of the rows are of the rarer class"
        found.append(Finding("imbalance", goal.column.name, text, warn=True))
    if rows < 250:
        text = f"only {rows} rows: the gate needs 50 in its holdout of 20 %"
        found.append(Finding("rows", None, text, warn=True))
    return found


def value_set(column: Column) -> list[Any]:
    """Return all values of a column in order; empty where not all of them were kept."""
    if len(column.values) != column.distinct:
        return []
    return sorted((v for v, _ in column.values), key=lambda v: (str(type(v)), v))


def _is_category(column: Column) -> bool:
    if column.type == "string" or column.leading_zeros:
        return True
    return column.type == "int" and is_id_name(column.name) and column.distinct <= MAX_CATEGORIES
