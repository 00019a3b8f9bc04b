"""MLflow's model registry from any Dag: register, move aliases, promote, roll back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from evergreen.operators.mlflow_base import (
    MlflowOperator,
    required,
    required_version,
    version_text,
    work_key,
)
from evergreen.operators.stage import run_key, utc_now
from include.errors import ConflictError, DataError
from include.settings import get_settings

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.ledger.chain import Event
    from include.ledger.ledger import Ledger


class MlflowRegisterModelOperator(MlflowOperator):
    """Makes a logged model a version, once per key. Returns the version's number as text.

    Args:
        name: Name of the registered model; made when missing.
        source: A logged model, `models:/<model id>`, or a model's folder in a run, `runs:/<run id>/<path>`.
        run_id: The run that made it; None to take it from the source.
        key: Idempotency key; None is the source itself: a model is registered once, whoever does it.
        tags: Tags of the version, under exactly these names.
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
        run_id: str | None = None,
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
        from include.registry.external import register_source

        version = register_source(
            self.registry,
            self.name,
            required("source", self.source),
            run_id=self.run_id,
            key=self.key,
            tags=self.tags,
        )
        if version.run_id:
            self.link_run(context, version.run_id)
        self.log.info("%s version %s is %s", self.name, version.version, self.source)
        return version.version


class MlflowSetAliasOperator(MlflowOperator):
    """Points an alias at a version if it points where it is expected to.

    MLflow overwrites silently; this checks first and fails on a conflict. `champion`, `previous_champion` and
    `challenger` belong to the ledger: `MlflowPromoteOperator` and `MlflowRollbackOperator` move them.

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

    def work(self, context: Context) -> None:
        """Move the alias."""
        from include.registry.moves import CHALLENGER, CHAMPION, PREVIOUS

        if self.alias in (CHALLENGER, CHAMPION, PREVIOUS):
            raise DataError(
                "alias",
                f"must not be {self.alias}, which moves with a row in the ledger only",
                "Use MlflowPromoteOperator or MlflowRollbackOperator, or another alias.",
            )
        version, expected = version_text(self.version), version_text(self.expected)
        self.link_version(context, self.name, version)
        self.registry.set_alias(self.name, self.alias, version, expected=expected)


class _MoveOperator(MlflowOperator):
    """What promotion and rollback share: the ledger in which they are written."""

    @cached_property
    def ledger(self) -> Ledger:
        """The record of every move."""
        from include.ledger.ledger import Ledger

        return Ledger(get_settings().ledger_dsn)

    def champion_after(self, name: str, move: Event) -> str:
        """Return the champion that a move made.

        Raises:
            ConflictError: It was made on an earlier try, and somebody moved since.
        """
        from include.registry.moves import CHAMPION

        wanted = str(move.payload["to"])
        found = self.registry.aliases(name).get(CHAMPION)
        if found != wanted:
            raise ConflictError(
                f"MLflow model {name!r}",
                f"champion must still be version {wanted}, got {found}: somebody moved it since "
                f"event {move.seq}",
                "Nothing was changed; start a new Dag run if this one's decision still holds.",
            )
        return wanted


class MlflowPromoteOperator(_MoveOperator):
    """Makes a version champion and the champion `previous_champion`, with a row in the ledger.

    Returns the version. A model that has versions of Evergreen's own takes only such: serving loads no others.

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

        version = required_version(self.version)
        self.link_version(context, self.name, version)
        move = promote(
            self.registry,
            self.ledger,
            self.name,
            version,
            expected=version_text(self.expected),
            key=f"promote/{work_key(context)}/{version}",
            reason=self.reason,
            actor=run_key(context),
            now=utc_now(),
        )
        return self.champion_after(self.name, move)


class MlflowRollbackOperator(_MoveOperator):
    """Makes an earlier version champion again, with a row in the ledger. Returns that version.

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

    def work(self, context: Context) -> str:
        """Roll back."""
        from include.registry.promotion import rollback

        to = version_text(self.to)
        move = rollback(
            self.registry,
            self.ledger,
            self.name,
            to=to,
            key=f"rollback/{work_key(context)}/{to or 'previous'}",
            reason=self.reason,
            actor=run_key(context),
            now=utc_now(),
        )
        champion = self.champion_after(self.name, move)
        self.link_version(context, self.name, champion)
        return champion
