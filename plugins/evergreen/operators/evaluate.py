"""`evaluate`: the gate."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.operators.ingest import Champion, verdict_key
from evergreen.operators.stage import StageOperator, run_key, utc_now
from include.errors import ModelError, SnapshotError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.evaluate.evaluate import EvaluateResult
    from include.registry.package import Version
    from include.scoring.model import LoadedModel
    from include.store.snapshots import Manifest
    from include.store.split import Split


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
        challenger = self._challenger(manifest)
        rival = self._load(champion, challenger) if champion else None
        with tempfile.TemporaryDirectory() as folder:
            result = evaluate(
                bench.spec_for(self.data),
                bench.store,
                manifest,
                Split.from_dict(self.split),
                challenger,
                rival,
                out=Path(folder),
                legacy=self._legacy(champion, rival),
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
            key=self._ledger_key(champion, result, run_key(context)),
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

    def _ledger_key(self, champion: Champion | None, result: EvaluateResult, run: str) -> str:
        """Return a key that a retry with the same outcome has too, and another outcome has not."""
        said = hashlib.sha256(f"{result.verdict}: {result.reason}".encode()).hexdigest()[:8]
        return f"verdict/{verdict_key(self.data['fingerprint'], champion)}/{run}/{said}"

    def _challenger(self, manifest: Manifest) -> LoadedModel:
        """Return what `register` will return: the version of this training if there is one already."""
        from include.registry.trust import load_model
        from include.scoring.model import LoadedModel
        from include.store.features import resolve_features

        name = self.data["fingerprint"][:8]
        known = self.bench.registry.find_version(self.model, self.data["fingerprint"])
        if known is not None:
            return self._loaded(known, name)
        pipeline = load_model(self.bench.store.fetch(self.fitted["model"]), self.fitted["sha256"])
        features = resolve_features(self.bench.spec_for(self.data), manifest)
        return LoadedModel(
            pipeline,
            features,
            self.fitted["classes"],
            name,
            self.fitted["cutoff"],
        )

    def _loaded(self, version: Version, name: str) -> LoadedModel:
        from include.scoring.model import as_asked

        return as_asked(self.bench.registry.load(version, self.bench.model_cache), name)

    def _load(self, champion: Champion, challenger: LoadedModel) -> LoadedModel:
        """Load the champion; one that cannot be loaded still takes part, and the gate says why it holds."""
        from include.scoring.model import Unloadable

        try:
            version = self.bench.registry.get_version(self.model, champion.version)
            if version is None:
                raise ModelError(
                    f"model {self.model}",
                    f"must still have version {champion.version}, the champion, got none",
                    "Start a new run.",
                )
            return self._loaded(version, champion.version)
        except ModelError as error:
            return replace(
                challenger, pipeline=Unloadable(error), version=champion.version, split=None
            )

    def _legacy(
        self, champion: Champion | None, rival: LoadedModel | None
    ) -> tuple[Manifest, Split] | None:
        """Return the champion's own snapshot and holdout, as long as the snapshot is kept."""
        if champion is None or rival is None or rival.split is None:
            return None
        try:
            return self.bench.manifest(champion.snapshot_id), rival.split
        except SnapshotError as error:
            self.log.warning("the champion's old holdout is not looked at: %s", error)
            return None
