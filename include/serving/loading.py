"""Loads versions in a thread of its own, and remembers which of them failed and when to try again.

Owns what stands between a version in the registry and an engine that may answer: download, digest, trusted types,
warm-up, self-test on the stored example.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from include.errors import EvergreenError, ModelError, ServiceError
from include.serving.cache import Cache
from include.serving.engine import Engine, LoadedModel, build_engine
from include.serving.served import Failure, Wanted
from include.serving.telemetry import Metrics, log_event

_RETRY_SECONDS = {True: 2.0, False: 30.0}  # first pause after a transient / a permanent failure
_RETRY_LIMIT = 300.0
_REMEMBER_PAUSE = 10.0  # seconds until a version that the disk did not take is offered again

Key = tuple[str, str]  # model, version


class ModelSource(Protocol):
    """What serving needs of a registry; calls may block and come from worker threads."""

    def models(self) -> Mapping[str, Wanted]:
        """Return aliases and rollout of every model.

        Raises:
            ServiceError: The registry does not answer.
        """

    def load(self, name: str, version: str, cache: Path) -> LoadedModel:
        """Return a version, downloaded below `cache` and verified.

        Raises:
            ModelError: It is not to be trusted, or cannot be loaded.
            ServiceError: The registry does not answer.
        """


class Loader:
    """Loads what the follower asks for; all methods are for the follower's thread.

    Args:
        source: The registry.
        cache: The models on disk.
        metrics: Where loads are counted.
        wake: Called when a load ends, from another thread.
        keep: Returns the versions that must stay on disk; called from another thread.
    """

    def __init__(
        self,
        source: ModelSource,
        cache: Cache,
        metrics: Metrics,
        wake: Callable[[], None],
        keep: Callable[[], Collection[Key]],
    ) -> None:
        self.failures: dict[str, dict[str, Failure]] = {}
        self.from_disk = True  # look there first: the registry does not answer
        self.on_refused: Callable[[str, str, str], None] = _nobody
        self._source, self._cache, self._metrics = source, cache, metrics
        self._wake, self._keep = wake, keep
        self._loads: dict[Key, Future[Engine]] = {}
        self._unremembered: dict[Key, LoadedModel] = {}  # changed in the loader's thread only
        self._next_try = 0.0
        self._pool = ThreadPoolExecutor(1, "model-load")

    def close(self) -> None:
        """Stop; does not wait for a hanging registry."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def under_way(self) -> int:
        """How many versions are being loaded, or wait for that."""
        return len(self._loads)

    def failed(self, name: str, version: str | None) -> bool:
        """Whether the last attempt at a version failed."""
        return version in self.failures.get(name, ())

    def begin(self, keys: Iterable[Key], now: float) -> None:
        """Start to load, in this order, what is not on its way and whose pause after a failure is over."""
        for key in keys:
            name, version = key
            failure = self.failures.get(name, {}).get(version)
            if key not in self._loads and (failure is None or now >= failure.retry_at):
                load = self._pool.submit(self._load, name, version)
                load.add_done_callback(lambda _: self._wake())
                self._loads[key] = load

    def collect(self, now: float) -> list[tuple[Key, Engine | None]]:
        """Return what ended since the last call; None for what failed."""
        ended: list[tuple[Key, Engine | None]] = []
        for key in [key for key, load in self._loads.items() if load.done()]:
            load = self._loads.pop(key)
            name, version = key
            error = load.exception()
            self._metrics.loads.labels(name, "failed" if error else "loaded").inc()
            if error is not None:
                self._note(key, error, now)
                ended.append((key, None))
                continue
            engine = load.result()
            self.forget(name, [version])
            log_event("loaded", model=name, version=version, one_row_ms=engine.warm_ms)
            ended.append((key, engine))
        return ended

    def forget(self, name: str, versions: Iterable[str]) -> None:
        """Drop the failures of these versions."""
        gone = set(versions)
        failures = {v: f for v, f in self.failures.get(name, {}).items() if v not in gone}
        if failures:
            self.failures[name] = failures
        else:
            self.failures.pop(name, None)

    def _note(self, key: Key, error: BaseException, now: float) -> None:
        name, version = key
        before = self.failures.get(name, {}).get(version)
        transient = isinstance(error, EvergreenError) and error.transient
        attempts = before.attempts + 1 if before else 1
        pause = min(_RETRY_SECONDS[transient] * 2 ** min(attempts - 1, 16), _RETRY_LIMIT)
        failure = Failure(sentence(error), not transient, attempts, now + pause)
        self.failures[name] = {**self.failures.get(name, {}), version: failure}
        if before is not None and before.error == failure.error:
            return
        log_event(
            "load_failed",
            level=logging.ERROR,
            model=name,
            version=version,
            error=failure.error,
            permanent=failure.permanent,
        )
        if failure.permanent:
            self.on_refused(name, version, failure.error)

    def remember_again(self, now: float) -> None:
        """Offer the disk once more, after a pause, what it did not take: a restart may need it."""
        if not self._unremembered:
            self._next_try = now + _REMEMBER_PAUSE
        elif now >= self._next_try:
            self._next_try = now + _REMEMBER_PAUSE
            self._pool.submit(self._remember_kept)

    # --- in the loader's thread -----------------------------------------------------------------------------

    def _load(self, name: str, version: str) -> Engine:
        where = f"model {name} version {version}"
        try:
            model = self._fetch(name, version)
            engine = build_engine(model)
        except EvergreenError:
            raise
        # A damaged artifact may fail anywhere, and the version before must live.
        except Exception as error:
            raise ModelError(
                where,
                f"must be loadable, got {type(error).__name__}: {error}",
                "Look at the serving log, then train and register it again.",
            ) from error
        self._remember(model)
        return engine

    def _fetch(self, name: str, version: str) -> LoadedModel:
        if self.from_disk:
            stored = self._cache.restore(name, version)
            if stored is not None:
                return stored
        try:
            return self._source.load(name, version, self._cache.root)
        except ServiceError:
            stored = self._cache.restore(name, version)
            if stored is None:
                raise
            return stored

    def _remember(self, model: LoadedModel) -> None:
        key = (model.name, model.version)
        try:
            self._cache.remember(model)
            self._unremembered.pop(key, None)
            self._cache.trim(self._keep)
        except OSError as error:  # it answers all the same
            self._unremembered[key] = model
            log_event("cache_not_written", level=logging.ERROR, error=str(error))
        except ValueError as error:  # it lies elsewhere, and always will
            log_event("cache_not_written", level=logging.ERROR, error=str(error))

    def _remember_kept(self) -> None:
        needed = self._keep()
        for key, model in list(self._unremembered.items()):
            if key in needed:
                self._remember(model)
            else:
                del self._unremembered[key]


def sentence(error: BaseException) -> str:
    """Return an error as one sentence."""
    return str(error) if isinstance(error, EvergreenError) else f"{type(error).__name__}: {error}"


def _nobody(_name: str, _version: str, _error: str) -> None:
    """Tell nobody."""
