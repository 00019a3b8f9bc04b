"""A registry of very many models that cost nothing to load, for what depends on their number alone."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import numpy as np

from include.engines.predictor import Answer, Columns, Kind
from include.errors import ServiceError
from include.serving.engine import LoadedModel
from include.serving.served import Wanted
from tests.unit.serving.registry import CHURN, EXAMPLE


class Constant:
    """A predictor that says the same of every row, in no time, and claims a size."""

    kind: Kind = "sklearn"
    has_probability = True
    codes = np.array([0, 1])

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def answer(self, columns: Columns) -> Answer:
        rows = len(columns["age"])
        return Answer(np.zeros(rows, dtype=np.int64), np.full((rows, 2), 0.5))


class ManyModels:
    """A `ModelSource` of `count` models whose champion is version 1, each of the same size.

    Args:
        count: How many.
        size_bytes: What each says it takes.
    """

    def __init__(self, count: int, size_bytes: int = 1000) -> None:
        self.size_bytes = size_bytes
        self.wanted = {f"m{number:04}": Wanted({"champion": "1"}) for number in range(count)}
        self.loads: Counter[str] = Counter()
        self.hangs = threading.Event()
        self.hangs.set()  # cleared: loads wait
        self.away: set[str] = set()

    def models(self) -> dict[str, Wanted]:
        return dict(self.wanted)

    def load(self, name: str, version: str, cache: Path) -> LoadedModel:
        self.hangs.wait(20)
        self.loads[name] += 1
        if name in self.away:
            raise ServiceError("MLflow", "must answer, got nothing", "Start it.")
        folder = cache / name / version
        folder.mkdir(parents=True, exist_ok=True)
        return LoadedModel(name, version, Constant(self.size_bytes), CHURN, EXAMPLE, folder)
