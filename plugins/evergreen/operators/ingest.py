"""`ingest`: upstream data becomes a snapshot, and the run gets its identity."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from evergreen.factory.naming import fingerprint
from evergreen.hooks.sources import source_options
from evergreen.operators.stage import StageOperator, as_of, run_key, skip, utc_now
from include.errors import ModelError, SnapshotError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.store.snapshots import Manifest


@dataclass(frozen=True)
class Champion:
    """The champion this run is measured against, pinned when the run starts."""

    version: str
    snapshot_id: str
    cutoff: str | None
    time: str | None
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
        from include.registry.rollouts import settle

        settle(self.bench.registry, self.bench.ledger, self.model)  # ended while MLflow was away
        bench, champion = self.bench, self._champion()
        expected = self._expected(champion)
        result = ingest(
            bench.spec,
            bench.store,
            now=utc_now(),
            as_of=as_of(context),
            expected=expected,
            **source_options(bench.spec.ingest.source),
        )
        manifest = result.manifest
        forced = bool(context["params"].get("force"))
        salt = run_key(context) if forced else ""  # a forced run makes a version of its own
        key = fingerprint(manifest.snapshot_id, bench.spec.spec_hash, salt)
        if not forced:
            self._skip_if_judged(key, champion, context)
            self._skip_if_too_little(manifest, expected, context)
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
            tags.get("evergreen.time") or None,
            tags.get("evergreen.key", ""),
        )

    def _expected(self, champion: Champion | None) -> Manifest | None:
        try:
            return self.bench.manifest(champion.snapshot_id) if champion else None
        except SnapshotError as error:  # cleaned away: training must go on without it
            self.log.warning("the champion's snapshot is not compared with: %s", error)
            return None

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

    def _skip_if_judged(self, key: str, champion: Champion | None, context: Context) -> None:
        if champion and champion.key == key:
            reason = f"version {champion.version}, the champion, was trained from this very data and spec"
        elif taken_back := self._taken_back(key):
            reason = f"the version of this very data and spec was promoted before, and {taken_back}"
        elif home := self._sent_home(key, champion):
            reason = (
                f"the version of this very data and spec was tried on live traffic before: {home}"
            )
        else:
            said = self._said_no(key, champion)
            if said is None:
                return
            reason = f"this very data and spec were judged before: {said}"
        self._skip(context, f"no new data: {reason}. Pass force to train anyway.")

    def _skip_if_too_little(
        self, manifest: Manifest, before: Manifest | None, context: Context
    ) -> None:
        """Skip a run nobody asked for by hand when the champion has seen nearly all of its data."""
        from include.store.growth import count_new_rows

        spec = self.bench.spec
        least = spec.retrain.min_new_rows
        decision = context["ti"].xcom_pull(task_ids="admit") or {}
        if not least or before is None or decision.get("trigger") in ("manual", "api"):
            return
        new = count_new_rows(self.bench.store, manifest, before, spec.ingest.time)
        if new < least:
            self._skip(
                context,
                f"too little new data: {new} rows since the champion's snapshot, {least} are needed",
            )

    def _skip(self, context: Context, reason: str) -> NoReturn:
        """Write down why nothing is trained, and skip the run."""
        self.bench.ledger.record(
            self.model,
            "skip",
            key=f"skip/{run_key(context)}",
            payload={"verdict": "SKIP", "reason": reason},
            actor=run_key(context),
            now=utc_now(),
        )
        skip(context, reason)

    def _said_no(self, key: str, champion: Champion | None) -> str | None:
        """Return the newest verdict or answer on this training, if it is a no."""
        prefixes = tuple(
            f"{kind}/{verdict_key(key, champion)}/" for kind in ("verdict", "approval")
        )
        events = self.bench.ledger.events(self.model, ("verdict", "approval"))
        newest = next((e for e in reversed(events) if e.key.startswith(prefixes)), None)
        said = str(newest.payload["verdict"]) if newest else None
        return said if said in ("HOLD", "REJECT") else None

    def _sent_home(self, key: str, champion: Champion | None) -> str | None:
        """Return why the newest rollout against this champion was stopped, if it was this training's."""
        from include.registry.rollouts import latest

        standing = latest(self.bench.ledger, self.model)
        if standing is None or standing.outcome != "STOPPED" or champion is None:
            return None
        verdicts = self.bench.ledger.events(self.model, "verdict", prefix=f"verdict/{key}/")
        mine = standing.champion == champion.version and any(
            event.actor == standing.actor for event in verdicts
        )
        return standing.reason if mine else None

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
    """Return what verdicts and answers on a training against a champion have in common in the ledger."""
    return f"{key}/{champion.version if champion else 'none'}"
