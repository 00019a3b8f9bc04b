"""`train`: candidates are tuned side by side, then the best one is fitted."""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.operators.stage import StageOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class TuneOperator(StageOperator):
    """Searches one candidate's hyperparameters; mapped over the candidates.

    Returns `candidate`, `best_value`, `best_params`, and how many `trials` there were.

    Args:
        data: What `ingest` returned.
        split: The holdout, from `validate`.
        candidate: Position of the candidate in the spec.
    """

    template_fields: Sequence[str] = (*StageOperator.template_fields, "data", "split", "candidate")

    def __init__(self, *, data: Any, split: Any, candidate: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data = data
        self.split = split
        self.candidate = candidate
        self.candidate_name = (
            f"candidate {candidate}"  # shown in the UI; becomes the estimator's name
        )

    def work(self, context: Context) -> dict[str, Any]:
        """Tune; a retry goes on where the last try stopped."""
        from include.store.split import Split
        from include.train.tune import tune

        bench, run_id, number = self.bench, self.data["run_id"], self.candidate
        self.link_run(context, run_id)
        self.candidate_name = bench.spec.candidates[number].estimator.rpartition(".")[2]
        result = tune(
            bench.spec_for(self.data),
            bench.store,
            bench.manifest(self.data["snapshot_id"]),
            Split.from_dict(self.split),
            number,
            storage=bench.settings.optuna_dsn,
            study=self._study(),
        )
        bench.registry.log_trials(run_id, self.model, result.to_dict()["trials"])
        return {**result.to_dict(), "trials": len(result.trials)}

    def _study(self) -> str:
        """Return the study's name: the same training on the same rows and features goes on with it."""
        rows = json.dumps([self.split, self.data["features"]], sort_keys=True)
        digest = hashlib.sha256(rows.encode()).hexdigest()[:8]
        return f"{self.model}/{self.data['fingerprint']}/{digest}/{self.candidate}"


class FitOperator(StageOperator):
    """Fits the best candidate on everything but the holdout.

    Returns where the `model` lies in the store, its `sha256`, and what it is made of.

    Args:
        data: What `ingest` returned.
        split: The holdout, from `validate`.
        tuned: What the tune tasks returned, in any order.
    """

    template_fields: Sequence[str] = (*StageOperator.template_fields, "data", "split", "tuned")

    def __init__(self, *, data: Any, split: Any, tuned: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data = data
        self.split = split
        self.tuned = tuned

    def work(self, context: Context) -> dict[str, Any]:
        """Fit, and put the model under a name no other try uses."""
        from include.store.split import Split
        from include.train.fit import fit
        from include.train.tune import best_candidate

        bench, run_id = self.bench, self.data["run_id"]
        self.link_run(context, run_id)
        candidate, params = best_candidate(bench.spec, list(self.tuned))
        manifest = bench.manifest(self.data["snapshot_id"])
        with tempfile.TemporaryDirectory() as folder:
            result = fit(
                bench.spec_for(self.data),
                bench.store,
                manifest,
                Split.from_dict(self.split),
                candidate,
                params,
                Path(folder),
            )
            key = f"runs/{self.model}/{self.data['fingerprint']}/{uuid.uuid4().hex[:12]}.skops"
            bench.store.put_file(key, result.model_path)
        estimator = bench.spec.candidates[candidate].estimator
        bench.registry.log(
            run_id,
            params={"estimator": estimator, "seed": bench.spec.train.seed, **params},
            metrics={"fit_seconds": result.seconds, "fit_rows": float(result.rows)},
        )
        return {
            "model": key,
            "sha256": result.sha256,
            "candidate": candidate,
            "estimator": estimator,
            "params": params,
            "classes": result.classes,
            "cutoff": result.cutoff,
        }
