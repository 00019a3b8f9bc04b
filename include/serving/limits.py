"""What requests may take, and the count of those that are under way.

Owns the answer to too many: 429 where one model has more than its share, 503 where the process is full.
"""

from __future__ import annotations

from dataclasses import dataclass

from include.serving.rejection import RequestError


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may take.

    Args:
        body_bytes: Largest body.
        rows: Most rows in one request.
        seconds: Longest time from the whole body to the answer.
        body_seconds: Longest time for a body to arrive.
        arriving: Most bodies that have not arrived; with one more, the one that has taken longest is given up.
        arriving_bytes: Most bytes of them.
        pending: Most prediction requests whose body is there, not yet answered.
        model_pending: Most of them for one model, so that the others have room.
        pending_bytes: Most bytes of bodies that may be held at a time.
        threads: Threads that predict; 0 for one per core this process may use.
        inline_ms: Predictions expected to take no longer are made on the event loop: the way to a thread and back
            costs more than they do. Longer ones would hold up a health check.
        batch_rows: Most rows of requests that are predicted together.
        shadow_rows: Most rows waiting for a shadow's prediction.
        shadow_bytes: Most bytes that their bodies had.
    """

    body_bytes: int = 16 * 2**20
    rows: int = 10_000
    seconds: float = 30.0
    body_seconds: float = 10.0
    arriving: int = 256
    arriving_bytes: int = 128 * 2**20
    pending: int = 256
    model_pending: int = 192
    pending_bytes: int = 256 * 2**20
    threads: int = 0
    inline_ms: float = 2.0
    batch_rows: int = 256
    shadow_rows: int = 10_000
    shadow_bytes: int = 32 * 2**20


class Doors:
    """Counts the requests that are under way; all on the event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.inside = 0
        self._by_model: dict[str, int] = {}

    def enter(self, model: str) -> None:
        """Let a request in.

        Raises:
            RequestError: 429 or 503; then it must not `leave`.
        """
        limits = self._limits
        if self.inside >= limits.pending:
            raise RequestError(
                503,
                "serving",
                f"must have fewer than {limits.pending} requests waiting, got one more",
                "Try again shortly.",
            )
        here = self._by_model.get(model, 0)
        if here >= limits.model_pending:
            raise RequestError(
                429,
                f"model {model}",
                f"must have fewer than {limits.model_pending} requests waiting, got one more",
                "Try again shortly, or send fewer at a time.",
            )
        self.inside += 1
        self._by_model[model] = here + 1

    def leave(self, model: str) -> None:
        """Count a request as answered."""
        self.inside -= 1
        here = self._by_model[model] - 1
        if here:
            self._by_model[model] = here
        else:
            del self._by_model[model]


def too_late(seconds: float, started: bool) -> RequestError:
    """Return why a request gets no answer any more."""
    if started:
        return RequestError(
            504,
            "serving",
            f"must answer within {seconds:g} s, and is still computing",
            "Send fewer rows at a time.",
        )
    return RequestError(
        503,
        "serving",
        f"must begin within {seconds:g} s, and others were in the way",
        "Try again shortly.",
    )
