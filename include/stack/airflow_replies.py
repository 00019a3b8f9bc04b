"""What Airflow's answers mean: refusals as our errors, logs as their last error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from include.errors import ConflictError, EvergreenError, ServiceError, SpecError

#: SQLite waits five seconds for a lock.
LOCK_SECONDS = 4.5


def failure(answer: httpx.Response, what: str, url: str) -> EvergreenError:
    """Return the error that an answer which is none means to the caller.

    Args:
        answer: Airflow's answer, with a status of 400 or more.
        what: What was asked for, to begin the error with.
        url: Base URL of Airflow.
    """
    detail = _detail(answer)
    status = answer.status_code
    if status == 409:
        return ConflictError(
            what, f"must be new, got one that exists ({detail})", "Choose another id."
        )
    if status == 404:
        return SpecError(what, f"must exist, got {detail}", "See the Dags in Airflow's UI.")
    if status in {400, 422}:
        return SpecError(what, f"must be accepted by Airflow, got {detail}", "Correct the request.")
    if status in {401, 403}:
        return ServiceError(
            what, f"must be allowed, got status {status} ({detail})", "Use another login."
        )
    return ServiceError(
        what, f"must work, got status {status} from {url} ({detail})", "See Airflow's log."
    )


def database_was_busy(answer: httpx.Response) -> bool:
    """Whether Airflow waited in vain for SQLite's lock; nothing was recorded then.

    Other faults of its database read the same, but come at once, and something may have been recorded.
    """
    if answer.status_code != 500 or _detail(answer) != "Database error":
        return False
    return answer.elapsed.total_seconds() >= LOCK_SECONDS


def _detail(answer: httpx.Response) -> str:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase or "no reason"
    if isinstance(detail, dict):
        detail = detail.get("reason") or detail.get("message") or str(detail)
    if isinstance(detail, list):  # FastAPI's form
        detail = "; ".join(
            f"{'.'.join(map(str, item.get('loc', [])))}: {item.get('msg')}" for item in detail
        )
    # jsonschema repeats schema and instance after the first line.
    lines: list[str] = str(detail).strip().splitlines()
    return lines[0].rstrip(".") if lines else "no reason"


def last_error(content: Sequence[Any]) -> str:
    """Return the last error of a task's log, as exception and message; empty when there is none.

    Args:
        content: The structured lines of the log.
    """
    for entry in reversed(content):
        if not isinstance(entry, dict) or str(entry.get("level", "")).lower() not in {
            "error",
            "critical",
        }:
            continue
        details = entry.get("error_detail") or []
        if details and details[0].get("exc_value"):
            return raised(details[0])
        return str(entry.get("event", ""))
    return ""


def raised(detail: Mapping[str, Any]) -> str:
    """Return an exception as a log line tells it: its kind and message.

    One of ours says it all by itself; the name of Airflow's exception around it is left out.

    Args:
        detail: Has `exc_type` and `exc_value`.
    """
    kind, said = str(detail["exc_type"]), str(detail["exc_value"])
    return said if kind == "AirflowFailException" else f"{kind}: {said}"
