"""Runs in MLflow: found or created by key, logged in batches, finished or reaped, never doubled."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from include.errors import ConflictError
from include.registry.artifacts import fetch_all
from include.registry.connection import EXISTS, Connection

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
TAG_RUN_KEY = "evergreen.run_key"
TAG_TRIAL = "evergreen.trial"
TAG_OPENED = "evergreen.opened_ms"
TAG_FOLDER = "evergreen.folder"
TAG_REAPED = "evergreen.reaped"
_PARENT = "mlflow.parentRunId"
_MAX_PARAM, _MAX_TAG, _MAX_METRICS = 6000, 5000, 1000
_SAFE = re.compile(r"[\w.:@/+ -]{1,250}")


def token(key: str) -> str:
    """Return `key` as it can stand in MLflow's search language: itself, or its sha256."""
    return key if _SAFE.fullmatch(key) else f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def tagged(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags with `evergreen.` before every name that has no dot of its own."""
    named = ((k if "." in k else f"evergreen.{k}", str(v)[:_MAX_TAG]) for k, v in tags.items())
    return dict(named)


class Runs(Connection):
    """The part of the gateway that deals with experiments and runs."""

    def __init__(self, tracking_uri: str) -> None:
        super().__init__(tracking_uri)
        self._experiments: dict[str, str] = {}

    def experiment_id(self, name: str) -> str:
        """Return the id of an experiment, made when missing.

        Raises:
            ConflictError: It was deleted in MLflow.
        """
        if name in self._experiments:
            return self._experiments[name]
        client = self.client
        with self.calls(f"open experiment {name}"):
            found = client.get_experiment_by_name(name)
            if found is None:
                try:
                    client.create_experiment(name)
                except MlflowException as error:  # somebody else made it in between
                    if error.error_code != EXISTS:
                        raise
                found = client.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage != "active":
            raise ConflictError(
                f"MLflow experiment {name!r}",
                "must not be deleted, got a deleted one",
                "Restore it: `mlflow experiments restore` (or `mlflow gc` it away).",
            )
        self._experiments[name] = str(found.experiment_id)
        return self._experiments[name]

    def run_url(self, run_id: str) -> str:
        """Return the page of a run in MLflow's UI, without credentials."""
        client = self.client
        with self.calls(f"find run {run_id}"):
            experiment = client.get_run(run_id).info.experiment_id
        return f"{self.url}/#/experiments/{experiment}/runs/{run_id}"

    def ensure_run(self, experiment: str, run_key: str, name: str, tags: Mapping[str, str]) -> str:
        """Return the id of the one run that belongs to `run_key`, open for logging.

        A finished one is reopened, a missing one is created. MLflow's client may send a POST twice, so the
        key is searched again after creating: the earliest run stays, later ones are deleted.

        Args:
            experiment: Name of the experiment.
            run_key: Same for every attempt of the same work.
            name: Name of the run in the UI.
            tags: Tags to set; names without a dot get `evergreen.` before them.
        """
        client, experiment_id = self.client, self.experiment_id(experiment)
        key = token(run_key)
        condition = f"tags.`{TAG_RUN_KEY}` = '{key}'"
        opened = {TAG_OPENED: str(_now_ms())}
        labels = {**tagged(tags), TAG_RUN_KEY: key, **opened}
        with self.calls(f"open run {name}"):
            found = sorted(self._search([experiment_id], condition), key=_age)
            if not found:
                client.create_run(experiment_id, tags=labels, run_name=name)
                found = sorted(self._search([experiment_id], condition), key=_age)
            run, *spare = found
            for other in spare:
                client.delete_run(other.info.run_id)
            run_id = str(run.info.run_id)
            if run.info.status != "RUNNING":
                client.update_run(run_id, status="RUNNING")
            if any(run.data.tags.get(k) != v for k, v in labels.items()):
                client.log_batch(run_id, tags=[RunTag(k, v) for k, v in labels.items()])
        return run_id

    def find_run(self, experiment: str, run_key: str) -> str | None:
        """Return the id of the run that `ensure_run` made for a key; None when there is none."""
        experiment_id = self.experiment_id(experiment)
        with self.calls(f"look up the run of {run_key}"):
            found = self._search([experiment_id], f"tags.`{TAG_RUN_KEY}` = '{token(run_key)}'")
        return str(min(found, key=_age).info.run_id) if found else None

    def finish_run(self, run_id: str, status: RunStatus = "FINISHED") -> None:
        """Close a run; not through `set_terminated`, which prints the URI, password included."""
        body = {"run_id": run_id, "status": status, "end_time": _now_ms()}
        self._call("POST", "runs/update", json=body)

    def log(
        self,
        run_id: str,
        *,
        metrics: Mapping[str, float | None] | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log what the run does not hold yet; logging the same again changes nothing.

        A parameter is for ever in MLflow: where a later attempt has another value, the new one becomes a tag.
        Metrics that are None are left out.
        """
        client = self.client
        with self.calls(f"log to run {run_id}"):
            held = client.get_run(run_id).data
            points = _points(metrics or {}, held.metrics)
            texts = {k: str(v)[:_MAX_PARAM] for k, v in (params or {}).items()}
            labels = tagged(tags or {})
            labels |= {
                f"evergreen.param.{k}": v for k, v in texts.items() if held.params.get(k, v) != v
            }
            fresh = [Param(k, v) for k, v in texts.items() if k not in held.params]
            news = [RunTag(k, v) for k, v in labels.items() if held.tags.get(k) != v]
            _in_batches(lambda part: client.log_batch(run_id, metrics=part), points, _MAX_METRICS)
            _in_batches(lambda part: client.log_batch(run_id, params=part), fresh, 100)
            _in_batches(lambda part: client.log_batch(run_id, tags=part), news, 100)

    def log_artifacts(self, run_id: str, folder: Path, path: str = "") -> None:
        """Upload every file of a folder, below `path` in the run's artifacts."""
        client = self.client
        with self.calls(f"store the files of run {run_id}"):
            client.log_artifacts(run_id, str(folder), path or None)

    def keep_folder(self, run_id: str, folder: Path, path: str) -> None:
        """Store a folder with a run so that `fetch_folder` finds all of it or nothing: its digest comes last."""
        from include.registry.folder import folder_digest

        self.log_artifacts(run_id, folder, path)
        self.log(run_id, tags={f"{TAG_FOLDER}.{path}": folder_digest(folder)})

    def fetch_folder(self, run_id: str, path: str, into: Path) -> bool:
        """Download what `keep_folder` stored; False when that was never completed.

        Args:
            run_id: The run.
            path: Where in its artifacts.
            into: An empty folder for the files; what is in it after False is of no use.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        from include.registry.folder import folder_digest

        client = self.client
        with self.calls(f"download {path} of run {run_id}"):
            run = client.get_run(run_id)
            digest = run.data.tags.get(f"{TAG_FOLDER}.{path}")
            if digest is None:
                return False
            uri = f"{run.info.artifact_uri}/{path}"
            fetch_all(get_artifact_repository(uri, tracking_uri=self._uri), into)
        return bool(folder_digest(into) == digest)

    def log_trials(self, run_id: str, experiment: str, trials: Sequence[Mapping[str, Any]]) -> None:
        """Show every trial as a child of the run; a trial that is there and finished is left alone.

        Args:
            run_id: The parent.
            experiment: Name of its experiment.
            trials: Mappings with number, candidate, state, value, params and seconds, as `tune` returns them.
        """
        client, experiment_id = self.client, self.experiment_id(experiment)
        with self.calls(f"log the trials of run {run_id}"):
            children = self._search([experiment_id], f"tags.`{_PARENT}` = '{run_id}'")
            known = {child.data.tags.get(TAG_TRIAL, ""): child for child in children}
            for trial in trials:
                key = f"{run_id}:{trial['candidate']}:{trial['number']}"
                child = known.get(key)
                if child is None:
                    tags = {_PARENT: run_id, TAG_TRIAL: key, TAG_OPENED: str(_now_ms())}
                    name = f"candidate {trial['candidate']}, trial {trial['number']}"
                    child = client.create_run(experiment_id, tags=tags, run_name=name)
                elif child.info.status != "RUNNING":
                    continue
                child_id = str(child.info.run_id)
                values = {"value": trial.get("value"), "seconds": trial.get("seconds")}
                params = {"candidate": trial["candidate"], **trial.get("params", {})}
                client.log_batch(
                    child_id,
                    metrics=_points(values, child.data.metrics),
                    params=[Param(k, str(v)[:_MAX_PARAM]) for k, v in params.items()],
                )
                failed = str(trial.get("state", "")).upper() in ("FAIL", "FAILED")
                self.finish_run(child_id, "FAILED" if failed else "FINISHED")

    def open_runs(self, experiment: str) -> dict[str, dict[str, str]] | None:
        """Return tags by id of an experiment's runs that are RUNNING; None where there is no such experiment."""
        client = self.client
        with self.calls(f"find open runs of {experiment}"):
            found = client.get_experiment_by_name(experiment)
            if found is None or found.lifecycle_stage != "active":
                return None
            running = self._search([str(found.experiment_id)], "attributes.status = 'RUNNING'")
        return {str(run.info.run_id): dict(run.data.tags) for run in running}

    def reap_runs(
        self,
        experiment: str | None,
        *,
        older_than: timedelta,
        now: datetime,
        keep: Collection[str],
    ) -> list[str]:
        """Close our runs that a dead worker left RUNNING, and drop the model files of dead attempts.

        Args:
            experiment: Name of the experiment; None for all of them.
            older_than: Age since the run was last opened.
            now: The time, aware.
            keep: Run ids that are known to be alive; their children are kept too.

        Returns:
            The ids of the closed runs.
        """
        client, limit = self.client, int((now - older_than).timestamp() * 1000)
        closed: list[str] = []
        with self.calls("find orphaned runs"):
            ids = (
                [self.experiment_id(experiment)]
                if experiment is not None
                else [str(e.experiment_id) for e in pages(client.search_experiments)]
            )
            orphans = [
                run
                for run in self._search(ids, "attributes.status = 'RUNNING'")
                if _is_orphan(run, limit, keep)
            ]
            for run in orphans:
                client.log_batch(run.info.run_id, tags=[RunTag(TAG_REAPED, now.isoformat())])
                self.finish_run(run.info.run_id, "KILLED")
                closed.append(str(run.info.run_id))
            self._reap_models(ids, limit)
        return closed

    def _reap_models(self, experiment_ids: list[str], limit: int) -> None:
        """Drop logged models that never became a version; the gateway, which knows versions, does it."""

    def _search(self, experiment_ids: list[str], condition: str) -> list[Run]:
        client = self.client
        return list(
            pages(
                lambda page_token: client.search_runs(
                    experiment_ids, condition, max_results=500, page_token=page_token
                )
            )
        )


def pages(search: Callable[..., Any]) -> Iterator[Any]:
    """Yield everything a search of MLflow finds, page by page."""
    page_token = None
    while True:
        page = search(page_token=page_token)
        yield from page
        page_token = page.token
        if not page_token:
            return


def _in_batches(send: Callable[[list[Any]], Any], items: Sequence[Any], size: int) -> None:
    for start in range(0, len(items), size):
        send(list(items[start : start + size]))


def _points(values: Mapping[str, float | None], held: Mapping[str, float]) -> list[Metric]:
    at = _now_ms()
    return [
        Metric(name, float(value), at, 0)
        for name, value in values.items()
        if value is not None and not _same(held.get(name), float(value))
    ]


def _same(old: float | None, new: float) -> bool:
    return old is not None and (old == new or (math.isnan(old) and math.isnan(new)))


def _age(run: Run) -> tuple[int, str]:
    return int(run.info.start_time), str(run.info.run_id)


def _is_orphan(run: Run, limit: int, keep: Collection[str]) -> bool:
    tags = run.data.tags
    if TAG_RUN_KEY not in tags and TAG_TRIAL not in tags:
        return False  # somebody else's
    opened = max(int(run.info.start_time), int(tags.get(TAG_OPENED, 0)))
    alive = run.info.run_id in keep or tags.get(_PARENT) in keep
    return opened < limit and not alive


def _now_ms() -> int:
    return int(time.time() * 1000)
