"""Every detector: the flaw is found, told, and kept away from the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from include.errors import DataError
from include.profile.decide import Draft

Drafts = Callable[..., Draft]
Data = dict[str, Any]
ROWS = 400  # as in the fixture `base`
RNG = np.random.default_rng(11)


def names(columns: Any) -> list[str]:
    return [c.name for c in columns]


def test_clean_columns_become_features(draft_of: Drafts, base: Data) -> None:
    draft = draft_of(base)
    assert (names(draft.numeric), names(draft.categorical), draft.drop) == (["x"], ["colour"], ())
    assert (draft.key, draft.time, draft.missing) == (None, None, ("",))


# --- task -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "task", "positive"),
    [
        (["Yes", "No"], "binary", "Yes"),
        (["active", "churned"], "binary", "churned"),
        (["0", "1"], "binary", None),
        (["True", "False"], "binary", None),
        (["a", "b", "c"], "multiclass", None),
        (["1", "2", "3"], "multiclass", None),
        ([f"{v / 7:.3f}" for v in range(100)], "regression", None),
        ([str(v) for v in range(20)], "regression", None),
    ],
)
def test_infers_the_task(
    draft_of: Drafts, base: Data, values: list[str], task: str, positive: str | None
) -> None:
    draft = draft_of(base | {"y": [values[i % len(values)] for i in range(ROWS)]})
    assert (draft.target.task, draft.target.positive) == (task, positive)


def test_the_rarer_of_two_unclear_values_is_the_event(draft_of: Drafts, base: Data) -> None:
    draft = draft_of(base | {"y": np.where(np.arange(ROWS) % 4 == 0, "A", "B")})
    assert (draft.target.positive, draft.target.positive_share) == ("A", 0.25)


def test_rare_events_are_told_and_change_the_metric(draft_of: Drafts, base: Data) -> None:
    draft = draft_of(base | {"y": (np.arange(ROWS) % 25 == 0).astype(int)})
    assert draft.metric == "average_precision"
    assert "only 4.0% of the rows" in told(draft, "imbalance")


def test_a_task_may_be_asked_for(draft_of: Drafts, base: Data) -> None:
    rating = [i % 5 for i in range(ROWS)]
    assert draft_of(base | {"y": rating}, task="regression").target.task == "regression"
    with pytest.raises(DataError, match="must hold two values for binary, got 5"):
        draft_of(base | {"y": rating}, task="binary")
    with pytest.raises(DataError, match="must hold numbers for regression, got string"):
        draft_of(base, target="colour", task="regression")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("same", "at least two values, got only 'same'"),
        (None, "at least two values, got no values"),
        ([f"text {i}" for i in range(ROWS)], "numbers or a few classes, got 400 different texts"),
        (pd.date_range("2024-01-01", periods=ROWS), "numbers, texts or booleans, got timestamp"),
    ],
)
def test_refuses_a_target_nobody_can_learn(
    draft_of: Drafts, base: Data, values: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        draft_of(base | {"y": values})


def test_a_wrong_target_gets_a_suggestion(draft_of: Drafts, base: Data) -> None:
    with pytest.raises(
        DataError, match=r"got 'color'\. Did you mean 'colour'\? Columns: x, colour, y"
    ):
        draft_of(base, target="color")
    with pytest.raises(DataError, match="Did you mean 'y'"):
        draft_of(base, target="Y")


# --- key and time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["customerID", "id", "order_id", "Policy Number"])
def test_a_unique_column_named_like_an_id_is_the_key(
    draft_of: Drafts, base: Data, name: str
) -> None:
    draft = draft_of({name: [f"k{i}" for i in range(ROWS)]} | base)
    assert draft.key is not None
    assert draft.key.name == name


def test_a_second_id_and_one_that_repeats_are_left_out(draft_of: Drafts, base: Data) -> None:
    unique = [f"k{i}" for i in range(ROWS)]
    twice = [f"d{i // 2 * 2}" for i in range(ROWS - 100)] + [f"e{i}" for i in range(100)]
    draft = draft_of({"id": unique, "other_id": unique[::-1], "device_id": twice} | base)
    assert draft.key is not None
    assert draft.key.name == "id"
    assert "by heart" in dict(draft.drop)["other_id"]
    assert "by heart" in dict(draft.drop)["device_id"]


def test_few_ids_are_categories(draft_of: Drafts, base: Data) -> None:
    assert "store_id" in names(draft_of(base | {"store_id": RNG.integers(1, 9, ROWS)}).categorical)


def test_a_key_asked_for_must_be_unique(draft_of: Drafts, base: Data) -> None:
    with pytest.raises(DataError, match="must be unique and never missing, got 3 different values"):
        draft_of(base, key="colour")


def test_finds_the_time_and_leaves_other_dates_out(draft_of: Drafts, base: Data) -> None:
    days = pd.date_range("2024-01-01", periods=ROWS)
    dates = {"birth_date": days[::-1], "order_date": days.strftime("%d.%m.%Y"), "shipped_on": days}
    draft = draft_of(dates | base)
    assert draft.time is not None
    assert draft.time.name == "order_date"
    assert draft.time.date is not None
    assert draft.time.date.format == "%d.%m.%Y"
    assert (draft.time.low, draft.time.high) == ("2024-01-01", "2025-02-03")
    assert set(dict(draft.drop)) == {"birth_date", "shipped_on"}


def test_a_time_asked_for_must_hold_times(draft_of: Drafts, base: Data) -> None:
    with pytest.raises(DataError, match="must hold dates or times in one form, got 'blue'"):
        draft_of(base | {"colour": ["blue"] * ROWS}, time="colour")


# --- what is left out -----------------------------------------------------------------------------------


def leaky_sum(base: Data) -> Data:
    parts = {"first": RNG.integers(0, 90, ROWS), "second": RNG.integers(0, 50, ROWS)}
    return base | parts | {"y": parts["first"] + parts["second"]}


FLAWS: list[tuple[str, Callable[[Data], Data], dict[str, str]]] = [
    ("sum", leaky_sum, {"first": "second = y", "second": "second = y"}),
    ("copy", lambda b: b | {"copy": b["y"]}, {"copy": "alone it reaches a ROC AUC of 1.000"}),
    (
        "recoded target",
        lambda b: b | {"said": np.where(b["y"] == 1, "left", "stayed")},
        {"said": "ROC AUC of 1.000"},
    ),
    (
        "there only for the event",
        lambda b: b | {"left_at": np.where(b["y"] == 1, "2024-01-05", "")},
        {"left_at": "is no feature"},
    ),
    (
        "number known only for the event",
        lambda b: b | {"refund": np.where(b["y"] == 1, RNG.random(ROWS).round(3), np.nan)},
        {"refund": "ROC AUC of 1.000"},
    ),
    (
        "monotone function",
        lambda b: b | {"y": b["x"], "x": RNG.normal(size=ROWS), "power": np.exp(3 * b["x"])},
        {"power": "ranks the target"},
    ),
    (
        "class codes",
        lambda b: b | {"y": RNG.choice(list("abc"), ROWS), "x": b["x"]},
        {},
    ),
    ("constant", lambda b: b | {"c": 5}, {"c": "holds nothing but 5"}),
    ("empty", lambda b: b | {"c": None}, {"c": "every value is missing"}),
    ("row number", lambda b: {"Unnamed": np.arange(ROWS)} | b, {"Unnamed": "counts the 400 rows"}),
    ("unnamed", lambda b: {"": np.arange(ROWS)} | b, {"column0": "counts the 400 rows"}),
    (
        "names of codes",
        lambda b: b | {"n": np.arange(ROWS) % 7, "name": [f"d{i % 7}" for i in range(ROWS)]},
        {"name": "7 values go one to one with those of n"},
    ),
    (
        "other unit",
        lambda b: b | {"metres": b["x"], "feet": b["x"] * 3.28084},
        {"metres": "moves exactly with x", "feet": "moves exactly with x"},
    ),
    (
        "personal",
        lambda b: b | {"contact": [f"p{i}@example.com" for i in range(ROWS)]},
        {"contact": "personal"},
    ),
    (
        "phone",
        lambda b: b | {"phoneNumber": [f"+49 {i}" for i in range(ROWS)]},
        {"phoneNumber": "personal"},
    ),
    (
        "free text",
        lambda b: b | {"note": [f"note {i} {i % 3}" for i in range(ROWS)]},
        {"note": "400 different texts"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), [f[1:] for f in FLAWS], ids=[f[0] for f in FLAWS])
def test_leaves_out_what_no_model_should_learn(
    draft_of: Drafts, base: Data, make: Callable[[Data], Data], expected: dict[str, str]
) -> None:
    draft = draft_of(make(base))
    reasons = dict(draft.drop)
    assert set(reasons) == set(expected)
    for name, reason in expected.items():
        assert reason in reasons[name]
    assert not set(reasons) & {*names(draft.numeric), *names(draft.categorical)}


def test_nested_columns_are_left_out(draft_of: Drafts, base: Data) -> None:
    draft = draft_of(base | {"tags": [["a", "b"]] * ROWS}, "parquet")
    assert dict(draft.drop) == {"tags": "type: holds lists or objects"}
    assert draft.missing is None


def test_leaks_stay_where_nothing_else_is_left(draft_of: Drafts, base: Data) -> None:
    draft = draft_of({"copy": base["y"], "y": base["y"]})
    assert names(draft.numeric) == ["copy"]
    with pytest.raises(DataError, match="must hold a column to learn y from"):
        draft_of({"same": 1, "y": base["y"]})


def test_tells_of_rows_without_target_and_of_few_rows(draft_of: Drafts, base: Data) -> None:
    target = pd.Series(base["y"], dtype="Int64")
    target[:3] = pd.NA
    assert "3 rows have no value" in told(draft_of(base | {"y": target}), "target")
    few = {name: values[:60] for name, values in base.items()}
    assert "only 60 rows" in told(draft_of(few), "rows")


def told(draft: Draft, kind: str) -> str:
    return "; ".join(f.message for f in draft.findings if f.kind == kind)
