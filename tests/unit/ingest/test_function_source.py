from __future__ import annotations

import sys
import types
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from include.errors import DataError, ServiceError, SpecError
from include.ingest.ingest import IngestResult

Run = Callable[..., IngestResult]
RowsOf = Callable[[IngestResult], pd.DataFrame]
MODULE = "my_sources"


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType(MODULE)
    monkeypatch.setitem(sys.modules, MODULE, made)
    monkeypatch.setenv("EVERGREEN_CODE_PREFIXES", MODULE)
    return made


def source(name: str = "rows", **args: Any) -> dict[str, Any]:
    return {"kind": "python", "call": f"{MODULE}.{name}", "args": args}


def test_frames_of_all_kinds(run: Run, rows_of: RowsOf, module: Any) -> None:
    frame = pd.DataFrame(
        {
            "y": np.array([0, 1, 1], dtype=np.int8),
            "f": np.array([0.5, np.nan, 1], dtype=np.float32),
            "n": pd.array([1, None, 3], dtype="Int64"),
            "b": pd.array([True, None, False], dtype="boolean"),
            "cat": pd.Categorical(["a", None, "b"]),
            "mixed": [1, "two", None],
            "t": pd.to_datetime(["2026-01-01", None, "2026-01-02"]),
            "z": pd.to_datetime(["2026-01-01", None, "2026-01-02"]).tz_localize("Europe/Berlin"),
            "mail": ["x", "y", "z"],
            7: [1, 2, 3],
        },
        index=[5, 5, 6],
    )
    module.rows = lambda: frame
    result = run(source=source(), drop=["mail"])
    assert result.manifest.types == {
        "y": "int",
        "f": "float",
        "n": "int",
        "b": "bool",
        "cat": "string",
        "mixed": "string",
        "t": "timestamp",
        "z": "timestamp",
        "7": "int",
    }
    assert result.manifest.source == f"{MODULE}.rows"
    back = rows_of(result)
    assert back["mixed"].tolist() == ["1", "two", None]
    assert back["z"][0] == pd.Timestamp("2025-12-31T23:00:00Z")
    assert back["cat"].tolist() == ["a", None, "b"]


def test_it_gets_what_its_signature_takes(run: Run, module: Any) -> None:
    seen: list[Any] = []

    def rows(n: int, window_start: datetime | None = None, *, window_end: datetime) -> pd.DataFrame:
        seen.append((n, window_start, window_end))
        return pd.DataFrame({"y": [0, 1], "at": [window_end, window_end]})

    module.rows = rows
    now = datetime(2026, 6, 1, tzinfo=UTC)
    run(source=source(n=3), time="at", window="1d")
    run(source=source(n=3))
    assert seen == [(3, datetime(2026, 5, 31, tzinfo=UTC), now), (3, None, now)]


def test_scikit_learns_data(run: Run) -> None:
    call = {"kind": "python", "call": "sklearn.datasets.load_diabetes"}
    with pytest.raises(DataError, match="must return a pandas DataFrame, got Bunch"):
        run(source=call, target="target", task="regression")


def boom() -> None:
    raise ValueError("no such table")


def away() -> None:
    raise ConnectionRefusedError("nobody there")


@pytest.mark.parametrize(
    ("function", "args", "error", "message"),
    [
        (
            boom,
            {},
            DataError,
            r"ingest\.source\.call my_sources\.rows: .* it raised ValueError: no such table",
        ),
        (away, {}, ServiceError, "it raised ConnectionRefusedError: nobody there"),
        (lambda: [1], {}, DataError, "must return a pandas DataFrame, got list"),
        (lambda: None, {}, DataError, "must return a pandas DataFrame, got NoneType"),
        (lambda: pd.DataFrame(), {}, DataError, "target 'y' must be a column, got no columns"),
        (lambda: pd.DataFrame({"y": []}), {}, DataError, "must hold at least one row, got none"),
        (
            lambda: pd.DataFrame([[1, 2]], columns=["y", "y"]),
            {},
            DataError,
            "column names must differ, got 'y'",
        ),
        (
            lambda: pd.DataFrame({"y": [1], "l": [[1]]}),
            {},
            DataError,
            "column 'l': must hold numbers, .*got list",
        ),
        (
            lambda: pd.DataFrame({"y": [1]}),
            {"wrong": 1},
            DataError,
            "unexpected keyword argument 'wrong'",
        ),
        ("no function", {}, SpecError, "must be a function"),
    ],
)
def test_wrong_functions(
    run: Run, module: Any, function: Any, args: Any, error: Any, message: str
) -> None:
    module.rows = function
    with pytest.raises(error, match=message):
        run(source=source(**args))


def test_our_own_errors_pass(run: Run, module: Any) -> None:
    def rows() -> None:
        raise DataError("upstream", "must be there, got nothing", "Wait.")

    module.rows = rows
    with pytest.raises(DataError, match=r"^upstream: must be there, got nothing"):
        run(source=source())


def test_only_allowed_code_runs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match=r"must be importable, got AttributeError"):
        run(source=source("nothing"))
    with pytest.raises(SpecError, match=r"must be importable, got ModuleNotFoundError"):
        run(source={"kind": "python", "call": "include.nowhere.rows"})
    with pytest.raises(SpecError, match=r"must begin with one of sklearn\., .*, got 'os\.getcwd'"):
        run(source={"kind": "python", "call": "os.getcwd"})
