"""Follows the registry's aliases and rollouts and keeps the table of engines that answer.

Owns the life of a version inside serving: seen at the registry, loaded and tried (`loading`), and only then put
into the table, by one assignment. Requests take the table once and keep what they took, so an old version drains
by itself. Whatever fails leaves the table as it is.

One thread decides (`tick`); polls and loads run beside it, so neither a hanging registry nor a slow download
holds up a swap that is ready. A tick looks only at the models about which there is news: it shares a core with the
requests, and there may be a thousand models.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from include.serving.cache import Cache
from include.serving.loading import Key, Loader, ModelSource, sentence
from include.serving.memory import Memory
from include.serving.served import Served, Use, Wanted, serve
from include.serving.telemetry import Metrics, log_event

_PATIENCE = 3.0  # seconds to wait for the registry's first answer before the disk cache is used
_READY_AFTER = (
    30.0  # seconds of loading after which it is ready all the same: requests wait for their model
)
_SAVE_PAUSE = 10.0  # seconds until a write of the state file that failed is tried again
_AHEAD = 2  # versions on their way to memory that nobody asked for yet
_LIMITS = (2**30, 4 * 2**30)  # bytes in memory, bytes on disk


class Follower:
    """Keeps `table` in step with the registry.

    Args:
        source: The registry.
        cache: Folder of downloaded models and of the state file.
        metrics: Where loads and polls are counted.
        poll_seconds: Pause between two polls; after a slow one it is as long as that took.
        memory_bytes: What models may take in memory; those that do not fit are loaded at the first request.
        cache_bytes: What downloaded models may take on disk.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        source: ModelSource,
        cache: Path,
        metrics: Metrics,
        *,
        poll_seconds: float = 1.5,
        memory_bytes: int = _LIMITS[0],
        cache_bytes: int = _LIMITS[1],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.table: Mapping[str, Served] = {}
        self.on_change: Callable[[], None] = _nothing
        self.registry_error: str | None = None
        self.ready = False
        self._source, self._cache, self._metrics = source, Cache(cache, cache_bytes), metrics
        self._poll_seconds, self._clock = poll_seconds, clock
        self._wake, self._stop = threading.Event(), threading.Event()
        self.loader = Loader(source, self._cache, metrics, self._wake.set, self._on_disk)
        self.memory = Memory(memory_bytes)
        self._wanted: dict[str, Wanted] | None = None
        self._polled: Mapping[str, Wanted] | None = None
        self._asleep: set[str] = set()
        self._eager: deque[str] = deque()  # asleep so far; loaded while there is room
        self._news: set[str] = set()  # models to look at again
        self._missing: dict[str, set[str]] = {}  # versions to load, by model
        self._uses: dict[str, Use] = {}
        self._last_good: dict[str, str] = {}
        self._unsaved, self._next_save = False, 0.0
        self._waiting: deque[tuple[str, str | None, Future[Served | None]]] = deque()
        self._poll: Future[Mapping[str, Wanted]] | None = None
        self._next_poll = self._poll_began = self._started = clock()
        self._pollers = ThreadPoolExecutor(1, "registry-poll")
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Begin to follow, in a thread of its own; nothing new when it does already."""
        if self._thread.ident is not None:
            return
        self._last_good = dict(self._cache.read().champions)
        self._thread.start()

    def stop(self) -> None:
        """Stop following; the table stays as it is. Does not wait for a hanging registry."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(5)
        self._pollers.shutdown(wait=False, cancel_futures=True)
        self.loader.close()

    def wait(self, seconds: float, told_to_stop: Callable[[], bool]) -> None:
        """Return once it is ready, or when the time is over."""
        until = time.monotonic() + seconds
        while not self.ready and not told_to_stop() and time.monotonic() < until:
            self._stop.wait(0.05)

    def demand(self, name: str, version: str | None) -> Future[Served | None]:
        """Have a version (None: the champion) loaded; return the model as of when it answers, or is not going to.

        May be called from any thread. Whoever stops waiting cancels it.
        """
        future: Future[Served | None] = Future()
        self._waiting.append((name, version, future))
        self._wake.set()
        return future

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
        self._wake_asked()
        self._wake_eager()
        self._swap(now)
        self._begin_loads(now)
        self._make_room(now)
        self._release_waiting()
        self._settle(now)

    # --- what the registry says -----------------------------------------------------------------------------

    def _take_poll(self, now: float) -> None:
        if self._poll is None and now >= self._next_poll:
            self._poll_began = now
            self._poll = self._pollers.submit(self._source.models)
            self._poll.add_done_callback(lambda _: self._wake.set())
        if self._poll is not None and self._poll.done():
            poll, self._poll = self._poll, None
            self._next_poll = now + max(self._poll_seconds, now - self._poll_began)
            error = poll.exception()
            self._note_registry(None if error is None else sentence(error))
            if error is None and poll.result() is not self._polled:
                self._polled = poll.result()
                self._follow(_acted_on(self._polled))
        waited = self.registry_error is not None or now - self._started >= _PATIENCE
        if self._wanted is None and waited:
            stored = _acted_on(self._cache.read().wanted())
            if stored:
                self._follow(stored)
                self._unsaved = False
                log_event("cache_used", models=len(stored), reason=self.registry_error or "slow")

    def _note_registry(self, error: str | None) -> None:
        self._metrics.registry_up.set(0 if error else 1)
        if (error is None) != (self.registry_error is None):
            if error:
                log_event("registry_lost", level=logging.WARNING, error=error)
            else:
                log_event("registry_back")
        self.registry_error = error
        self.loader.from_disk = error is not None

    def _follow(self, wanted: dict[str, Wanted]) -> None:
        first, before = self._wanted is None, self._wanted or {}
        self._wanted = wanted
        changed = {n for n in {*before, *wanted} if before.get(n) != wanted.get(n)}
        for name in sorted(changed):
            old, new = before.get(name), wanted.get(name)
            if new is None:
                self._asleep.discard(name)
            elif first:
                self._asleep.add(name)
                self._eager.append(name)
            elif old is None or old.champion != new.champion:
                self._asleep.discard(name)  # who moves it waits to see it answer
        self._news |= changed
        self._unsaved |= bool(changed)

    # --- from there into memory -----------------------------------------------------------------------------

    def _take_loads(self, now: float) -> None:
        for (name, _), engine in self.loader.collect(now):
            if engine is not None:
                self.memory.add(engine)
            self._news.add(name)

    def _wake_asked(self) -> None:
        for name, _, _ in list(self._waiting):
            if name in self._asleep:
                self._asleep.discard(name)
                self._news.add(name)

    def _wake_eager(self) -> None:
        """While there is room, load models before anybody asks for them."""
        ahead = self.loader.under_way
        while self._eager and ahead < _AHEAD:
            name = self._eager.popleft()
            if name not in self._asleep:
                continue
            if not self.memory.fits(name, ahead):
                left = 1 + len(self._eager)
                log_event("memory_full", asleep=left, bytes=self.memory.used_bytes)
                self._eager.clear()
                break
            self._asleep.discard(name)
            self._news.add(name)
            ahead += 1

    def _begin_loads(self, now: float) -> None:
        if not self._missing:
            return
        asked = {name for name, _, _ in list(self._waiting)}
        names = sorted(self._missing, key=lambda name: (name not in asked, name))
        self.loader.begin(((n, v) for n in names for v in sorted(self._missing[n])), now)

    def _needed(self, name: str, wanted: Wanted | None) -> set[str]:
        """Return the versions that should be in memory: those with a part, and what stands in for a failed champion.

        A stand-in is only needed after a restart: the version that last answered is then on disk only.
        """
        if wanted is None or (name in self._asleep and wanted.may_sleep):
            return set()
        needed, last = set(wanted.versions), self._last_good.get(name)
        if last and wanted.champion and self.loader.failed(name, wanted.champion):
            needed.add(last)
        return needed

    def _on_disk(self) -> set[Key]:
        """Return the versions a restart needs; called from the loader's thread."""
        wanted, last_good = dict(self._wanted or {}), dict(self._last_good)
        keys = {(name, version) for name, of in wanted.items() for version in of.versions}
        return keys | {(name, version) for name, version in last_good.items() if name in wanted}

    # --- into the table -------------------------------------------------------------------------------------

    def _swap(self, now: float) -> None:
        self.memory.drop_idle(now)
        if not self._news:
            return
        news, self._news = sorted(self._news), set()
        before, table = self.table, dict(self.table)
        for name in news:
            served = self._look_at(name, now)
            if served is None:
                table.pop(name, None)
            else:
                table[name] = served
        if table.keys() != before.keys():
            table = dict(sorted(table.items()))
        self.table = table  # the swap: requests see the old table or the new one
        changed = False
        for name in news:
            self._report(name, before.get(name), table.get(name))
            changed |= before.get(name) != table.get(name)
        if changed:
            self.on_change()

    def _look_at(self, name: str, now: float) -> Served | None:
        wanted = (self._wanted or {}).get(name)
        needed = self._needed(name, wanted)
        self.loader.forget(name, self.loader.failures.get(name, {}).keys() - needed)
        engines = self.memory.of(name)
        missing = needed - engines.keys()
        if missing:
            self._missing[name] = missing
        else:
            self._missing.pop(name, None)
        if wanted is None:
            self.memory.note_idle(name, (), now)
            return None
        asleep = name in self._asleep and wanted.may_sleep
        before = self.table.get(name)
        # Until the new champion is ready, or for good when it fails: the one before.
        stand_in = before.champion if before and before.champion else None
        stand_in = stand_in or engines.get(self._last_good.get(name, ""))
        use = self._uses.setdefault(name, Use())
        failures = dict(self.loader.failures.get(name, {}))
        served = serve(
            name,
            wanted,
            engines,
            failures,
            None if asleep else stand_in,
            asleep=asleep,
            use=use,
        )
        self.memory.note_idle(name, needed | {e.version for e in served.engines}, now)
        return served

    def _report(self, name: str, before: Served | None, after: Served | None) -> None:
        self._metrics.note_left(name, _parts(before) - _parts(after), _parts(after))
        old = before.champion.version if before and before.champion else None
        new = after.champion.version if after and after.champion else None
        if after is None:
            self._last_good.pop(name, None)
            self._uses.pop(name, None)
        if old == new:
            return
        if old is not None:
            self._metrics.champion.remove(name, old)
        if new is not None:
            self._metrics.champion.labels(name, new).set(1)
            self._unsaved |= self._last_good.get(name) != new
            self._last_good[name] = new
        log_event("swapped" if new else "unloaded", model=name, version=new, previous=old)

    def _make_room(self, now: float) -> None:
        """Let go of models nobody asked for in the longest time when all of them together are too large."""
        if self.memory.used_bytes <= self.memory.limit_bytes:
            return
        asked = {name for name, _, _ in list(self._waiting)}
        may_go = {
            name: served.use
            for name, served in self.table.items()
            if served.engines and served.wanted.may_sleep and name not in asked
        }
        for name in self.memory.surplus(may_go):
            self._asleep.add(name)
            self._news.add(name)
            for version in list(self.memory.of(name)):
                self.memory.drop(name, version)
        self._swap(now)

    # --- whoever waits for it -------------------------------------------------------------------------------

    def _release_waiting(self) -> None:
        for _ in range(len(self._waiting)):
            name, version, future = self._waiting.popleft()
            served = self.table.get(name)
            if served is not None and served.is_coming(version):
                if not future.cancelled():
                    self._waiting.append((name, version, future))
            elif future.set_running_or_notify_cancel():
                future.set_result(served)

    def _settle(self, now: float) -> None:
        """Become ready once every first attempt is over; store what changed."""
        if not self.ready:
            over = not self.loader.under_way and not self._eager
            if over or now - self._started >= _READY_AFTER:
                self.ready = True
                log_event("ready", models=len(self.table), asleep=len(self._asleep))
        self.loader.remember_again(now)
        if not self._unsaved or self._polled is None or now < self._next_save:
            return
        try:
            self._cache.write(self._wanted or {}, self._last_good)
        except (OSError, ValueError) as error:
            self._next_save = now + _SAVE_PAUSE
            log_event("cache_not_written", level=logging.ERROR, error=str(error))
        else:
            self._unsaved = False


def _nothing() -> None:
    """Tell nobody."""


def _parts(served: Served | None) -> set[str | None]:
    """Return what is counted by itself: the model, as None, and its versions that are wanted or answer."""
    if served is None:
        return set()
    return {None, *served.wanted.versions, *(engine.version for engine in served.engines)}


def _acted_on(models: Mapping[str, Wanted]) -> dict[str, Wanted]:
    """Keep what serving acts on, and the models of which anything is left."""
    kept = {name: wanted.acted_on() for name, wanted in models.items()}
    return {name: wanted for name, wanted in kept.items() if wanted is not None}


__all__ = ["Follower", "Served"]
