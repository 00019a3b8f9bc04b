"""One question to a model as a caller would ask it, and whether the answer is sane."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from include.deploy.client import ServingClient
from include.deploy.waiting import NotYet
from include.errors import ModelError, ServiceError

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Probe:
    """Asks one model of a serving process for one version's answers.

    Args:
        client: The serving process.
        model: Name.
        version: The version that shall answer.
        examples: Infer requests; None for the version's own stored example.
    """

    client: ServingClient
    model: str
    version: str
    examples: Sequence[Body] | None = None

    @property
    def where(self) -> str:
        """What errors name."""
        return f"model {self.model} version {self.version}"

    def ask(self, path_version: str | None) -> float:
        """Ask once at the version's or (None) the model's own path; return the milliseconds it took.

        Raises:
            NotYet: Another version answers, or none.
            ModelError: The version was refused, or its answer is not sane.
            ServiceError: Serving cannot be reached.
        """
        self._refused()
        total = 0.0
        for body in self._bodies():
            reply = self.client.infer(self.model, body, path_version, log=False)
            if reply.status in (404, 429) or reply.status >= 500:
                raise NotYet(reply.said)
            if not reply.ok:
                raise refused(self.where, f"must answer a smoke request, got {reply.said}")
            if reply.body.get("model_version") != self.version:
                raise NotYet(f"version {reply.body.get('model_version')} answers")
            problem = _problem(reply.body)
            if problem:
                raise refused(self.where, f"must answer with sane outputs, got {problem}")
            total += reply.ms
        return total

    def serves(self) -> str | None:
        """Return the version that answers now; None for no model, no champion or no serving process."""
        try:
            reply = self.client.ready(self.model)
        except ServiceError:
            return None
        champion = reply.body.get("champion")
        return str(champion) if champion is not None else None

    def _bodies(self) -> Sequence[Body]:
        if self.examples:
            return self.examples
        reply = self.client.example(self.model, self.version)
        if not reply.ok:
            raise NotYet(reply.said)
        return [reply.body]

    def _refused(self) -> None:
        """Raise when serving tried the version and says it never will."""
        reply = self.client.ready(self.model, self.version)
        failures = reply.body.get("failures")
        failure = failures.get(self.version) if isinstance(failures, dict) else None
        if isinstance(failure, dict) and failure.get("permanent"):
            raise refused(self.where, f"must be loadable by serving, got: {failure.get('error')}")


def refused(where: str, rule: str) -> ModelError:
    """Return the error of a version that cannot go into service, however often it is tried."""
    return ModelError(where, rule, "Train and register it again; the champion stays.")


def _problem(body: Mapping[str, Any]) -> str | None:
    """Return what is wrong with an infer answer; None for a sane one."""
    outputs = body.get("outputs")
    tensors = {t.get("name"): t for t in outputs} if isinstance(outputs, list) else {}
    predict = tensors.get("predict")
    values = predict.get("data") if predict else None
    if not isinstance(values, list) or not values:
        return "no predictions"
    if any(value is None or _not_finite(value) for value in values):
        return "a prediction that is missing or not finite"
    probability = tensors.get("probability")
    if probability is None:
        return None
    numbers = probability.get("data") or []
    if not numbers or any(_no_share(value) for value in numbers):
        return "a probability that is not between 0 and 1"
    width = len(numbers) // len(values)
    sums = [math.fsum(numbers[i : i + width]) for i in range(0, len(numbers), width)]
    return None if all(abs(s - 1) < 1e-6 for s in sums) else "probabilities that do not sum to 1"


def _not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _no_share(value: Any) -> bool:
    return not isinstance(value, int | float) or not 0 <= value <= 1
