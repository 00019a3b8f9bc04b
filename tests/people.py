"""People who ask serving for predictions while a test goes on."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from include.deploy.client import ServingClient

_TYPES: dict[str, Any] = {"BOOL": bool, "INT64": int, "FP64": float, "BYTES": str}
FAR_OUT = 1e6  # a value no training data has


@dataclass
class People:
    """People who ask about one customer at a time, without a break.

    Attributes:
        columns: Rows they ask about.
        far: Feature that has a value far out in every third request.
        answers: Time, status and version of every answer.
    """

    serving: str
    model: str
    columns: Mapping[str, list[Any]]
    far: str = "tenure"
    answers: list[tuple[float, int, str]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        with ServingClient(self.serving) as client:
            self._inputs = client.example(self.model).body["inputs"]
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(2)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self.stopped.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, seed: int) -> None:
        draw = random.Random(seed)
        with httpx.Client(timeout=30) as http:
            url = f"{self.serving}/v2/models/{self.model}/infer"
            while not self.stopped.is_set():
                reply = http.post(url, json={"inputs": self._one_row(draw)})
                version = reply.json().get("model_version", "")
                self.answers.append((time.time(), reply.status_code, version))
                time.sleep(0.02)

    def _one_row(self, draw: random.Random) -> list[dict[str, Any]]:
        row = draw.randrange(len(next(iter(self.columns.values()))))
        far = draw.random() < 0.3
        tensors = []
        for tensor in self._inputs:
            value = self.columns[tensor["name"]][row]
            if far and tensor["name"] == self.far:
                value = FAR_OUT
            if value is not None:
                value = _TYPES[tensor["datatype"]](value)
            shape = [1, *tensor["shape"][1:]]
            tensors.append(tensor | {"shape": shape, "data": [value]})
        return tensors

    def between(self, start: float, end: float) -> list[tuple[float, int, str]]:
        return [answer for answer in self.answers if start <= answer[0] <= end]
