"""What serving makes of a version once, so that no request has to.

Owns the life of that: it goes with the engine, which it does not keep in memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

from include.serving.batching import Batcher, pays
from include.serving.compiled import Compiled
from include.serving.engine import Engine
from include.serving.log_rows import Author


class Prepared:
    """Ready-made parts for the requests to one version.

    Args:
        engine: The version.
        batcher: Joins its requests; None where that does not pay.
    """

    __slots__ = ("author", "batcher", "compiled", "engine", "first_ms", "name", "row_ms", "schema", "version")  # fmt: skip

    def __init__(self, engine: Engine, batcher: Batcher | None) -> None:
        self.engine = weakref.ref(engine)
        self.batcher = batcher
        self.name, self.version = engine.model.name, engine.version
        self.schema = engine.schema
        self.compiled = Compiled(engine.schema, engine.outputs)
        self.author = Author.of(engine)
        self.row_ms = engine.row_ms
        self.first_ms = engine.warm_ms - self.row_ms

    def expected_ms(self, rows: int) -> float:
        """Return how long a prediction takes when nothing is in its way, by what was measured at loading."""
        return self.first_ms + rows * self.row_ms


class Shelf:
    """Keeps what was prepared, for as long as its engine lives.

    Args:
        batcher: Makes one for a model.
    """

    def __init__(self, batcher: Callable[[str], Batcher]) -> None:
        self._batcher = batcher
        self._prepared: dict[tuple[str, str], Prepared] = {}

    def of(self, engine: Engine) -> Prepared:
        """Return what was prepared for an engine."""
        key = (engine.model.name, engine.version)
        found = self._prepared.get(key)
        if found is None or found.engine() is not engine:
            for gone in [k for k, each in self._prepared.items() if each.engine() is None]:
                del self._prepared[gone]
            batcher = self._batcher(engine.model.name) if pays(engine) else None
            found = self._prepared[key] = Prepared(engine, batcher)
        return found
