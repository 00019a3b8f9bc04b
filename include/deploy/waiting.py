"""Waiting for serving to come round: look, pause, look again, and say at the end what was seen last."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from include.errors import ServiceError

T = TypeVar("T")


class NotYet(Exception):  # noqa: N818 - no error: a state that is waited out
    """Serving is not there yet; carries what it said."""


@dataclass(frozen=True)
class Waiting:
    """How long and how often is looked.

    Args:
        where: What is waited for, as errors name it.
        timeout: Of each wait.
        poll_seconds: Pause between two looks.
        clock: Monotonic seconds.
        sleep: Waits that many seconds.
    """

    where: str
    timeout: timedelta
    poll_seconds: float = 0.5
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def until(self, attempt: Callable[[], T], goal: str) -> T:
        """Return what `attempt` returns once it raises neither NotYet nor ServiceError.

        Args:
            attempt: One look.
            goal: What must be reached, as in "answer as champion".

        Raises:
            ServiceError: It was not reached in time; says what was seen last.
        """
        deadline = self.clock() + self.timeout.total_seconds()
        while True:
            try:
                return attempt()
            except (NotYet, ServiceError) as error:
                last = str(error)
            if self.clock() >= deadline:
                raise ServiceError(
                    self.where,
                    f"must {goal} within {self.timeout.total_seconds():g} s, serving answered last: {last}",
                    "Look at the serving log; the task may be run again.",
                )
            self.sleep(self.poll_seconds)
