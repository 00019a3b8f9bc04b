"""Which failures are worth another try."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowRuntimeError

from include.errors import ServiceError


def retry_arguments() -> dict[str, Any]:
    """Return the task arguments: transient faults are retried with growing pauses, the rest fails at once.

    A process that is killed raises nothing; Airflow then retries by `retries` alone.
    """
    return {
        "retries": 3,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=5),
        "retry_policy": _policy(ServiceError, ConnectionError, TimeoutError),
    }


def trigger_retry_policy() -> ExceptionRetryPolicy:
    """Return the retry policy of a task that starts another Dag: what Airflow's API says may pass too."""
    return _policy(ServiceError, ConnectionError, TimeoutError, AirflowRuntimeError)


def _policy(*transient: type[Exception]) -> ExceptionRetryPolicy:
    return ExceptionRetryPolicy(
        rules=[
            RetryRule(exception=list(transient), action=RetryAction.DEFAULT),
            RetryRule(exception=Exception, action=RetryAction.FAIL, reason="not a transient fault"),
        ]
    )
