"""MLflow's model registry from any Dag: register, move aliases, promote, roll back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from evergreen.operators.mlflow_base import MlflowOperator
from evergreen.operators.stage import run_key, utc_now
from include.settings import get_settings

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.ledger.ledger import Ledger


class MlflowRegisterModelOperator(MlflowOperator):
    """Makes a logged model a version, once per key. Returns the version's number as text.

    Args:
        name: Name of the registered model; made when missing.
        source: A logged model, `models:/<model id>`, or any artifact URI MLflow can register.
        run_id: The run that produced it.
        key: Idempotency key; None is this Dag run and task, so a retry finds its version.
        tags: Tags of the version.
    """

    template_fields: Sequence[str] = (
        *MlflowOperator.template_fields,
        "name",
        "source",
        "run_id",
        "key",
        "tags",
    )

    def __init__(
        self,
        *,
        name: str,
        source: str,
        run_id: str,
        key: str | None = None,
        tags: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.source = source
        self.run_id = run_id
        self.key = key
        self.tags = tags

    def work(self, context: Context) -> str:
        """Find or create the version."""
        version = self.registry.register_source(
            self.name,
            self.source,
            run_id=self.run_id,
            key=self.key or f"{run_key(context)}/{self.task_id}",
            tags=self.tags or {},
        )
        self.link_run(context, self.run_id)
        return version.version


class MlflowSetAliasOperator(MlflowOperator):
    """Points an alias at a version if it points where it is expected to.

    MLflow overwrites silently; this checks first and fails on a conflict.

    Args:
        name: Name of the registered model.
        alias: The alias.
        version: Its new target; None removes the alias.
        expected: The version it points at now; None for no such alias.
    """

    template_fields: Sequence[str] = (
        *MlflowOperator.template_fields,
        "name",
        "alias",
        "version",
        "expected",
    )

    def __init__(
        self, *, name: str, alias: str, version: str | None, expected: str | None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.alias = alias
        self.version = version
        self.expected = expected

    def work(self, context: Context) -> None:  # noqa: ARG002  # Airflow's signature
        """Move the alias."""
        # Native rendering of templates may turn a version into a number.
        version = None if self.version is None else str(self.version)
        expected = None if self.expected is None else str(self.expected)
        self.registry.set_alias(self.name, self.alias, version, expected=expected)


class _MoveOperator(MlflowOperator):
    """What promotion and rollback share: the ledger in which they are written."""

    @cached_property
    def ledger(self) -> Ledger:
        """The record of every move."""
        from include.ledger.ledger import Ledger

        return Ledger(get_settings().ledger_dsn)


class MlflowPromoteOperator(_MoveOperator):
    """Makes a version champion and the champion `previous_champion`, with a row in the ledger.

    Args:
        name: Name of the registered model.
        version: The new champion.
        expected: The champion the decision was made against; None for no champion.
        reason: Why, for the ledger.
    """

    template_fields: Sequence[str] = (
        *MlflowOperator.template_fields,
        "name",
        "version",
        "expected",
        "reason",
    )

    def __init__(
        self, *, name: str, version: str, expected: str | None, reason: str, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.version = version
        self.expected = expected
        self.reason = reason

    def work(self, context: Context) -> str:
        """Promote."""
        from include.registry.promotion import promote

        promote(
            self.registry,
            self.ledger,
            self.name,
            str(self.version),
            expected=None if self.expected is None else str(self.expected),
            key=f"promote/{run_key(context)}/{self.task_id}",
            reason=self.reason,
            actor=run_key(context),
            now=utc_now(),
        )
        return str(self.version)


class MlflowRollbackOperator(_MoveOperator):
    """Makes an earlier version champion again, with a row in the ledger.

    Args:
        name: Name of the registered model.
        reason: Why, for the ledger.
        to: The version; None is `previous_champion`.
    """

    template_fields: Sequence[str] = (*MlflowOperator.template_fields, "name", "reason", "to")

    def __init__(self, *, name: str, reason: str, to: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.reason = reason
        self.to = to

    def work(self, context: Context) -> None:
        """Roll back."""
        from include.registry.promotion import rollback

        rollback(
            self.registry,
            self.ledger,
            self.name,
            to=None if self.to is None else str(self.to),
            key=f"rollback/{run_key(context)}/{self.task_id}",
            reason=self.reason,
            actor=run_key(context),
            now=utc_now(),
        )
