"""Which column plays which part: the target and its task, the key, the event time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from include.errors import DataError
from include.profile.column import Column
from include.spec.loader import suggest
from include.spec.metrics import Task

MAX_CLASSES = 30
MAX_NUMBERED_CLASSES = 10
_YES = (
    "yes",
    "y",
    "true",
    "t",
    "1",
    "positive",
    "pos",
    "churned",
    "bad",
    "fraud",
    "default",
    "failed",
)
_NO = ("no", "n", "false", "f", "0", "negative", "neg", "retained", "good", "ok", "paid", "passed")
_ID = re.compile(r"(^|_)(id|uuid|guid|key|number|no|nr|code)$")
_EVENT = re.compile(
    r"(^|_)(time|timestamp|date|datetime|day|dteday|ts|at|when|observed|event|created|month|week)($|_)"
)
_NOT_EVENT = re.compile(
    r"birth|dob|expir|(^|_)(end|until|due|updated|modified|deleted|closed)($|_)"
)


@dataclass(frozen=True)
class Target:
    """What is predicted.

    Args:
        column: The column.
        task: Kind of prediction.
        reason: Why this task, as a phrase with its number.
        positive: For binary: the value that counts as the event; None where the larger one does anyway.
        positive_share: For binary: share of rows with the event.
    """

    column: Column
    task: Task
    reason: str
    positive: Any = None
    positive_share: float | None = None


def words(name: str) -> str:
    """Return a column's name in snake case, so that `customerID` and `Customer Id` read alike."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


def is_id_name(name: str) -> bool:
    """Whether a column's name says that it identifies something."""
    return bool(_ID.search(words(name)))


def pick(columns: Sequence[Column], name: str, option: str, path: str) -> Column:
    """Return the column a person named.

    Raises:
        DataError: There is none of that name; the message suggests the nearest.
    """
    for column in columns:
        if column.name == name:
            return column
    names = [c.name for c in columns]
    lowered = {n.lower(): n for n in names}
    near = lowered.get(name.lower())
    hint = f"Did you mean {near!r}?" if near else suggest(name, names)
    shown = ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")
    raise DataError(
        f"{path}: {option}",
        f"must be a column of the file, got {name!r}",
        f"{hint} Columns: {shown}.".strip(),
    )


# --- target ---------------------------------------------------------------------------------------------


def read_target(column: Column, task: str | None, path: str) -> Target:
    """Find the task from the target's values, or check the one a person named against them.

    Raises:
        DataError: The target is empty, holds one value, or does not suit the task.
    """
    where = f"{path}: --target {column.name}"
    if column.distinct < 2:
        got = "no values" if column.distinct == 0 else f"only {column.values[0][0]!r}"
        raise DataError(
            where, f"must hold at least two values, got {got}", "Choose another column."
        )
    if column.type in ("timestamp", "other"):
        raise DataError(
            where,
            f"must hold numbers, texts or booleans, got {column.type}",
            "Choose another column.",
        )
    inferred, reason = _infer_task(column, where)
    chosen: Task = next((t for t in get_args(Task) if t == task), inferred)
    if chosen != inferred:
        _check_task(column, chosen, where)
        reason = f"as asked; its {column.distinct:,} values look like {inferred}"
    if chosen != "binary":
        return Target(column, chosen, reason)
    return _binary(column, reason)


def _infer_task(column: Column, where: str) -> tuple[Task, str]:
    if column.distinct == 2:
        return "binary", "two values"
    if column.type == "string":
        if column.distinct > max(MAX_CLASSES, 0.01 * column.rows) or column.distinct > 200:
            raise DataError(
                where,
                f"must hold numbers or a few classes, got {column.distinct:,} different texts",
                "Choose another column, or group its values first.",
            )
        return "multiclass", f"{column.distinct} different texts"
    if column.type == "int" and column.distinct <= MAX_NUMBERED_CLASSES:
        return (
            "multiclass",
            f"only {column.distinct} different whole numbers; use regression where their order matters",
        )
    return "regression", f"{column.distinct:,} different numbers"


def _check_task(column: Column, task: Task, where: str) -> None:
    if task == "binary":
        raise DataError(
            where,
            f"must hold two values for binary, got {column.distinct:,}",
            "Use another --task.",
        )
    if task == "regression" and not column.numeric:
        raise DataError(
            where, f"must hold numbers for regression, got {column.type}", "Use another --task."
        )
    if task == "multiclass" and column.type == "float":
        raise DataError(
            where, "must hold classes for multiclass, got fractions", "Use --task regression."
        )


def _binary(column: Column, reason: str) -> Target:
    counts = dict(column.values)
    larger = max(counts, key=lambda v: str(v).lower() if column.type == "string" else v)
    positive = _event(list(counts)) if column.type == "string" else larger
    if positive is None:
        positive = min(counts, key=lambda v: (counts[v], str(v)))
    share = counts[positive] / sum(counts.values())
    explicit = positive if column.type == "string" else None
    return Target(column, "binary", reason, explicit, share)


def _event(values: list[Any]) -> Any:
    """Return the value that says yes, or the one that stands beside a no; None where neither is clear."""
    said = [str(v).strip().lower() for v in values]
    yes = [v for v, s in zip(values, said, strict=True) if s in _YES]
    if len(yes) == 1:
        return yes[0]
    rest = [v for v, s in zip(values, said, strict=True) if s not in _NO]
    return rest[0] if len(rest) == 1 else None


# --- key and time ---------------------------------------------------------------------------------------


def choose_key(
    columns: Sequence[Column], asked: str | None, taken: set[str], path: str
) -> Column | None:
    """Return the column that identifies a row: the one asked for, or a unique one with a name like an id.

    Raises:
        DataError: The one asked for is missing, or has repeated or missing values.
    """
    if asked is not None:
        column = pick(columns, asked, "--key", path)
        if not column.unique:
            rule = (
                f"must be unique and never missing, got {column.distinct:,} different values and "
                f"{column.nulls:,} missing in {column.rows:,} rows"
            )
            raise DataError(
                f"{path}: --key {asked}", rule, "Choose another column, or leave it out."
            )
        return column
    for column in columns:
        if column.name in taken or column.type not in ("string", "int") or not column.unique:
            continue
        if is_id_name(column.name):
            return column
    return None


def choose_time(
    columns: Sequence[Column], asked: str | None, taken: set[str], path: str
) -> Column | None:
    """Return the column that says when a row happened: the one asked for, or the likeliest by name.

    Raises:
        DataError: The one asked for is missing or does not hold times.
    """
    if asked is not None:
        column = pick(columns, asked, "--time", path)
        if column.type != "timestamp":
            shown = ", ".join(repr(v) for v, _ in column.values[:3]) or column.type
            raise DataError(
                f"{path}: --time {asked}",
                f"must hold dates or times in one form, got {shown}",
                "Choose another column, or leave it out.",
            )
        return column
    fitting = [
        c
        for c in columns
        if c.type == "timestamp"
        and c.name not in taken
        and c.nulls == 0
        and c.distinct > 1
        and not _NOT_EVENT.search(words(c.name))
    ]
    named = [c for c in fitting if _EVENT.search(words(c.name))]
    return next(iter([*named, *fitting]), None)
