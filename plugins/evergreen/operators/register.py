"""`register`: a model that passed the gate, or nearly, becomes a version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from evergreen.operators.stage import StageOperator, run_key, utc_now

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.engines.convert import Conversion
    from include.registry.package import Package
    from include.store.snapshots import Manifest


class RegisterOperator(StageOperator):
    """Registers the challenger, once per snapshot and spec.

    A rejected model is not registered; one on hold is registered without an alias. Returns `version` and
    `verdict`.

    Args:
        data: What `ingest` returned.
        split: The holdout, from `validate`.
        fitted: What `fit` returned.
        verdict: What `evaluate` returned.
    """

    template_fields: Sequence[str] = (
        *StageOperator.template_fields,
        "data",
        "split",
        "fitted",
        "verdict",
    )

    def __init__(self, *, data: Any, split: Any, fitted: Any, verdict: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data = data
        self.split = split
        self.fitted = fitted
        self.verdict = verdict

    def work(self, context: Context) -> dict[str, Any]:
        """Register, and nominate the version when it may go on; what a backfill made goes nowhere."""
        from include.registry.promotion import nominate

        if self.verdict["verdict"] == "REJECT":
            raise AirflowSkipException(f"REJECT: {self.verdict['reason']}")
        bench, run_id = self.bench, self.data["run_id"]
        self.link_run(context, run_id)
        manifest = bench.manifest(self.data["snapshot_id"])
        package = self._package(manifest)
        version = bench.registry.find_version(self.model, self.data["fingerprint"])
        tags = self._tags(context)
        if version is None:
            conversion = self._convert(package, manifest)
            self.log.info("engine %s: %s", *conversion.tags().values())
            package = replace(package, engine=conversion.engine, files=conversion.files)
            tags |= conversion.tags()
        # Registering again is only for what a killed attempt left undone: the version keeps its tags.
        version = bench.registry.register(
            package, run_id=run_id, key=self.data["fingerprint"], tags=tags
        )
        backfill = (
            context["dag_run"].run_type.value == "backfill"
        )  # it is about the past: see `deploy`
        if self.verdict["verdict"] in ("PROMOTE", "NEEDS_APPROVAL") and not backfill:
            nominate(
                bench.registry,
                bench.ledger,
                self.model,
                version.version,
                key=f"challenger/{self.data['fingerprint']}/{run_key(context)}",
                actor=run_key(context),
                now=utc_now(),
            )
        return {"version": version.version, "verdict": self.verdict["verdict"]}

    def _convert(self, package: Package, manifest: Manifest) -> Conversion:
        """Return what serving will compute with: ONNX where that says the same on the holdout."""
        from threadpoolctl import threadpool_limits

        from include.engines.convert import convert
        from include.engines.sample import holdout_sample
        from include.registry.trust import load_model
        from include.store.split import Split

        rows = holdout_sample(
            self.bench.store, manifest, Split.from_dict(self.split), package.features
        )
        with threadpool_limits(1):
            return convert(
                load_model(package.model_path, package.sha256),
                package.features,
                package.task,
                rows,
                budget=self.bench.spec.register_.parity,
            )

    def _package(self, manifest: Manifest) -> Package:
        from include.registry.package import Package
        from include.store.example import example_frame
        from include.store.features import resolve_features

        spec, store = self.bench.spec_for(self.data), self.bench.store
        features = resolve_features(spec, manifest)
        chosen = spec.candidates[self.fitted["candidate"]]
        return Package(
            name=self.model,
            model_path=store.fetch(self.fitted["model"]),
            sha256=self.fitted["sha256"],
            features=features,
            types={name: manifest.types[name] for name in features.names},
            classes=self.fitted["classes"],
            task=spec.task,
            target=spec.ingest.target,
            example=example_frame(store, manifest, features),
            meta={
                "snapshot_id": manifest.snapshot_id,
                "spec_hash": self.data["spec_hash"],
                "cutoff": self.fitted["cutoff"],
                "key": spec.ingest.key,  # serving logs them with each prediction, where a caller sends them
                "time": spec.ingest.time,
                "split": self.split,
                "estimator": self.fitted["estimator"],
                "params": self.fitted["params"],
                "fixed": chosen.model_dump()["params"],
                # What shaped the version, so that it can be made again; never `notify` and its secrets.
                "spec": self.bench.spec.shaping(),
                "metrics": self.verdict["metrics"],
            },
        )

    def _tags(self, context: Context) -> dict[str, str]:
        from include.registry.lineage import git_commit, lock_hash

        run, spec = context["dag_run"], self.bench.spec
        tags = {
            "evergreen.snapshot_id": self.data["snapshot_id"],
            "evergreen.spec_hash": spec.spec_hash,
            "evergreen.git_commit": git_commit(),
            "evergreen.lock_hash": lock_hash(),
            "evergreen.seed": str(spec.train.seed),
            "evergreen.cutoff": self.fitted["cutoff"] or "",
            "evergreen.time": spec.ingest.time or "",
            "evergreen.verdict": self.verdict["verdict"],
            "airflow.dag_id": run.dag_id,
            "airflow.run_id": run.run_id,
        }
        return {name: value for name, value in tags.items() if value}
