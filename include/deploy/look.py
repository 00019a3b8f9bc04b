"""One look at a rollout's step: the evidence, or that it cannot be read, and what the judge says to it."""

from __future__ import annotations

from datetime import datetime

from include.deploy.evidence import gather, unreadable
from include.deploy.judge import Judgement, judge
from include.errors import DataError, ServiceError
from include.spec.schema import Spec
from include.store.files import Store


def look(
    spec: Spec,
    store: Store,
    *,
    mode: str,
    champion: str,
    challenger: str,
    since: datetime,
    now: datetime,
    decides: bool,
) -> Judgement:
    """Judge a step on what the prediction log holds now.

    Args:
        spec: The model's spec.
        store: Where the log is.
        mode: canary, shadow or ab.
        champion: Version.
        challenger: Version.
        since: When the step began, aware.
        now: The time, aware.
        decides: Live labels must say who is better.
    """
    try:
        evidence = gather(
            spec, store, mode=mode, champion=champion, challenger=challenger, since=since
        )
    except (ServiceError, DataError) as error:
        evidence = unreadable(str(error))
    return judge(evidence, spec.deploy, spec.primary, age=now - since, decides=decides)
