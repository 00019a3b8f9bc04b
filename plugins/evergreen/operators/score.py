"""`score` and `shadow`: a partition of rows predicted by the champion, and by the challenger for the log only."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from evergreen.factory.assets import scores_asset
from evergreen.hooks.sources import source_options
from evergreen.operators.stage import StageOperator, require_conf, skip, utc_now
from include.errors import ConflictError, DataError, SpecError
from include.spec import parameters
from include.spec.score import PARTITION_PATTERN

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.score.score import Work
    from include.spec.score import Score

_SAY_SECONDS = 10.0


class ScoringOperator(StageOperator):
    """Base of the operators of a scoring Dag."""

    ui_color = "#fdf0dc"

    @property
    def section(self) -> Score:
        """The spec's section `score`."""
        section = self.bench.spec.score
        if section is None:
            raise SpecError(
                f"model {self.model}: score", "must be there to score, got none", "Add the section."
            )
        return section

    @contextmanager
    def opened(self, version: str, partition: str, context: Context) -> Iterator[Work]:
        """Yield the version and the partition's rows, ready to score; temporary files go at the end."""
        from include.ingest.partition import open_partition
        from include.score.score import Work, partition_time
        from include.serving.engine import build_engine
        from include.serving.source import RegistrySource

        bench, section = self.bench, self.section
        loaded = RegistrySource(bench.registry).load(self.model, version, bench.model_cache)
        work = bench.settings.home / "work"
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{self.model}-score-", dir=work) as name:
            spool, folder = Path(name, "spool"), Path(name, "made")
            spool.mkdir()
            folder.mkdir()
            options = source_options(section.source)
            yield Work(
                spec=bench.spec,
                engine=build_engine(loaded),
                rows=open_partition(bench.spec, partition, folder=spool, **options),
                store=bench.store,
                partition=partition,
                at=partition_time(partition, section.timezone, due(context)),
                now=utc_now(),
                folder=folder,
                progress=self._progress(partition),
            )

    def _progress(self, partition: str) -> Callable[[int], None]:
        started = said = time.monotonic()

        def progress(rows: int) -> None:
            nonlocal said
            now = time.monotonic()
            if now - said >= _SAY_SECONDS:
                said = now
                self.log.info("%s: %d rows, %.0f/s", partition, rows, rows / (now - started))

        return progress


class ScoreOperator(ScoringOperator):
    """Scores one partition with the champion; skips while there is none.

    Returns `partition`, `version`, `rows`, `uri` and `source` (digest of the rows that were read). The asset's event
    carries `partition`, `version` and `rows`.
    """

    def work(self, context: Context) -> dict[str, Any]:
        """Score; every attempt of a run means the same partition."""
        from include.score.score import score
        from include.score.targets import open_target

        require_conf(context["dag_run"].conf, parameters.SCORING)
        champion = self.bench.registry.get_version(self.model, "champion")
        if champion is None:
            skip(context, "the model has no champion yet: train it first")
        partition, to = run_partition(context, self.section.timezone), self.section.to
        target = open_target(to, now=utc_now(), **source_options(to))
        started = time.monotonic()
        with self.opened(champion.version, partition, context) as work:
            done = score(work, target)
        rate = done.rows / max(time.monotonic() - started, 1e-3)
        self.log.info(
            "%s: %d rows by version %s, %.0f/s, in %s",
            partition,
            done.rows,
            done.version,
            rate,
            done.uri,
        )
        event: dict[str, Any] = {
            "partition": partition,
            "version": done.version,
            "rows": done.rows,
        }
        context["outlet_events"][scores_asset(self.model)].extra = event
        return {**event, "uri": done.uri, "source": done.source}


class ShadowOperator(ScoringOperator):
    """Scores the same partition with the challenger, for the log only; skips where no shadow goes on.

    Whom the ledger names is scored with, for that is whom the judge pairs: the alias `challenger` may have moved on.

    Args:
        scored: What `score` returned.

    Returns `version`, `rows` and `failed`.
    """

    template_fields: Sequence[str] = (*ScoringOperator.template_fields, "scored")

    def __init__(self, *, scored: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scored = scored

    def work(self, context: Context) -> dict[str, Any]:
        """Score with the challenger what the champion scored."""
        from include.registry.rollouts import current
        from include.score.shadow import shadow

        champion, partition = self.scored["version"], self.scored["partition"]
        standing = current(self.bench.ledger, self.model)
        if standing is None or standing.rollout.mode != "shadow":
            skip(context, "no rollout in mode shadow goes on")
        if standing.rollout.version == champion:
            skip(context, "the version on trial has become the champion")
        with self.opened(standing.rollout.version, partition, context) as work:
            try:
                done = shadow(work, champion=champion, source=self.scored["source"])
            except ConflictError as error:  # the predictions stand; only the comparison is lost
                skip(context, str(error))
        say = self.log.warning if done.failed else self.log.info
        say("version %s failed on %d of %d rows", done.version, done.failed, done.rows)
        return {"version": done.version, "rows": done.rows, "failed": done.failed}


def due(context: Context) -> datetime:
    """Return when the run was due: its logical date, or for a run without one the time it was made for."""
    run = context["dag_run"]
    moment: datetime = run.logical_date or run.run_after
    return moment


def run_partition(context: Context, zone: str) -> str:
    """Return the partition of a run: the one that was asked for, or its date in the spec's time zone.

    Raises:
        DataError: The name cannot be that of a folder. Airflow checks it too, but lets a line break at its end pass.
    """
    given = context["params"].get("partition")
    if not given:
        return due(context).astimezone(ZoneInfo(zone)).date().isoformat()
    if not re.fullmatch(PARTITION_PATTERN, str(given)):
        raise DataError(
            "run parameters: partition",
            f"must be letters, digits, dots, underscores and hyphens, at most 100, got {given!r}",
            "Write it like 2026-03-01.",
        )
    return str(given)
