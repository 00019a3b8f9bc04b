"""The clean-up's second half: what nothing needs any more is listed, then removed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from evergreen.factory.naming import monitor_dag_id, training_dag_id
from evergreen.operators.reap import ReapOperator
from evergreen.operators.stage import run_key, skip
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
        for dag_id in (training_dag_id(model), monitor_dag_id(model)):
            if context["ti"].get_dr_count(dag_id=dag_id, states=["running"]):
                return Needs(hold=f"a run of {dag_id} is under way")
        registry = self.bench.registry
        versions = registry.versions(model)
        champion = self._champion(model)
        if champion and champion not in {version.version for version in versions}:
            # Another server, or one that lost its data: whatever it does not list may be needed after all.
            return Needs(hold=f"MLflow does not know version {champion}, the ledger's champion")
        tags = [dict(version.tags) for version in versions]
        tags += (registry.open_runs(model) or {}).values()
        return Needs(frozenset(t[_SNAPSHOT] for t in tags if _SNAPSHOT in t))

    def _champion(self, model: str) -> str | None:
        moves = self.bench.ledger.events(model, _MOVES, limit=1)
        return moves[-1].payload.get("to") if moves else None


class PlanOperator(_StoreOperator):
    """Lists what nothing needs any more, into the log and the store; removes nothing.

    Returns `plan`, its key in the store, `entries`, `bytes`, and `models`: what it holds of each, in words.
    """

    def act(self, context: Context, now: datetime, *, dry: bool) -> dict[str, Any]:  # noqa: ARG002
        """Write the plan."""
        from include.store.prune import plan_prune
        from include.store.prune_plan import describe

        plan = plan_prune(self.bench.store, self.ages(now), lambda m: self.needs(context, m))
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
        }


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
            gone = []
            for entry in entries:
                if prune(self.bench.store, entry, ages, lambda m: self.needs(context, m)):
                    gone.append(entry)
                else:
                    self.log.info("kept after all: %s", entry.key)
            self._record(context, model, gone, now)
            removed += len(gone)
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
        self.bench.ledger.record(model, "pruned", f"pruned/{actor}", payload, actor, now)


def _by_model(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    models = sorted({entry.model for entry in entries})
    return {model: [entry for entry in entries if entry.model == model] for model in models}
