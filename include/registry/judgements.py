"""What the judge said at the steps of a rollout, in the ledger: without its GO nothing is promoted."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from include.registry.rollouts import Standing

if TYPE_CHECKING:
    from include.ledger.ledger import Ledger

JUDGEMENT = "judgement"


def record(
    ledger: Ledger,
    name: str,
    standing: Standing,
    said: dict[str, Any],
    *,
    decides: bool,
    actor: str,
    now: datetime,
) -> None:
    """Write down what the judge said, once for each beginning of a step.

    Args:
        ledger: The ledger.
        name: The model.
        standing: The rollout at the step that was judged.
        said: `verdict`, `reason` and `numbers`.
        decides: It was asked who is better, not only whether anything is wrong.
        actor: Who.
        now: The time, aware.
    """
    rollout, asked = standing.rollout, "decide" if decides else "step"
    key = f"{JUDGEMENT}/{rollout.id}/{standing.begun}/{asked}_{standing.step}/{said['verdict']}"
    payload = {
        "rollout": rollout.id,
        "version": rollout.version,
        "step": standing.step,
        "share": rollout.share,
        "decides": decides,
        **said,
    }
    ledger.record(name, JUDGEMENT, key, payload, actor, now)


def let_pass(
    ledger: Ledger, name: str, standing: Standing, step: int, *, decides: bool = False
) -> bool:
    """Tell whether the judge said GO to a step since the rollout began.

    Args:
        ledger: The ledger.
        name: The model.
        standing: The rollout.
        step: Place of the step, from 0.
        decides: It was asked who is better.
    """
    wanted = (standing.rollout.id, step, decides, "GO")
    return any(
        wanted == (said["rollout"], said["step"], said.get("decides", False), said["verdict"])
        for said, seq in ((e.payload, e.seq) for e in ledger.events(name, JUDGEMENT))
        if seq > standing.begun
    )
