"""The parts `evergreen drift` works with; each is opened when first used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from include.ledger.arbiter import Decision
    from include.ledger.ledger import Ledger
    from include.monitor.decide import Wish
    from include.monitor.reference import Reference
    from include.registry.gateway import Registry
    from include.registry.package import Version
    from include.settings import Settings
    from include.spec.schema import Spec
    from include.store.files import Store


@dataclass
class Bench:
    """The parts a pass works with.

    Attributes:
        spec: The model's spec as it is now.
        settings: This process's settings.
        registry: The model registry.
        champion: The version looked at.
    """

    spec: Spec
    settings: Settings
    registry: Registry
    champion: Version

    @cached_property
    def store(self) -> Store:
        """Where log, labels and snapshots are."""
        from include.store.files import open_store

        return open_store(self.settings.store_uri, cache=self.settings.home / "cache")

    @cached_property
    def ledger(self) -> Ledger:
        """The record; only read here."""
        from include.ledger.ledger import Ledger

        return Ledger(self.settings.ledger_dsn)

    def preview(self, wish: Wish, now: datetime, as_of: datetime | None = None) -> Decision:
        """Return what the arbiter would answer to a wish filed now, or by a replay as of another time."""
        retrain, model = self.spec.retrain, self.spec.model
        return self.ledger.would(model, wish.source, retrain, now, wish=wish.reason, as_of=as_of)

    def reference(self, version: str) -> Reference:
        """Return what a version learned from; made once and kept."""
        from include.monitor.opening import open_reference
        from include.registry.lookup import choose_version

        found = self.champion
        if version != found.version:
            found = choose_version(self.registry, self.spec.model, version)
        return open_reference(self.spec, self.store, self.registry, found, self.settings.home)

    def bring_labels(self, now: datetime, start: datetime | None = None) -> None:
        """Read the labels that are due from the spec's source, where it needs no Airflow connection."""
        from include.ingest.labels import ingest_labels
        from include.monitor.windows import latest_window

        labels, length = self.spec.monitor.labels, self.spec.monitor.window
        if labels is None or labels.source is None or getattr(labels.source, "connection", None):
            return
        first = start or latest_window(now, length, delay=labels.delay).start
        ingest_labels(self.spec, self.store, first, now, now=datetime.now(UTC))


def open_bench(name: str) -> Bench:
    """Find the model and its champion, else its newest version.

    Raises:
        SpecError: There is no such model.
        ModelError: It has no version yet.
        ServiceError: MLflow is away.
    """
    from include.registry.gateway import Registry
    from include.registry.lookup import choose_version
    from include.settings import get_settings
    from include.spec.loader import find_spec, load_spec
    from include.stack.status import running_settings

    settings = running_settings(get_settings())
    spec = load_spec(find_spec(name, settings), settings)
    registry = Registry(settings.mlflow)
    return Bench(spec, settings, registry, choose_version(registry, name))
