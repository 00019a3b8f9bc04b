"""What a version says about rows, and which of them it has no answer for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from include.errors import EvergreenError
from include.score.rows import Inputs
from include.serving.engine import Engine, Prediction


@dataclass(frozen=True)
class Answer:
    """What was said about some rows of a piece that follow each other.

    Attributes:
        first: Place of the first of them in the piece.
        count: How many.
        prediction: What was said; None for a row without an answer.
        latency_ms: What each of them took.
        error: Why there is no answer, the way serving logs a version's failure; None for an answer.
    """

    first: int
    count: int
    prediction: Prediction | None = None
    latency_ms: float = 0.0
    error: str | None = None


def ask(engine: Engine, inputs: Inputs, first: int, count: int) -> Iterator[Answer]:
    """Yield answers that cover the rows in their order, as few as can be; a row without an answer is on its own.

    One row that an estimator refuses fails all that are asked with it, so halves are asked until it is alone.
    """
    some = inputs.part(first, count)
    started = time.perf_counter()
    try:
        prediction = engine.predict(some.columns)
    except Exception as error:  # noqa: BLE001  whatever an estimator raises is its failure, and is told
        if count == 1:
            yield Answer(first, 1, error=_failure(error))
            return
        half = count // 2
        yield from ask(engine, inputs, first, half)
        yield from ask(engine, inputs, first + half, count - half)
    else:
        latency_ms = (time.perf_counter() - started) * 1000 / count
        yield Answer(first, count, prediction, latency_ms)


def _failure(error: Exception) -> str:
    if isinstance(error, EvergreenError):
        return f"422 {error}"
    return f"500 {type(error).__name__}: {error}"
