"""The clean-up's second half: what nothing needs any more is listed, then removed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from evergreen.factory.naming import monitor_dag_id, training_dag_id
from evergreen.operators.reap import ReapOperator
from evergreen.operators.stage import run_key, skip
from include.errors import DataError
from include.spec.loader import spec_paths
from include.spec.schema import NAME_PATTERN

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.store.prune import Ages, Needs
    from include.store.prune_plan import Entry

_SNAPSHOT = "evergreen.snapshot_id"
_MOVES = ("promotion", "rollback", "external_move")


class _StoreOperator(ReapOperator):
    """What finding and removing have in common: what is old, and what is needed."""

    def ages(self, now: datetime) -> Ages:
        """When things are old, by the settings and the specs."""
        from include.store.prune import Ages

        logs = {spec.model: spec.monitor.keep for spec in self.specs}
        return Ages(now, timedelta(days=self.bench.settings.keep_days), logs)

    def needs(self, context: Context, model: str) -> Needs:
        """What of a model has to stay, as of now.

        Raises:
            ServiceError: MLflow does not say: then nothing may be removed.
        """
        from include.store.prune import Needs

        if not re.fullmatch(NAME_PATTERN, model):
            return Needs(hold="no model can have this name")
        history = self.has_history(model)
        if model not in self._names and not history:
            return Needs(hold="it has neither a spec nor a row of the ledger here: it is not ours")
        for dag_id in (training_dag_id(model), monitor_dag_id(model)):
            # A queued run may find its data to be that of an old snapshot, and use it.
            if context["ti"].get_dr_count(dag_id=dag_id, states=["queued", "running"]):
                return Needs(hold=f"a run of {dag_id} is under way")
        registry = self.bench.registry
        versions = registry.versions(model)
        if not versions and not history:
            return Needs(hold="neither MLflow nor the ledger knows of it: it may not be ours")
        champion = self._champion(model)
        if champion and champion not in {version.version for version in versions}:
            # Another server, or one that lost its data: whatever it does not list may be needed after all.
            return Needs(hold=f"MLflow does not know version {champion}, the ledger's champion")
        tags = [dict(version.tags) for version in versions]
        tags += (registry.open_runs(model) or {}).values()
        return Needs(frozenset(t[_SNAPSHOT] for t in tags if _SNAPSHOT in t))

    @cached_property
    def _names(self) -> set[str]:
        """Models that have a spec here, be it a broken one."""
        return {path.stem for path in spec_paths(self.bench.settings)}

    def _champion(self, model: str) -> str | None:
        moves = self.bench.ledger.events(model, _MOVES, limit=1)
        return moves[-1].payload.get("to") if moves else None


class PlanOperator(_StoreOperator):
    """Lists what nothing needs any more, into the log and the store; removes nothing.

    A model whose needs cannot be told is left alone, and `prune` fails with it once it is through with the others.

    Returns `plan`, its key in the store, `entries`, `bytes`, `models`: what it holds of each, in words, and
    `broken`: what went wrong, by model.
    """

    def act(self, context: Context, now: datetime, *, dry: bool) -> dict[str, Any]:  # noqa: ARG002
        """Write the plan."""
        from include.store.prune import plan_prune
        from include.store.prune_plan import describe

        plan = plan_prune(self.bench.store, self.ages(now), lambda m: self._known(context, m))
        broken = {model: str(error) for model, error in self.broken.items()}
        self.broken.clear()  # for `prune` to say: it must run for the others
        for model, hold in plan.held.items():
            self.log.warning("%s is left alone: %s", model, hold)
        for entry in plan.entries:
            self.log.info("%s, %d bytes: %s", entry.key, entry.bytes, entry.reason)
        key = f"reap/{context['dag_run'].run_id}.json"
        self.bench.store.write_bytes(key, plan.to_json().encode())
        self.log.info("in all: %s", describe(plan.entries))
        by_model = _by_model(plan.entries)
        return {
            "plan": key,
            "entries": len(plan.entries),
            "bytes": sum(entry.bytes for entry in plan.entries),
            "models": {model: describe(found) for model, found in by_model.items() if model},
            "broken": broken,
        }

    def _known(self, context: Context, model: str) -> Needs:
        from include.store.prune import Needs

        with self.going_on(model):
            return self.needs(context, model)
        return Needs(hold=f"it cannot be told what it needs: {self.broken[model]}")


class PruneOperator(_StoreOperator):
    """Removes what the plan lists, and nothing else; each entry is looked at again right before.

    Returns how many entries were `removed`, and how many `kept` because they are needed by now.

    Args:
        plan: What `plan` returned.
    """

    template_fields: Sequence[str] = ("plan",)

    def __init__(self, *, plan: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan

    def act(self, context: Context, now: datetime, *, dry: bool) -> dict[str, int]:
        """Remove, and record what was removed of each model."""
        from include.store.caches import prune_caches
        from include.store.prune import prune
        from include.store.prune_plan import Plan, readable

        if dry:
            skip(context, f"dry run: {self.plan['entries']} entries would be removed")
        plan = Plan.from_json(self.bench.store.read_bytes(self.plan["plan"]))
        ages, removed = self.ages(now), 0
        for model, entries in _by_model(plan.entries).items():
            gone: list[Entry] = []
            with self.going_on(model or "old plans"):
                for entry in entries:
                    if prune(self.bench.store, entry, ages, lambda m: self.needs(context, m)):
                        gone.append(entry)
                    else:
                        self.log.info("kept after all: %s", entry.key)
            with self.going_on(model or "old plans"):
                self._record(context, model, gone, now)
            removed += len(gone)
        for model, said in self.plan.get("broken", {}).items():
            self.broken[model] = DataError(
                f"plan of {model}", f"must be made, got {said.rstrip('.')}", "Clear it."
            )
        freed = prune_caches(self.bench.settings.home / "cache", now - ages.keep)
        self.log.info("caches of this machine: removed %s", readable(freed))
        return {"removed": removed, "kept": len(plan.entries) - removed}

    def _record(self, context: Context, model: str, gone: list[Entry], now: datetime) -> None:
        from include.store.prune_plan import describe

        if not gone:
            return
        self.log.info("%s: removed %s", model or "of no model", describe(gone))
        if not model:
            return
        kinds = [entry.kind for entry in gone]
        payload = {
            "reason": f"nothing needs them: {describe(gone)}",
            "counts": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
            "bytes": sum(entry.bytes for entry in gone),
        }
        actor = run_key(context)
        # A run that is cleared makes another plan: what goes then is another row.
        key = f"pruned/{actor}/{_digest(gone)}"
        self.bench.ledger.record(model, "pruned", key, payload, actor, now)


def _by_model(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    models = sorted({entry.model for entry in entries})
    return {model: [entry for entry in entries if entry.model == model] for model in models}


def _digest(entries: Sequence[Entry]) -> str:
    """Return what tells these entries from others."""
    return hashlib.sha256("\n".join(sorted(e.key for e in entries)).encode()).hexdigest()[:12]
