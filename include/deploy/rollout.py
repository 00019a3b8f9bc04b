"""Puts a challenger into service: it must answer, is promoted, and must really be the one that answers.

Owns the order (smoke, promote, confirm) and the way back. Who promotes is passed in, so this room knows neither
registry nor ledger. Run again at any point, it carries on from where serving stands.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from include.deploy.client import ServingClient
from include.errors import EvergreenError, ModelError, ServiceError

Body = Mapping[str, Any]


@dataclass(frozen=True)
class DeployResult:
    """A finished rollout.

    Args:
        version: What serves now.
        previous: What served before; None for a first model, equal to `version` when nothing had to move.
        smoke_ms: Milliseconds the challenger took for the smoke request.
        seconds: The whole rollout.
    """

    version: str
    previous: str | None
    smoke_ms: float
    seconds: float


class _NotYet(Exception):  # noqa: N818 - no error: a state that is waited out
    """Serving is not there yet; carries what it answered."""


@dataclass(frozen=True)
class _Rollout:
    client: ServingClient
    model: str
    version: str
    examples: Sequence[Body] | None
    timeout: timedelta
    poll: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]

    @property
    def where(self) -> str:
        return f"model {self.model} version {self.version}"

    def wait(self, attempt: Callable[[], float], goal: str) -> float:
        """Return what `attempt` returns once it no longer raises _NotYet or ServiceError."""
        deadline = self.clock() + self.timeout.total_seconds()
        while True:
            try:
                return attempt()
            except (_NotYet, ServiceError) as error:
                last = str(error)
            if self.clock() >= deadline:
                raise ServiceError(
                    self.where,
                    f"must {goal} within {self.timeout.total_seconds():g} s, serving answered last: {last}",
                    "Look at the serving log; the task may be run again.",
                )
            self.sleep(self.poll)

    def smoke(self, path_version: str | None) -> float:
        """Ask once at the version's or (None) the model's own path; return the milliseconds it took.

        Raises:
            _NotYet: Another version answers, or none.
            ModelError: The version was refused, or its answer is not sane.
        """
        self._refused()
        total = 0.0
        for body in self._bodies():
            reply = self.client.infer(self.model, body, path_version, log=False)
            if reply.status in (404, 503):
                raise _NotYet(reply.said)
            if not reply.ok and reply.status >= 500:
                raise _NotYet(reply.said)
            if not reply.ok:
                raise self._wrong(f"must answer a smoke request, got {reply.said}")
            if reply.body.get("model_version") != self.version:
                raise _NotYet(f"version {reply.body.get('model_version')} answers")
            problem = _problem(reply.body)
            if problem:
                raise self._wrong(f"must answer with sane outputs, got {problem}")
            total += reply.ms
        return total

    def _bodies(self) -> Sequence[Body]:
        if self.examples:
            return self.examples
        reply = self.client.example(self.model, self.version)
        if not reply.ok:
            raise _NotYet(reply.said)
        return [reply.body]

    def _refused(self) -> None:
        """Raise when serving tried the version and says it never will."""
        reply = self.client.ready(self.model, self.version)
        failures = reply.body.get("failures")
        failure = failures.get(self.version) if isinstance(failures, dict) else None
        if isinstance(failure, dict) and failure.get("permanent"):
            raise self._wrong(f"must be loadable by serving, got: {failure.get('error')}")

    def _wrong(self, rule: str) -> ModelError:
        return ModelError(self.where, rule, "Train and register it again; the champion stays.")

    def serves(self) -> str | None:
        """Return the version that answers now; None for no model, no champion or no serving process."""
        try:
            reply = self.client.ready(self.model)
        except ServiceError:
            return None
        champion = reply.body.get("champion")
        return str(champion) if champion is not None else None


def deploy(
    client: ServingClient,
    *,
    model: str,
    version: str,
    promote: Callable[[], object],
    undo: Callable[[], object],
    timeout: timedelta,
    example_inputs: Sequence[Body] | None = None,
    poll_seconds: float = 0.5,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> DeployResult:
    """Make a version the one that answers, or leave the champion as it was.

    Args:
        client: The serving process.
        model: Name.
        version: The challenger.
        promote: Moves the champion alias, and may be repeated; called once the challenger answered, also where
            it serves already.
        undo: Takes that back; called only after `promote` returned and serving then failed to follow.
        timeout: For each of the two waits: until the challenger answers, until it is the champion.
        example_inputs: Infer requests for the smoke test; None for the model's own stored example.
        poll_seconds: Pause between two looks.
        clock: Monotonic seconds.
        sleep: Waits that many seconds.

    Raises:
        ModelError: Serving refuses the version or its answers are not sane; trying again is pointless.
        ServiceError: Serving did not come round in time; says what it answered last.
    """
    rollout = _Rollout(client, model, version, example_inputs, timeout, poll_seconds, clock, sleep)
    started = clock()
    previous = rollout.serves()
    if previous == version:
        smoke_ms = rollout.wait(lambda: rollout.smoke(None), "answer as champion")
        promote()  # a killed attempt may have moved the alias and nothing else
        return DeployResult(version, previous, smoke_ms, clock() - started)
    smoke_ms = rollout.wait(lambda: rollout.smoke(version), "answer a smoke request")
    previous = rollout.serves()
    promote()
    try:
        rollout.wait(lambda: rollout.smoke(None), "answer as champion")
    except EvergreenError as error:
        _take_back(undo, rollout.where, error)
        raise
    return DeployResult(version, previous, smoke_ms, clock() - started)


def _take_back(undo: Callable[[], object], where: str, cause: EvergreenError) -> None:
    try:
        undo()
    except EvergreenError as error:
        raise type(cause)(
            where,
            f"{cause.rule}; and the promotion could not be taken back: {error}",
            "Check the champion alias by hand.",
        ) from cause


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
