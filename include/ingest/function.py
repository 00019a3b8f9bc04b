"""Rows from a Python function the spec names."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa

from include.errors import DataError, EvergreenError, ServiceError, SpecError
from include.ingest.readers import checked_names
from include.ingest.rows import Drop, batch_of
from include.settings import get_settings
from include.spec.sources import PythonSource

_BATCH_ROWS = 1 << 17


def call_function(
    source: PythonSource,
    where: str,
    drop: Drop,
    *,
    start: datetime | None,
    end: datetime,
    partition: str | None = None,
) -> Iterator[pa.RecordBatch]:
    """Call the function and yield its rows; the frame's index is left out.

    Args:
        source: Names the function and its arguments.
        where: For error messages.
        drop: Columns to leave out.
        start: Passed as `window_start` where the function takes it; None without a window.
        end: Passed as `window_end` where the function takes it.
        partition: Passed as `partition` where the function takes it, instead of a window; None but for scoring.

    Raises:
        SpecError: The function does not exist, or lies outside the allowed prefixes.
        DataError: It raised, or returned something else than a DataFrame.
        ServiceError: It raised an OSError, such as a refused connection.
    """
    given: dict[str, Any] = {"window_start": start, "window_end": end}
    if partition is not None:
        given = {"partition": partition}
    frame = _call(load_function(source.call, where), source.args, where, given)
    if not isinstance(frame, pd.DataFrame):
        raise DataError(
            where,
            f"the function must return a pandas DataFrame, got {type(frame).__name__}",
            "Correct the function.",
        )
    names = checked_names([_name(c) for c in frame.columns], where)
    for at in range(0, max(len(frame), 1), _BATCH_ROWS):
        part = frame.iloc[at : at + _BATCH_ROWS]
        yield batch_of({n: part.iloc[:, i] for i, n in enumerate(names)}, drop)


def _name(column: Any) -> str:
    return "_".join(map(str, column)) if isinstance(column, tuple) else str(column)


def load_function(path: str, where: str) -> Callable[..., Any]:
    """Import a function by its dotted path.

    Raises:
        SpecError: It does not exist, fails to import, or lies outside the allowed prefixes.
    """
    prefixes = get_settings().allowed_prefixes
    if not path.startswith(prefixes):
        raise SpecError(
            where,
            f"must begin with one of {', '.join(prefixes)}, got {path!r}",
            "Move the function, or allow its prefix with EVERGREEN_CODE_PREFIXES.",
        )
    module, _, name = path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # importing runs foreign code
        raise SpecError(
            where, f"must be importable, got {type(error).__name__}: {error}", "Correct the path."
        ) from error
    if not callable(function):
        raise SpecError(where, "must be a function, got something else", "Correct the path.")
    return function  # type: ignore[no-any-return]


def _call(
    function: Callable[..., Any],
    fixed: dict[str, Any],
    where: str,
    offered: dict[str, Any],
) -> Any:
    try:
        taken = inspect.signature(function).parameters
    except (TypeError, ValueError):
        taken = {}  # type: ignore[assignment]
    arguments = {n: v for n, v in offered.items() if n in taken} | fixed
    try:
        return function(**arguments)
    except EvergreenError:
        raise
    except Exception as error:  # foreign code may raise anything
        kind = ServiceError if isinstance(error, OSError) else DataError
        raise kind(
            where,
            f"the function must return a DataFrame, it raised {type(error).__name__}: {error}",
            "Correct the function or its arguments (ingest.source.args).",
        ) from error
