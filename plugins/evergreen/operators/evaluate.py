"""`evaluate`: the gate."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.operators.ingest import Champion, verdict_key
from evergreen.operators.stage import StageOperator, run_key, utc_now

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.evaluate.model import LoadedModel
    from include.store.snapshots import Manifest


class EvaluateOperator(StageOperator):
    """Judges the challenger against the champion on the same held-out rows.

    A verdict is not a failure: the task is green whatever it says. Returns `verdict`, `reason` and `metrics`.

    Args:
        data: What `ingest` returned.
        split: The holdout, from `validate`.
        fitted: What `fit` returned.
    """

    template_fields: Sequence[str] = (*StageOperator.template_fields, "data", "split", "fitted")

    def __init__(self, *, data: Any, split: Any, fitted: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data = data
        self.split = split
        self.fitted = fitted

    def work(self, context: Context) -> dict[str, Any]:
        """Judge, publish the pages and plots, record the verdict."""
        from include.evaluate.evaluate import evaluate
        from include.store.split import Split

        bench, run_id = self.bench, self.data["run_id"]
        champion = Champion(**self.data["champion"]) if self.data["champion"] else None
        self.link_run(context, run_id)
        manifest = bench.manifest(self.data["snapshot_id"])
        with tempfile.TemporaryDirectory() as folder:
            result = evaluate(
                bench.spec_for(self.data),
                bench.store,
                manifest,
                Split.from_dict(self.split),
                self._challenger(manifest),
                self._load(champion) if champion else None,
                out=Path(folder),
            )
            bench.registry.log_artifacts(run_id, Path(folder), "evaluate")
            page = json.loads(result.verdict_json.read_text())
        bench.registry.log(
            run_id,
            metrics={f"holdout_{name}": value for name, value in result.metrics.items()},
            tags={"evergreen.verdict": result.verdict, "evergreen.reason": result.reason},
        )
        bench.ledger.record(
            self.model,
            "verdict",
            key=verdict_key(self.data["fingerprint"], champion),
            payload={
                "verdict": result.verdict,
                "reason": result.reason,
                "run_id": run_id,
                "page": page,
            },
            actor=run_key(context),
            now=utc_now(),
        )
        self.log.info("%s: %s", result.verdict, result.reason)
        return {"verdict": result.verdict, "reason": result.reason, "metrics": result.metrics}

    def _challenger(self, manifest: Manifest) -> LoadedModel:
        from include.evaluate.model import LoadedModel
        from include.registry.trust import load_model
        from include.store.features import resolve_features

        pipeline = load_model(self.bench.store.fetch(self.fitted["model"]), self.fitted["sha256"])
        features = resolve_features(self.bench.spec_for(self.data), manifest)
        return LoadedModel(
            pipeline, features, self.fitted["classes"], "challenger", self.fitted["cutoff"]
        )

    def _load(self, champion: Champion) -> LoadedModel:
        from include.errors import ConflictError
        from include.evaluate.model import LoadedModel

        version = self.bench.registry.get_version(self.model, champion.version)
        if version is None:
            raise ConflictError(
                f"model {self.model}",
                f"must still have champion version {champion.version}, got none",
                "Start a new run.",
            )
        loaded = self.bench.registry.load(version, self.bench.model_cache)
        return LoadedModel(
            loaded.pipeline, loaded.features, loaded.classes, champion.version, champion.cutoff
        )
