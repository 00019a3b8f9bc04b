"""`ingest`: upstream data becomes a snapshot, and the run gets its identity."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from evergreen.factory.naming import fingerprint
from evergreen.hooks.sources import source_options
from evergreen.operators.stage import StageOperator, run_key, utc_now
from include.errors import ModelError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.store.snapshots import Manifest


@dataclass(frozen=True)
class Champion:
    """The champion this run is measured against, pinned when the run starts."""

    version: str
    snapshot_id: str
    cutoff: str | None
    key: str


class IngestOperator(StageOperator):
    """Reads the source into a snapshot; skips the run when this data was judged before.

    Returns `snapshot_id`, `rows`, `spec_hash`, `fingerprint`, `run_id` (MLflow), `champion`, the version that later
    stages compare with (None for the first model), and `features`, the champion's where the spec
    leaves them open.
    """

    def work(self, context: Context) -> dict[str, Any]:
        """Ingest, open the MLflow run, look up what is known of this data."""
        from include.ingest.ingest import ingest

        bench, champion = self.bench, self._champion()
        result = ingest(
            bench.spec,
            bench.store,
            now=utc_now(),
            expected=self._expected(champion),
            **source_options(bench.spec.ingest.source),
        )
        manifest = result.manifest
        key = fingerprint(manifest.snapshot_id, bench.spec.spec_hash)
        if not context["params"].get("force"):
            self._skip_if_judged(key, champion)
        run_id = bench.registry.ensure_run(
            self.model,
            run_key(context),
            context["dag_run"].run_id,
            self._tags(manifest, key, context),
        )
        self.link_run(context, run_id)
        return {
            "snapshot_id": manifest.snapshot_id,
            "rows": manifest.rows,
            "spec_hash": bench.spec.spec_hash,
            "fingerprint": key,
            "run_id": run_id,
            "champion": asdict(champion) if champion else None,
            "features": self._features(champion),
        }

    def _champion(self) -> Champion | None:
        version = self.bench.registry.get_version(self.model, "champion")
        if version is None:
            return None
        tags = version.tags
        return Champion(
            version.version,
            tags.get("evergreen.snapshot_id", ""),
            tags.get("evergreen.cutoff") or None,
            tags.get("evergreen.key", ""),
        )

    def _expected(self, champion: Champion | None) -> Manifest | None:
        if champion is None or not champion.snapshot_id:
            return None
        return self.bench.manifest(champion.snapshot_id)

    def _features(self, champion: Champion | None) -> dict[str, list[str]] | None:
        """Return the champion's features where the spec leaves them open; None where they are listed."""
        registry = self.bench.registry
        version = registry.get_version(self.model, champion.version) if champion else None
        if version is None or self.bench.spec.ingest.features is not None:
            return None
        try:
            features = registry.load(version, self.bench.model_cache).features
        except ModelError as error:  # the gate will hold; until then the snapshot's own columns do
            self.log.warning("the champion's features are not known: %s", error)
            return None
        return {"numeric": list(features.numeric), "categorical": list(features.categorical)}

    def _skip_if_judged(self, key: str, champion: Champion | None) -> None:
        if champion and champion.key == key:
            reason = f"version {champion.version}, the champion, was trained from this very data and spec"
        elif taken_back := self._taken_back(key):
            reason = f"the version of this very data and spec was promoted before, and {taken_back}"
        else:
            event = self.bench.ledger.find(self.model, verdict_key(key, champion))
            if event is None or event.payload["verdict"] not in ("HOLD", "REJECT"):
                return
            reason = f"this very data and spec were judged before: {event.payload['verdict']}"
        raise AirflowSkipException(f"no new data: {reason}. Pass force to train anyway.")

    def _taken_back(self, key: str) -> str | None:
        """Return how somebody took the promotion of this training back; None when nobody did.

        A deploy that took its own promotion back, because serving did not follow, may be tried again.
        """
        moves = self.bench.ledger.events(self.model, ("promotion", "rollback", "external_move"))
        made = [n for n, e in enumerate(moves) if e.key.startswith(f"promote/{key}/")]
        back = (
            next((e for e in moves[made[-1] + 1 :] if e.kind != "promotion"), None)
            if made
            else None
        )
        if back is None or back.key.startswith(f"undo/{key}/"):
            return None
        return f"taken back by {back.actor}: {back.payload['reason']}"

    def _tags(self, manifest: Manifest, key: str, context: Context) -> dict[str, str]:
        run = context["dag_run"]
        return {
            "evergreen.model": self.model,
            "evergreen.snapshot_id": manifest.snapshot_id,
            "evergreen.spec_hash": self.bench.spec.spec_hash,
            "evergreen.key": key,
            "airflow.dag_id": run.dag_id,
            "airflow.run_id": run.run_id,
        }


def verdict_key(key: str, champion: Champion | None) -> str:
    """Return the ledger key under which the verdict on a training stands."""
    return f"verdict/{key}/{champion.version if champion else 'none'}"
