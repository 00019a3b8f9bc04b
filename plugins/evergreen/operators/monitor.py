"""`collect`, and what the tasks of a monitor Dag share: the window, the champion's reference, the work files.

Work files lie in the store as `monitor/<model>/work/<run>-<content>`: whoever reads one reads all of it, whatever
another attempt writes meanwhile. They are copies of the log and go when the pass ends.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.factory.naming import monitor_experiment
from evergreen.hooks.sources import source_options
from evergreen.operators.stage import StageOperator, as_of, require_conf, run_key, skip, utc_now
from include.errors import ConflictError
from include.spec import parameters

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.ledger.chain import Event
    from include.monitor.findings import Finding
    from include.monitor.reference import Reference
    from include.monitor.windows import Window
    from include.registry.package import Version

_HISTORY = 200  # passes looked back at, whatever their version


class MonitorOperator(StageOperator):
    """Base of the operators of a monitor Dag.

    Args:
        collected: What `collect` returned; None where it was skipped.
    """

    template_fields: Sequence[str] = (*StageOperator.template_fields, "collected")
    ui_color = "#eee6f7"

    def __init__(self, *, collected: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.collected = collected

    @cached_property
    def reference(self) -> Reference:
        """What the judged version learned from."""
        from include.monitor.opening import open_reference

        version = self.bench.registry.get_version(self.model, self.collected["version"])
        if version is None:
            raise ConflictError(
                f"model {self.model}",
                f"must still have version {self.collected['version']}, got none",
                "Start a new pass.",
            )
        bench = self.bench
        return open_reference(bench.spec, bench.store, bench.registry, version, bench.settings.home)

    @property
    def window(self) -> Window:
        """The window this pass judges."""
        return to_window(self.collected["window"])

    def window_file(self) -> Path:
        """Return the Parquet file that `collect` wrote."""
        return self._work_file(self.collected["file"])

    def keep_findings(self, context: Context, findings: Sequence[Finding]) -> dict[str, Any]:
        """Put findings where later tasks find them; return what goes to XCom."""
        for finding in findings:
            if finding.status in ("warn", "alert"):
                self.log.warning("%s: %s", finding.status, finding.message)
        data = json.dumps([asdict(finding) for finding in findings]).encode()
        key = f"{work_prefix(self.model, context)}{hashlib.sha256(data).hexdigest()}.json"
        self.bench.store.write_bytes(key, data)
        return {"file": key, "findings": count_by_status(findings)}

    def read_findings(self, *results: Any) -> tuple[Finding, ...]:
        """Return the findings of tasks, by what they returned; one that was skipped found nothing."""
        from include.monitor.findings import Finding

        found: list[Finding] = []
        for result in results:
            if result:
                rows = json.loads(self._work_file(result["file"]).read_bytes())
                found += (Finding(**row) for row in rows)
        return tuple(found)

    def passes(self, version: str) -> dict[str, Event]:
        """Return the ledger's row of each window of a version, by the window's key, oldest first."""
        events = self.bench.ledger.events(self.model, "monitor", _HISTORY)
        mine = {e.payload["window"]: e for e in events if e.payload["version"] == version}
        return {window: mine[window] for window in sorted(mine)}

    def champion(self) -> Version | None:
        """Return the version that is champion now."""
        return self.bench.registry.get_version(self.model, "champion")

    def _work_file(self, key: str) -> Path:
        if not self.bench.store.exists(key):
            raise ConflictError(
                self.bench.store.uri(key),
                "must be there while a pass goes on, got nothing",
                "The pass has ended: clear its run from `collect` on.",
            )
        return self.bench.store.fetch(key)


class CollectOperator(MonitorOperator):
    """Copies the newest window of the champion's predictions out of the log; skips what cannot be judged.

    Returns `version`, `window` (and `matured`, the newest one whose labels are due) with `key`, `start` and `end`,
    `rows`, `file`, `at`, and `run_id` (MLflow).
    """

    def work(self, context: Context) -> dict[str, Any]:
        """Collect; every attempt of a run means the same window."""
        from include.monitor.windows import latest_window

        require_conf(context["dag_run"].conf, parameters.MONITORING)
        bench, at = self.bench, pass_time(context)
        champion = self.champion()
        if champion is None:
            skip(context, "the model has no champion yet")
        monitor, version = bench.spec.monitor, champion.version
        window = latest_window(at, monitor.window)
        passes = self.passes(version)
        known = passes.get(window.key)
        # A run that is cleared may judge its own window again; it finds its own row.
        if known and known.actor != run_key(context) and not context["params"].get("force"):
            skip(context, f"the window {window} of version {version} was judged before")
        matured = None
        if monitor.labels is not None:
            matured = latest_window(at, monitor.window, delay=monitor.labels.delay)
            self._bring_labels(matured)
        rows, file = self._copy(window, version, context)
        if not rows and not any(event.payload["rows"] for event in passes.values()):
            skip(context, f"no prediction of version {version} is logged yet in {window}")
        run_id = bench.registry.ensure_run(
            monitor_experiment(self.model),
            run_key(context),
            f"{window.key} version {version}",
            _tags(self.model, version, window, context),
        )
        self.link_run(context, run_id)
        self.log.info("%d predictions of version %s in %s", rows, version, window)
        return {
            "version": version,
            "window": from_window(window),
            "matured": from_window(matured) if matured else None,
            "rows": rows,
            "file": file,
            "at": at.isoformat(),
            "run_id": run_id,
        }

    def _bring_labels(self, matured: Window) -> None:
        """Read the labels of the matured window, where a source has them; posted ones are there already."""
        labels = self.bench.spec.monitor.labels
        if labels is None or labels.source is None:
            return
        from include.ingest.labels import ingest_labels

        count = ingest_labels(
            self.bench.spec,
            self.bench.store,
            matured.start,
            matured.end + labels.delay,
            now=utc_now(),
            **source_options(labels.source),
        )
        self.log.info("%d new labels for %s", count, matured)

    def _copy(self, window: Window, version: str, context: Context) -> tuple[int, str]:
        from include.monitor.collect import collect

        with tempfile.TemporaryDirectory() as folder:
            found = collect(
                self.bench.spec, self.bench.store, window, version, out=Path(folder) / "window"
            )
            with found.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            key = f"{work_prefix(self.model, context)}{digest}.parquet"
            self.bench.store.put_file(key, found.path, if_absent=True, move=True)
        return found.rows, key


def pass_time(context: Context) -> datetime:
    """Return the time a pass judges by: `as_of` where given, else when its run was due, the same on every try."""
    due: datetime = context["dag_run"].run_after
    return as_of(context) or due


def work_prefix(model: str, context: Context) -> str:
    """Return what the keys of a pass's work files begin with."""
    return f"monitor/{model}/work/{hashlib.sha256(run_key(context).encode()).hexdigest()[:16]}-"


def to_window(given: Mapping[str, str]) -> Window:
    """Return the window that `from_window` wrote down."""
    from include.monitor.windows import Window

    return Window(*(datetime.fromisoformat(given[name]) for name in ("start", "end")))


def from_window(window: Window) -> dict[str, str]:
    """Return a window as plain values."""
    return {
        "key": window.key,
        "start": window.start.isoformat(),
        "end": window.end.isoformat(),
    }


def count_by_status(findings: Sequence[Finding]) -> dict[str, int]:
    """Return how many findings there are of each status that occurs."""
    names = sorted({finding.status for finding in findings})
    return {name: sum(finding.status == name for finding in findings) for name in names}


def is_backfill(context: Context) -> bool:
    """Tell whether the run makes up for the past: then it records, and asks for nothing."""
    return bool(context["dag_run"].run_type.value == "backfill")


def _tags(model: str, version: str, window: Window, context: Context) -> dict[str, str]:
    run = context["dag_run"]
    return {
        "evergreen.model": model,
        "evergreen.version": version,
        "evergreen.window": window.key,
        "airflow.dag_id": run.dag_id,
        "airflow.run_id": run.run_id,
    }
