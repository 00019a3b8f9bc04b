from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.serving.batching import Batcher, pays, together
from include.serving.engine import Engine, Prediction
from include.serving.rejection import RequestError
from include.serving.telemetry import Metrics


class Doubler:
    """Doubles `x`; a negative value spoils the whole call, like a row without a finite answer."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.entered = threading.Event()

    def predict(self, columns: Any) -> Prediction:
        self.entered.set()
        self.go_on.wait(10)
        self.calls.append(list(columns["x"]))
        if any(value < 0 for value in columns["x"]):
            raise RequestError(422, "inputs", "must lead to a finite prediction, got none", "?")
        return Prediction(
            [2 * value for value in columns["x"]], np.array([[v, 1.0 - v] for v in columns["x"]])
        )


def batcher(pool: ThreadPoolExecutor, max_rows: int = 100) -> Batcher:
    return Batcher(pool, 1, max_rows, Metrics(), "m")


async def ask_all(engine: Any, requests: list[list[int]], max_rows: int = 100) -> list[Any]:
    """Send all of them while a first one computes."""
    with ThreadPoolExecutor(1) as pool:
        joins = batcher(pool, max_rows)
        engine.go_on.clear()
        first = joins.predict(engine, {"x": [0]}, 1)
        await asyncio.to_thread(engine.entered.wait, 10)
        parts = [joins.predict(engine, {"x": values}, len(values)) for values in requests]
        engine.go_on.set()
        answers = await asyncio.gather(*(part.answer for part in parts), return_exceptions=True)
        assert (await first.answer).predict == [0]
    return answers


REQUESTS = st.lists(st.lists(st.integers(-2, 50), min_size=1, max_size=5), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(requests=REQUESTS, max_rows=st.integers(1, 20))
def test_each_gets_exactly_its_own_rows(requests: list[list[int]], max_rows: int) -> None:
    engine = Doubler()
    answers = asyncio.run(ask_all(engine, requests, max_rows))
    for values, answer in zip(requests, answers, strict=True):
        if any(value < 0 for value in values):
            assert isinstance(answer, RequestError)
        else:
            assert answer.predict == [2 * value for value in values]
            assert answer.probability[:, 0].tolist() == values
    assert all(len(call) <= max(max_rows, *map(len, requests)) for call in engine.calls)


def test_those_that_come_meanwhile_go_together() -> None:
    engine = Doubler()
    asyncio.run(ask_all(engine, [[1], [2, 3], [4]]))
    assert engine.calls == [[0], [1, 2, 3, 4]]


def test_a_bad_one_fails_alone() -> None:
    engine = Doubler()
    answers = asyncio.run(ask_all(engine, [[1], [-1], [4]]))
    assert [getattr(answer, "predict", None) for answer in answers] == [[2], None, [8]]
    assert engine.calls == [[0], [1, -1, 4], [1], [-1], [4]]


def test_a_caller_that_goes_away_costs_the_others_nothing() -> None:
    engine = Doubler()

    async def run() -> None:
        with ThreadPoolExecutor(1) as pool:
            joins = batcher(pool)
            engine.go_on.clear()
            parts = [joins.predict(engine, {"x": [0]}, 1)]
            await asyncio.to_thread(engine.entered.wait, 10)
            parts += [joins.predict(engine, {"x": [n]}, 1) for n in (1, 2, 3)]
            parts[0].answer.cancel()  # it is being computed
            parts[2].answer.cancel()  # it waits
            engine.go_on.set()
            assert (await parts[1].answer).predict == [2]
            assert (await parts[3].answer).predict == [6]

    asyncio.run(run())
    assert engine.calls == [[0], [1, 3]]


def test_an_engine_that_loses_rows_is_asked_about_each_request_alone() -> None:
    short = SimpleNamespace(predict=lambda columns: Prediction(columns["x"][:1], None))
    answers = together(short, [{"x": [1]}, {"x": [2]}])  # type: ignore[arg-type]
    assert [a.predict for a, _ in answers if isinstance(a, Prediction)] == [[1], [2]]


@pytest.mark.parametrize(
    ("warm", "row", "joined"), [(1.8, 0.003, True), (0.016, 0.004, False), (5.0, 4.0, False)]
)
def test_joining_is_on_where_a_calls_fixed_cost_dominates(
    engine: Engine, warm: float, row: float, joined: bool
) -> None:
    assert pays(replace(engine, warm_ms=warm, row_ms=row)) is joined


def test_joined_requests_to_a_real_engine_are_answered_as_alone(engine: Engine) -> None:
    example = engine.model.example
    parts = [{name: [values[row]] for name, values in example.items()} for row in range(3)]
    for part, (answer, seconds) in zip(parts, together(engine, parts), strict=True):
        assert seconds > 0
        assert isinstance(answer, Prediction)
        alone = engine.predict(part)
        assert answer.predict == alone.predict
        np.testing.assert_allclose(answer.probability, alone.probability, atol=1e-12)
