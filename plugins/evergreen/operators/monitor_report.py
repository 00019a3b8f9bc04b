"""`report` and `finish` of a monitor Dag: what was found goes to MLflow, and nothing stays open."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.factory.naming import monitor_experiment
from evergreen.links import REPORT_URL_KEY, TRAINING_RUN_KEY, ReportLink
from evergreen.operators.finish import FinishOperator
from evergreen.operators.monitor import MonitorOperator, work_prefix
from evergreen.operators.stage import skip

if TYPE_CHECKING:
    from airflow.sdk import Context

_ARTIFACTS = "monitor"
_PAGES = ("report.html", "report.json")  # the first one that was written is linked


class ReportOperator(MonitorOperator):
    """Writes the report and logs it to the pass's MLflow run. Returns `verdict`, `report` and `retrain`.

    Args:
        quality: What `quality` returned.
        drift: What `drift` returned.
        performance: What `performance` returned; None where it was skipped.
        decided: What `decide` returned; None where it was skipped.
    """

    operator_extra_links = (*MonitorOperator.operator_extra_links, ReportLink())
    template_fields: Sequence[str] = (
        *MonitorOperator.template_fields,
        "quality",
        "drift",
        "performance",
        "decided",
    )

    def __init__(
        self, *, quality: Any, drift: Any, performance: Any, decided: Any, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.quality = quality
        self.drift = drift
        self.performance = performance
        self.decided = decided

    def work(self, context: Context) -> dict[str, Any]:
        """Write and log; a retry replaces what is there with the same."""
        from include.monitor.report import write_report

        if not self.decided:
            skip(context, "nothing was judged")
        bench, run_id = self.bench, self.collected["run_id"]
        self.link_run(context, run_id)
        retrain = context["ti"].xcom_pull(task_ids="request_retrain", key=TRAINING_RUN_KEY)
        with tempfile.TemporaryDirectory() as folder, self.window_file() as path:
            files = write_report(
                bench.spec,
                Path(folder),
                version=self.collected["version"],
                window=self.window,
                findings=self.read_findings(self.quality, self.drift, self.performance),
                html=bool(context["params"].get("html")),
                path=path,
                reference=self.reference,
            )
            bench.registry.log_artifacts(run_id, Path(folder), _ARTIFACTS)
            written = {file.name for file in files}
        if retrain:
            bench.registry.log(run_id, tags={"evergreen.retrain": retrain["run_id"]})
        page = f"{_ARTIFACTS}/{next(name for name in _PAGES if name in written)}"
        url = f"{bench.hook.run_url(run_id)}/artifactPath/{page}"
        context["ti"].xcom_push(key=REPORT_URL_KEY, value=url)
        return {"verdict": self.decided["verdict"], "report": page, "retrain": retrain}


class MonitorFinishOperator(FinishOperator):
    """Closes the pass's MLflow run and removes its work files; a teardown, so it runs in every case."""

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment the run is in."""
        return monitor_experiment(self.model)

    def work(self, context: Context) -> None:
        """Close and clean up."""
        super().work(context)
        for key in list(self.bench.store.list(work_prefix(self.model, context))):
            self.bench.store.delete(key)
