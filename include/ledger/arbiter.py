"""The arbiter: may a run train now? A pure function over what is known, so that every rule is testable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from include.spec.schema import Retrain

Trigger = Literal["schedule", "data", "manual", "api", "drift", "decay"]
BY_HAND: frozenset[str] = frozenset({"manual", "api"})
#: What the monitor asks for: such a run has a request behind it, or nothing to do.
BY_MONITOR: frozenset[str] = frozenset({"drift", "decay"})
#: Stands in `Request.run_key` where nobody answered in time.
EXPIRED = "expired"
WEEK = timedelta(days=7)
# A schedule never fires at the very same second twice, and in spring one night is an hour shorter: what is due every
# 24 h may come after 22:59:59.
_SLACK = timedelta(minutes=65)


@dataclass(frozen=True)
class Request:
    """Somebody's wish to retrain.

    Attributes:
        run_key: The run that answered it, `EXPIRED`, or None while it waits.
        as_of: The time it was filed as of, ISO in UTC; None for a wish of the present.
    """

    id: int
    model: str
    source: str
    reason: str
    key: str
    at: str
    run_key: str | None = None
    as_of: str | None = None

    def concerns(self, as_of: str | None) -> bool:
        """Tell whether a run may answer it: a replay those of its own past, and every other run those of the present.

        Args:
            as_of: The time the run acts as if it were, ISO in UTC; None for the present.
        """
        if as_of is None or self.as_of is None:
            return as_of is self.as_of
        return self.as_of <= as_of


@dataclass(frozen=True)
class Decision:
    """The arbiter's recorded answer."""

    verdict: Literal["RETRAIN", "SKIP"]
    reason: str
    request_ids: tuple[int, ...] = ()


def is_by_hand(trigger: str, pending: Sequence[Request]) -> bool:
    """Return whether a person or a program asked outright: by the trigger, or by a request that waits."""
    return trigger in BY_HAND or any(request.source in BY_HAND for request in pending)


def arbitrate(
    *,
    trigger: str,
    pending: Sequence[Request],
    retrains: Sequence[datetime],
    frozen: str | None,
    retrain: Retrain,
    now: datetime,
    force: bool = False,
    answered: str | None = None,
) -> Decision:
    """Decide about one run.

    Args:
        trigger: What started it.
        pending: Requests nobody answered yet; a RETRAIN answers all of them, a SKIP leaves them waiting.
        retrains: When the model was last retrained without being asked by hand, in any order, aware.
        frozen: Why the model is frozen; None when it is not.
        retrain: The spec's section: cool-down and weekly budget. They bind only what nobody asked for by hand.
        now: The time, aware.
        force: Go through a freeze.
        answered: The run that answered the monitor's newest request that waits no longer, or `EXPIRED`; None
            where there was none.
    """
    if frozen is not None and not force:
        return Decision("SKIP", f"the model is frozen: {frozen}")
    merged = tuple(request.id for request in pending)
    if force or is_by_hand(trigger, pending):
        return Decision("RETRAIN", _because(trigger, pending), merged)
    if trigger in BY_MONITOR and not pending:
        return Decision("SKIP", _nothing_waits(answered))
    past = [at for at in retrains if at <= now]
    last = max(past, default=None)
    if last is not None and now - last < _nearly(retrain.cooldown):
        until = last + retrain.cooldown
        return Decision("SKIP", f"cooling down until {until.isoformat(timespec='seconds')}")
    this_week = sum(now - at < _nearly(WEEK) for at in past)
    if this_week >= retrain.max_per_week:
        return Decision(
            "SKIP", f"the weekly budget is used up: {this_week} of {retrain.max_per_week} retrains"
        )
    return Decision("RETRAIN", _because(trigger, pending), merged)


def _nearly(span: timedelta) -> timedelta:
    """Return a span less the slack; of a short one at most a tenth is let off."""
    return span - min(_SLACK, span / 10)


def _nothing_waits(answered: str | None) -> str:
    if answered is None:
        return "no request of the monitor waits for an answer"
    if answered == EXPIRED:
        return "the monitor's request expired before anybody answered it"
    return f"the monitor's request was answered already by {answered}"


def _because(trigger: str, pending: Sequence[Request]) -> str:
    reasons = [f"{request.source}: {request.reason}" for request in pending[:5]]
    if len(pending) > 5:
        reasons.append(f"and {len(pending) - 5} more")
    return "; ".join([f"triggered by {trigger}", *reasons])
