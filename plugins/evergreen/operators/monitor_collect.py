"""`collect`: which window a pass judges, its rows out of the prediction log, and the labels that are due."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.factory.naming import monitor_experiment
from evergreen.hooks.sources import source_options
from evergreen.operators.monitor import MonitorOperator, from_window, pass_time, work_prefix
from evergreen.operators.stage import as_of, require_conf, run_key, skip, utc_now
from include.errors import EvergreenError
from include.spec import parameters

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.monitor.windows import Window


class CollectOperator(MonitorOperator):
    """Copies the newest window of the champion's predictions out of the log; skips what cannot be judged.

    Returns `version`, `window` (and `matured`, the newest one whose labels are due) with `key`, `start` and `end`,
    `rows`, `file`, `at`, `run_id` (MLflow), and `labels_error` where the labels' source could not be read.
    """

    def work(self, context: Context) -> dict[str, Any]:
        """Collect; every attempt of a run means the same window."""
        from include.monitor.windows import latest_window
        from include.registry.rollouts import settle

        require_conf(context["dag_run"].conf, parameters.MONITORING)
        bench = self.bench
        # A rollout may have been ended while MLflow was away: its challenger must not keep its traffic till the night.
        settle(bench.registry, bench.ledger, self.model)
        at = pass_time(context)
        champion = self.champion()
        if champion is None:
            skip(context, "the model has no champion yet")
        monitor, version = bench.spec.monitor, champion.version
        window = latest_window(at, monitor.window)
        if self._judged(window, version, context) and not context["params"].get("force"):
            skip(context, f"the window {window} of version {version} was judged before")
        matured = labels_error = None
        if monitor.labels is not None:
            matured = latest_window(at, monitor.window, delay=monitor.labels.delay)
            labels_error = self._bring_labels(matured, context)
        rows, file = self._copy(window, version, context)
        if not rows and not any(event.payload["rows"] for event in self.rows_of(version)):
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
            "labels_error": labels_error,
        }

    def _judged(self, window: Window, version: str, context: Context) -> bool:
        """Tell whether another run has judged the window; a replay leaves it to the passes of the present."""
        rows = self.rows_of(version, window.key)
        if as_of(context) is None:
            rows = [row for row in rows if row.payload.get("as_of") is None]
        # A run that is cleared may judge its own window again.
        return bool(rows) and rows[-1].actor != run_key(context)

    def _bring_labels(self, matured: Window, context: Context) -> str | None:
        """Read the labels of the matured window, where a source has them; posted ones are there already.

        Returns:
            What is wrong with the source; None where nothing is. The window's data is judged all the same.
        """
        labels = self.bench.spec.monitor.labels
        if labels is None or labels.source is None:
            return None
        from include.ingest.labels import ingest_labels

        try:
            count = ingest_labels(
                self.bench.spec,
                self.bench.store,
                matured.start,
                matured.end + labels.delay,
                now=utc_now(),
                **source_options(labels.source),
            )
        except EvergreenError as error:
            if error.transient and context["ti"].try_number <= context["ti"].max_tries:
                raise
            self.log.warning("labels cannot be read: %s", error)
            return str(error)
        self.log.info("%d new labels for %s", count, matured)
        return None

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


def _tags(model: str, version: str, window: Window, context: Context) -> dict[str, str]:
    run = context["dag_run"]
    return {
        "evergreen.model": model,
        "evergreen.version": version,
        "evergreen.window": window.key,
        "airflow.dag_id": run.dag_id,
        "airflow.run_id": run.run_id,
    }
