"""`quality`, `drift` and `performance`: the checks of a pass. What they find is no failure."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.operators.monitor import MonitorOperator, to_window
from evergreen.operators.stage import as_of, skip

if TYPE_CHECKING:
    import pyarrow as pa
    from airflow.sdk import Context

    from include.monitor.findings import Finding
    from include.monitor.windows import Window


class QualityOperator(MonitorOperator):
    """Checks every row of the window: is the data what it should be? Returns where the `findings` are, and counts."""

    def work(self, context: Context) -> dict[str, Any]:
        """Check; the same file gives the same findings."""
        from include.monitor.quality import check_quality

        self.link_run(context, self.collected["run_id"])
        window = self.window
        passes = self.passes(self.collected["version"])
        with self.window_file() as path:
            findings = check_quality(
                self.bench.spec,
                path,
                self.reference,
                window,
                now=datetime.fromisoformat(self.collected["at"]),
                history=[int(e.payload["rows"]) for key, e in passes.items() if key < window.key],
            )
        return self.keep_findings(context, findings)


class DriftOperator(MonitorOperator):
    """Compares the window with what the champion learned from. Returns where the `findings` are, and counts."""

    def work(self, context: Context) -> dict[str, Any]:
        """Compare; the sample is drawn by a fixed seed."""
        from include.monitor.drift import check_drift

        self.link_run(context, self.collected["run_id"])
        matured = self.collected["matured"]
        with self.window_file() as path:
            findings = check_drift(
                self.bench.spec,
                path,
                self.reference,
                labels=self._labels(to_window(matured)) if matured else None,
            )
        return self.keep_findings(context, findings)

    def _labels(self, window: Window) -> pa.Table:
        from include.store.labels import read_labels

        return read_labels(self.bench.store, self.model, window.start, window.end)


class PerformanceOperator(MonitorOperator):
    """Judges the matured window's predictions by the labels that came since; skipped where the spec has none.

    Returns where the `findings` are, and counts.
    """

    def work(self, context: Context) -> dict[str, Any]:
        """Judge; only rows of the version that is judged."""
        from include.monitor.collect import collect
        from include.monitor.performance import check_performance

        self.link_run(context, self.collected["run_id"])
        if not self.collected["matured"]:
            skip(context, "the spec has no monitor.labels")
        bench, window = self.bench, to_window(self.collected["matured"])
        with tempfile.TemporaryDirectory() as folder:
            found = collect(
                bench.spec, bench.store, window, self.collected["version"], out=Path(folder)
            )
            findings = check_performance(
                bench.spec,
                found.path,
                self._labels(window, context),
                self.reference,
                labels_due=any(bench.store.list(f"labels/{self.model}/")),
            )
        return self.keep_findings(context, [*self._unread(), *findings])

    def _unread(self) -> list[Finding]:
        """Return what `collect` said of a source of labels that it could not read."""
        from include.monitor.findings import Finding

        error = self.collected["labels_error"]
        if not error:
            return []
        said = "no new labels, for their source cannot be read: see the log of `collect`"
        return [Finding("coverage", None, "alert", said, examples=(error,))]

    def _labels(self, window: Window, context: Context) -> pa.Table:
        """Return the labels that may belong to the window's predictions.

        One without a time counts by its arrival, which `as_of` does not move: a pass of the past takes all.
        """
        from include.store.labels import read_labels

        at = datetime.fromisoformat(self.collected["at"])
        end = None if as_of(context) else at
        return read_labels(self.bench.store, self.model, window.start, end)
