"""The only task of a Dag whose spec is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import Context


class ConfigErrorOperator(BaseOperator):
    """Fails with what is wrong with a spec.

    Args:
        message: The problems, one a line.
    """

    def __init__(self, *, message: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.message = message

    def execute(self, context: Context) -> None:  # noqa: ARG002  # Airflow's signature
        """Fail."""
        raise AirflowFailException(self.message)
