"""Runs and versions of other teams: any logged model becomes a version, once per key.

Such a version carries no digest of Evergreen's. Serving does not load it, and a model that has versions of ours
never takes it as champion (`include.registry.moves`); every other model may be promoted and rolled back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from include.errors import ConflictError, DataError, ModelError
from include.registry.connection import EXISTS, is_missing
from include.registry.package import TAG_KEY, Version, chosen
from include.registry.runs import pages, token

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

    from include.registry.gateway import Registry

TAG_SOURCE = "evergreen.source"
_OURS = "evergreen."
_FORMS = "models:/<model id> or runs:/<run id>/<path>"
_MAX_TAG = 5000


@dataclass(frozen=True)
class _Origin:
    """Where a version's files lie: the URI MLflow is given, the run, and the logged model if there is one."""

    uri: str
    run_id: str
    model_id: str | None


def register_source(
    registry: Registry,
    name: str,
    source: str,
    *,
    run_id: str | None = None,
    key: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Version:
    """Return the one version that belongs to `key`; create it from a logged model when it is not there.

    Args:
        registry: The registry.
        name: Name of the registered model; made when missing.
        source: `models:/<model id>`, or `runs:/<run id>/<path>` of a model among a run's files.
        run_id: The run that made it; None to take it from the source.
        key: Same for every attempt; None is the source itself, so that a model is registered once.
        tags: Tags of the version, as they are; names must not begin with `evergreen.`.

    Raises:
        DataError: The source is of another form, the run is another one, or a name or a tag is not allowed.
        ModelError: There is no usable model at the source.
        ConflictError: The key belongs to another source.
        ServiceError: MLflow is away or refuses.
    """
    own = token(key or source)
    labels = {**_allowed(tags or {}), TAG_KEY: own, TAG_SOURCE: source}
    found = _same_key(registry, name, own)
    if not found:
        _check_name(name)
        origin = _resolve(registry, source, run_id)
        client = registry.client
        with registry.calls(f"register {name}"):
            try:
                client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != EXISTS:
                    raise
            client.create_model_version(
                name,
                origin.uri,
                origin.run_id or None,
                tags=labels,
                await_creation_for=None,
                model_id=origin.model_id,
            )
        found = _same_key(registry, name, own)
    return _settle(registry, name, source, found)


def label_run(registry: Registry, run_id: str, tags: Mapping[str, str]) -> None:
    """Set a run's tags under exactly these names.

    Raises:
        DataError: A name begins with `evergreen.`.
    """
    labels = [RunTag(name, value) for name, value in _allowed(tags).items()]
    client = registry.client
    with registry.calls(f"tag run {run_id}"):
        for start in range(0, len(labels), 100):
            client.log_batch(run_id, tags=labels[start : start + 100])


def _same_key(registry: Registry, name: str, key: str) -> list[Version]:
    return [v for v in registry.versions(name) if v.tags.get(TAG_KEY) == key and not v.digest]


def _settle(registry: Registry, name: str, source: str, found: list[Version]) -> Version:
    """Keep one version of a key, the same one whoever looks: MLflow's client may send a POST twice."""
    if not found:
        raise registry.failure(
            f"must list the version of {name} just created, got none", "Try again."
        )
    keep = chosen(found)
    if keep.tags.get(TAG_SOURCE) != source:
        raise ConflictError(
            f"MLflow model {name!r}",
            f"a key must belong to one source, got version {keep.version}, which is "
            f"{keep.tags.get(TAG_SOURCE)}, not {source}",
            "Choose another key.",
        )
    registry.delete_doubles(keep, found)
    return keep


def _resolve(registry: Registry, source: str, run_id: str | None) -> _Origin:
    scheme, _, rest = source.partition(":/")
    head, _, path = rest.strip("/").partition("/")
    if scheme == "models" and head and not path and "@" not in head:
        origin = _logged(_model(registry, head))
    elif scheme == "runs" and head and path:
        origin = _in_run(registry, head, path)
    else:
        raise DataError("source", f"must be {_FORMS}, got {source!r}", "Correct it.")
    if run_id and origin.run_id and run_id != origin.run_id:
        raise DataError(
            "run_id",
            f"must be the run that made {source}, {origin.run_id}, got {run_id}",
            "Leave it out, or correct it.",
        )
    return _Origin(origin.uri, origin.run_id or run_id or "", origin.model_id)


def _model(registry: Registry, model_id: str) -> LoggedModel:
    client = registry.client
    with registry.calls(f"find the logged model {model_id}"):
        try:
            return client.get_logged_model(model_id)
        except MlflowException as error:
            if not is_missing(error):
                raise
    raise ModelError(f"models:/{model_id}", "must be a logged model, got none", "Log it first.")


def _logged(model: LoggedModel) -> _Origin:
    uri = f"models:/{model.model_id}"
    if str(model.status) != "READY":
        raise ModelError(uri, f"must be ready, got {model.status}", "Log the model again.")
    return _Origin(uri, str(model.source_run_id or ""), str(model.model_id))


def _in_run(registry: Registry, run_id: str, path: str) -> _Origin:
    """Find a model by its path in a run: one that was logged under that name, or plain files with an MLmodel."""
    client = registry.client
    run = _run(registry, run_id)
    with registry.calls(f"look into run {run_id}"):
        named = [
            model
            for model in _named(client, str(run.info.experiment_id), path)
            if model.source_run_id == run_id
        ]
        if named:
            return _logged(max(named, key=lambda model: int(model.creation_timestamp)))
        # Not where a logged model has this name: MLflow would look for its files on its default server.
        files = {str(item.path) for item in client.list_artifacts(run_id, path)}
    if f"{path}/MLmodel" not in files:
        raise ModelError(
            f"runs:/{run_id}/{path}",
            f"must be a folder with a file MLmodel, got {', '.join(sorted(files)[:5]) or 'nothing'}",
            "Log a model there first.",
        )
    return _Origin(f"{str(run.info.artifact_uri).rstrip('/')}/{path}", run_id, None)


def _named(client: MlflowClient, experiment_id: str, name: str) -> Iterator[LoggedModel]:
    if set(name) & set("'/"):
        return iter(())  # not a name a logged model can have
    return pages(
        lambda page_token: client.search_logged_models(
            [experiment_id], f"name = '{name}'", page_token=page_token
        )
    )


def _run(registry: Registry, run_id: str) -> Run:
    client = registry.client
    with registry.calls(f"find run {run_id}"):
        try:
            return client.get_run(run_id)
        except MlflowException as error:
            if not is_missing(error):
                raise
    raise ModelError(f"runs:/{run_id}", "must be a run, got none", "Correct the run's id.")


def _allowed(tags: Mapping[str, str]) -> dict[str, str]:
    for name in tags:
        if name.startswith(_OURS):
            raise DataError(
                "tags", f"must not begin with {_OURS}, got {name!r}", "Choose another name."
            )
    return {str(name): str(value)[:_MAX_TAG] for name, value in tags.items()}


def _check_name(name: str) -> None:
    if not name.strip() or set(name) & set("/:"):
        raise DataError(
            "name", f"must not be empty or hold / or :, got {name!r}", "Choose another name."
        )
