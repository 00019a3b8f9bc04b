"""Follows the registry's aliases and rollouts and keeps the table of engines that answer.

Owns the life of a version inside serving: seen at the registry, loaded, verified, warmed up, self-tested on its
stored example, and only then put into the table, by one assignment. Requests take the table once and keep what
they took, so an old version drains by itself. Whatever fails leaves the table as it is.

One thread decides (`tick`); polls and loads run beside it, so neither a hanging registry nor a slow download
holds up a swap that is ready.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from include.errors import EvergreenError, ModelError, ServiceError
from include.serving.cache import Cache
from include.serving.engine import Engine, LoadedModel, build_engine
from include.serving.served import CHAMPION, Failure, Served, Wanted, serve
from include.serving.telemetry import Metrics, log_event

_RETRY_SECONDS = {True: 2.0, False: 30.0}  # first pause after a transient / a permanent failure
_RETRY_LIMIT = 300.0
_PATIENCE = 3.0  # seconds to wait for the registry's first answer before the disk cache is used
_LINGER = 30.0  # seconds an engine without an alias stays in memory

Key = tuple[str, str]


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


class Follower:
    """Keeps `table` in step with the registry.

    Args:
        source: The registry.
        cache: Folder of downloaded models and of the state file.
        metrics: Where loads and polls are counted.
        poll_seconds: Pause between two polls.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        source: ModelSource,
        cache: Path,
        metrics: Metrics,
        *,
        poll_seconds: float = 1.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.table: Mapping[str, Served] = {}
        self.on_change: Callable[[], None] = _nothing
        self.registry_error: str | None = None
        self.ready = False
        self._source, self._cache, self._metrics = source, Cache(cache), metrics
        self._poll_seconds, self._clock = poll_seconds, clock
        self._wanted: dict[str, Wanted] | None = None
        self._online = False
        self._engines: dict[Key, Engine] = {}
        self._idle: dict[Key, float] = {}
        self._loads: dict[Key, Future[Engine]] = {}
        self._failures: dict[Key, Failure] = {}
        self._saved: object = None
        self._last_good: dict[str, str] = {}
        self._poll: Future[Mapping[str, Wanted]] | None = None
        self._next_poll = self._started = clock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._pollers = ThreadPoolExecutor(1, "registry-poll")
        self._loaders = ThreadPoolExecutor(1, "model-load")
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Begin to follow, in a thread of its own."""
        self._last_good = dict(self._cache.read().champions)
        self._thread.start()

    def stop(self) -> None:
        """Stop following; the table stays as it is. Does not wait for a hanging registry."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(5)
        self._pollers.shutdown(wait=False, cancel_futures=True)
        self._loaders.shutdown(wait=False, cancel_futures=True)

    @property
    def alive(self) -> bool:
        """Whether the table is still being followed."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self.tick()
            except Exception:  # whatever it is, the models in the table go on answering
                logging.getLogger("evergreen.serving").exception("tick_failed")
            self._wake.wait(max(0.01, min(self._poll_seconds, 0.5)))

    def tick(self) -> None:
        """Do whatever can be done now without waiting: poll, collect, swap, start loads."""
        now = self._clock()
        self._take_poll(now)
        if self._wanted is None:
            return
        self._take_loads(now)
        self._start_loads(now)
        self._swap()
        self._settle()

    def _take_poll(self, now: float) -> None:
        if self._poll is None and now >= self._next_poll:
            self._poll = self._pollers.submit(self._source.models)
            self._poll.add_done_callback(lambda _: self._wake.set())
        if self._poll is not None and self._poll.done():
            poll, self._poll = self._poll, None
            self._next_poll = now + self._poll_seconds
            error = poll.exception()
            self._note_registry(None if error is None else _sentence(error))
            if error is None:
                self._online = True
                self._wanted = _acted_on(poll.result())
        waited = self.registry_error is not None or now - self._started >= _PATIENCE
        if self._wanted is None and waited:
            stored = _acted_on(self._cache.read().wanted())
            if stored:
                self._wanted = stored
                log_event("cache_used", models=sorted(stored), reason=self.registry_error or "slow")

    def _note_registry(self, error: str | None) -> None:
        self._metrics.registry_up.set(0 if error else 1)
        if (error is None) != (self.registry_error is None):
            if error:
                log_event("registry_lost", level=logging.WARNING, error=error)
            else:
                log_event("registry_back")
        self.registry_error = error

    def _take_loads(self, now: float) -> None:
        for key in [key for key, load in self._loads.items() if load.done()]:
            load = self._loads.pop(key)
            name, version = key
            error = load.exception()
            self._metrics.loads.labels(name, "failed" if error else "loaded").inc()
            if error is None:
                engine = load.result()
                self._engines[key] = engine
                self._failures.pop(key, None)
                log_event("loaded", model=name, version=version, one_row_ms=engine.warm_ms)
            else:
                self._failed(key, error, now)

    def _failed(self, key: Key, error: BaseException, now: float) -> None:
        before = self._failures.get(key)
        transient = isinstance(error, EvergreenError) and error.transient
        attempts = before.attempts + 1 if before else 1
        pause = min(_RETRY_SECONDS[transient] * 2 ** min(attempts - 1, 16), _RETRY_LIMIT)
        failure = Failure(_sentence(error), not transient, attempts, now + pause)
        self._failures[key] = failure
        if before is None or before.error != failure.error:
            log_event(
                "load_failed",
                level=logging.ERROR,
                model=key[0],
                version=key[1],
                error=failure.error,
                permanent=failure.permanent,
            )

    def _start_loads(self, now: float) -> None:
        wanted = self._needed()
        for gone in self._failures.keys() - wanted:
            del self._failures[gone]
        for key in sorted(wanted - self._engines.keys() - self._loads.keys()):
            failure = self._failures.get(key)
            if failure is None or now >= failure.retry_at:
                self._loads[key] = self._loaders.submit(self._load, *key)
                self._loads[key].add_done_callback(lambda _: self._wake.set())

    def _load(self, name: str, version: str) -> Engine:
        """Load, verify, warm up and self-test; runs in the loader thread."""
        where = f"model {name} version {version}"
        try:
            model = self._fetch(name, version)
            return build_engine(model)
        except EvergreenError:
            raise
        except (
            Exception
        ) as error:  # a damaged artifact may fail anywhere; the version before must live
            raise ModelError(
                where,
                f"must be loadable, got {type(error).__name__}: {error}",
                "Look at the serving log, then train and register it again.",
            ) from error

    def _fetch(self, name: str, version: str) -> LoadedModel:
        if not self._online:
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

    def _swap(self) -> None:
        wanted = self._wanted or {}
        table = {name: self._served(name, of) for name, of in sorted(wanted.items())}
        before, self.table = (
            self.table,
            table,
        )  # the swap: requests see the old table or the new one
        used = {(name, engine.version) for name, of in table.items() for engine in of.engines}
        self._let_go(self._engines.keys() - used - self._needed())
        for name in sorted({*before, *table}):
            self._report(name, before.get(name), table.get(name))
        if before != table:
            self.on_change()

    def _let_go(self, unused: set[Key]) -> None:
        """Free engines nobody asked for in a while: aliases move one by one, and some move back."""
        now = self._clock()
        self._idle = {key: self._idle.get(key, now) for key in unused}
        for key, since in list(self._idle.items()):
            if now - since >= _LINGER:
                del self._engines[key], self._idle[key]

    def _needed(self) -> set[Key]:
        """Return what should be in memory: what aliases and rollouts want, and what stands in for a failed champion.

        A stand-in is only needed after a restart: the version that last answered is then on disk only.
        """
        needed: set[Key] = set()
        for name, wanted in (self._wanted or {}).items():
            needed.update((name, version) for version in wanted.versions)
            last, champion = self._last_good.get(name), wanted.aliases.get(CHAMPION)
            if last and champion and (name, champion) in self._failures:
                needed.add((name, last))
        return needed

    def _served(self, name: str, wanted: Wanted) -> Served:
        before = self.table.get(name)
        # Until the new champion is ready, or for good when it fails: the one before.
        last = self._engines.get((name, self._last_good.get(name, "")))
        stand_in = before.champion if before and before.champion else last
        engines = {version: e for (of, version), e in self._engines.items() if of == name}
        failures = {version: f for (of, version), f in self._failures.items() if of == name}
        return serve(name, wanted, engines, failures, stand_in)

    def _report(self, name: str, before: Served | None, after: Served | None) -> None:
        old = before.champion.version if before and before.champion else None
        new = after.champion.version if after and after.champion else None
        if after is None:
            self._last_good.pop(name, None)
        if old == new:
            return
        if old is not None:
            self._metrics.champion.remove(name, old)
        if new is not None:
            self._metrics.champion.labels(name, new).set(1)
            self._last_good[name] = new
        log_event("swapped" if new else "unloaded", model=name, version=new, previous=old)

    def _settle(self) -> None:
        """Become ready once every first attempt is over; store what is in use when it changed."""
        if not self.ready and not self._loads:
            self.ready = True
            log_event("ready", models=sorted(self.table))
        engines = [engine for served in self.table.values() for engine in served.engines]
        now_used = (self._wanted, sorted((e.model.name, e.version) for e in engines))
        if self._loads or not self._online or now_used == self._saved:
            return
        try:
            self._cache.write(self._wanted or {}, [e.model for e in engines], self._last_good)
        except (OSError, ValueError) as error:
            log_event("cache_not_written", level=logging.ERROR, error=str(error))
        self._saved = now_used


def _nothing() -> None:
    """Tell nobody."""


def _acted_on(models: Mapping[str, Wanted]) -> dict[str, Wanted]:
    """Keep what serving acts on, and the models of which anything is left."""
    kept = {name: wanted.acted_on() for name, wanted in models.items()}
    return {name: wanted for name, wanted in kept.items() if wanted is not None}


def _sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, EvergreenError) else f"{type(error).__name__}: {error}"
