"""`validate`: a snapshot is checked, and the holdout is fixed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.operators.stage import StageOperator, act_time
from include.errors import SnapshotError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.store.snapshots import Manifest
    from include.validate.findings import ValidateResult


class ValidateOperator(StageOperator):
    """Checks the snapshot; a refused one is quarantined and fails the run.

    Returns `warnings` (how many) and `split`, which says for all later stages what the holdout is.

    Args:
        data: What `ingest` returned.
    """

    template_fields: Sequence[str] = (*StageOperator.template_fields, "data")

    def __init__(self, *, data: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data = data

    def work(self, context: Context) -> dict[str, Any]:
        """Validate and plan the split."""
        from include.store.split import plan_split
        from include.validate.stage import validate

        bench, run_id, champion = self.bench, self.data["run_id"], self.data["champion"]
        spec = bench.spec_for(self.data)
        self.link_run(context, run_id)
        manifest = bench.manifest(self.data["snapshot_id"])
        with tempfile.TemporaryDirectory() as folder:
            result = validate(
                spec,
                bench.store,
                manifest,
                now=act_time(context),
                out=Path(folder),
                reference=self._reference(),
            )
            bench.registry.log_artifacts(run_id, Path(folder), "validate")
            self._refuse(manifest, result)
        same_clock = champion and champion["time"] == spec.ingest.time
        split = plan_split(
            spec, bench.store, manifest, not_before=champion["cutoff"] if same_clock else None
        )
        return {"warnings": len(result.warnings), "split": split.to_dict()}

    def _reference(self) -> Manifest | None:
        """Return the manifest of the champion's snapshot, as long as it is kept."""
        champion = self.data["champion"]
        try:
            return self.bench.manifest(champion["snapshot_id"]) if champion else None
        except SnapshotError as error:
            self.log.warning("the champion's snapshot is not compared with: %s", error)
            return None

    def _refuse(self, manifest: Manifest, result: ValidateResult) -> None:
        for finding in (*result.errors, *result.warnings):
            self.log.warning("%s: %s", finding.severity, finding.message)
        if result.ok:
            return
        from include.validate.stage import quarantine

        uri = quarantine(self.bench.spec, self.bench.store, manifest, result)
        result.raise_if_refused(self.model, uri)
