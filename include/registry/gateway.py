"""The gateway to MLflow: runs (inherited), versions, aliases, loading. Nothing else in Evergreen imports MLflow.

MLflow offers neither idempotent creation nor compare-and-set; both are built here from tags, a fixed order of
steps and a second look. Who may move an alias, and the record of it, is `include.registry.promotion`'s.

Scikit-learn and skops are imported only where a model is read or written: most tasks talk to MLflow without one, and
their processes would spend more time on that import than on their work.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from include.errors import ConflictError, EvergreenError
from include.registry.artifacts import REMOTE, fetch_all
from include.registry.connection import EXISTS, is_missing
from include.registry.package import (
    PRODUCER,
    TAG_DIGEST,
    TAG_KEY,
    TAG_MODEL_ID,
    TAG_PRODUCER,
    LoadedPackage,
    Package,
    Version,
    VersionFolder,
    chosen,
)
from include.registry.runs import Runs, pages, tagged, token


class Registry(Runs):
    """One MLflow server: `Registry("http://user:password@host:5001")`.

    Raises:
        ServiceError: From every method, when the server is away (within about 10 seconds) or refuses.
    """

    # --- versions ---------------------------------------------------------------------------------

    def register(
        self, package: Package, *, run_id: str, key: str, tags: Mapping[str, str]
    ) -> Version:
        """Return the one version that belongs to `key`; upload and create it when it is not there.

        A version is created last, in one transaction with its tags, so that a killed attempt leaves no half
        version: only files that nobody refers to, which `reap_runs` drops.

        Args:
            package: The model.
            run_id: The run that produced it.
            key: Same for the same snapshot and spec; at most one version has it.
            tags: Lineage: snapshot, spec hash, git commit, lock hash, seed, Dag run; names without a dot get
                `evergreen.` before them.

        Raises:
            ModelError: The model file is not what `package` says.
        """
        found = self.find_version(package.name, key)
        if found is None:
            model_id, digest = self._upload(package, run_id, token(key))
            self._ensure_model(package.name)
            labels = tagged(tags) | {
                TAG_PRODUCER: PRODUCER,
                TAG_KEY: token(key),
                TAG_DIGEST: digest,
                TAG_MODEL_ID: model_id,
                "evergreen.model_sha256": package.sha256,
            }
            client = self.client
            with self.calls(f"register {package.name}"):
                client.create_model_version(
                    package.name,
                    f"models:/{model_id}",
                    run_id,
                    tags=labels,
                    description=_describe(package),
                    await_creation_for=None,
                    model_id=model_id,
                )
            found = self._settle(package.name, token(key))
        self._show_output(found)
        return found

    def find_version(self, name: str, key: str) -> Version | None:
        """Return the version that `register` made for `key`, or None."""
        same = self._same_key(name, token(key))
        return chosen(same) if same else None

    def get_version(self, name: str, version_or_alias: str) -> Version | None:
        """Return a version by number or alias; None when there is none."""
        client = self.client
        with self.calls(f"look up {name} {version_or_alias}"):
            try:
                if version_or_alias.isdigit():
                    return _version(client.get_model_version(name, version_or_alias))
                return _version(client.get_model_version_by_alias(name, version_or_alias))
            except MlflowException as error:
                if is_missing(error):
                    return None
                raise

    def versions(self, name: str) -> list[Version]:
        """Return all versions of a model, newest first."""
        return self._search_versions(f"name = '{name}'")

    def delete_doubles(self, keep: Version, same: Iterable[Version]) -> None:
        """Delete the versions of one key but `keep`, and but those with an alias."""
        client = self.client
        with self.calls(f"delete doubles of {keep.name} {keep.version}"):
            for spare in same:
                if spare.version == keep.version or spare.aliases:
                    continue  # deleting an aliased version would silently delete the alias
                try:
                    client.delete_model_version(keep.name, spare.version)
                except MlflowException as error:
                    if not is_missing(error):
                        raise

    # --- aliases ----------------------------------------------------------------------------------

    def aliases(self, name: str) -> dict[str, str]:
        """Return version by alias. Read from the model: searches for versions return none."""
        client = self.client
        with self.calls(f"read the aliases of {name}"):
            try:
                found = client.get_registered_model(name).aliases
            except MlflowException as error:
                if is_missing(error):
                    return {}
                raise
        return {str(alias): str(version) for alias, version in found.items()}

    def set_alias(
        self, name: str, alias: str, version: str | None, *, expected: str | None
    ) -> None:
        """Point an alias at a version if it points where it is expected to; already there is fine.

        Args:
            name: The model.
            alias: champion, previous_champion, challenger or anybody's own.
            version: The new target; None removes the alias.
            expected: The version it points at now; None for no such alias.

        Raises:
            ConflictError: It points elsewhere, or the version does not exist. Nothing was written.
        """
        current = self.aliases(name).get(alias)
        if current == version:
            return
        if current != expected:
            raise ConflictError(
                f"MLflow model {name!r}",
                f"alias {alias} must point at version {expected}, got {current}",
                "Somebody moved it: look again and decide anew.",
            )
        client = self.client
        with self.calls(f"set alias {alias} of {name}"):
            try:
                if version is None:
                    client.delete_registered_model_alias(name, alias)
                else:
                    client.set_registered_model_alias(name, alias, version)
            except MlflowException as error:
                # Of two that set a new alias at the same moment, MLflow refuses one: its row is there already.
                if version is not None and self.aliases(name).get(alias) == version:
                    return
                if not is_missing(error):
                    raise
                raise ConflictError(
                    f"MLflow model {name!r}",
                    f"alias {alias} must point at an existing version, got {version}",
                    "Look up the versions with `evergreen history`.",
                ) from None

    def model_tags(self, name: str) -> dict[str, str]:
        """Return the tags of a registered model itself; none where it does not exist."""
        client = self.client
        with self.calls(f"read the tags of {name}"):
            try:
                found = client.get_registered_model(name).tags
            except MlflowException as error:
                if is_missing(error):
                    return {}
                raise
        return {str(key): str(value) for key, value in found.items()}

    def set_model_tag(self, name: str, key: str, value: str | None) -> None:
        """Write a tag of a registered model; None removes it, also where it is gone already."""
        client = self.client
        with self.calls(f"write tag {key} of {name}"):
            try:
                if value is None:
                    client.delete_registered_model_tag(name, key)
                else:
                    client.set_registered_model_tag(name, key, value)
            except MlflowException as error:
                if value is not None or not is_missing(error):
                    raise

    # --- loading ----------------------------------------------------------------------------------

    def fetch(self, version: Version, cache: Path) -> VersionFolder:
        """Return a version's verified folder without loading what is in it; else as `load`.

        Raises:
            ModelError: Evergreen did not register it, or its files are not those that were registered.
        """
        from include.registry.cache import fetch_version

        return fetch_version(version, cache, self._download)

    def load(self, version: Version, cache: Path) -> LoadedPackage:
        """Return a verified version with its scikit-learn pipeline; from `cache` without asking MLflow when it is there.

        Args:
            version: As returned by this class.
            cache: Folder that keeps downloaded versions.

        Raises:
            ModelError: Evergreen did not register it, or its files are not those that were registered.
        """
        from include.registry.cache import load_version  # brings what models are made of

        return load_version(version, cache, self._download)

    def _download(self, version: Version, into: Path) -> None:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        client = self.client
        with self.calls(f"download {version.name} {version.version}"):
            source = client.get_model_version_download_uri(version.name, version.version)
            if source.partition(":")[0] not in REMOTE:
                raise ConflictError(
                    f"MLflow model {version.name!r}",
                    f"version {version.version} must be stored behind MLflow or in an object store, "
                    f"got {self.mask(source)}",
                    "Start MLflow with --artifacts-destination and register the model again.",
                )
            fetch_all(get_artifact_repository(source, tracking_uri=self._uri), into)

    # --- inside -----------------------------------------------------------------------------------

    def _upload(self, package: Package, run_id: str, key: str) -> tuple[str, str]:
        """Store the files as a logged model; return its id and the digest of its folder."""
        from include.registry.mlmodel import write_folder  # brings what models are made of

        client = self.client
        with tempfile.TemporaryDirectory(prefix="evergreen-") as scratch:
            folder = Path(scratch) / "model"
            with self.calls(f"store the files of {package.name}"):
                experiment = client.get_run(run_id).info.experiment_id
                model_id = client.create_logged_model(
                    experiment,
                    name=package.name,
                    source_run_id=run_id,
                    tags={TAG_KEY: key, TAG_PRODUCER: PRODUCER},
                    model_type=package.task,
                ).model_id
                status = LoggedModelStatus.FAILED
                try:
                    digest = write_folder(package, folder, model_id=model_id, run_id=run_id)
                    client.log_model_artifacts(model_id, str(folder))
                    status = LoggedModelStatus.READY
                finally:
                    self._finalize(model_id, status)
        return str(model_id), digest

    def _finalize(self, model_id: str, status: LoggedModelStatus) -> None:
        """Say how the upload ended; where it failed, its own error matters, not this one's."""
        try:
            self.client.finalize_logged_model(model_id, status.value)
        except (MlflowException, OSError, EvergreenError):
            if status is LoggedModelStatus.READY:
                raise

    def _ensure_model(self, name: str) -> None:
        client = self.client
        with self.calls(f"create model {name}"):
            try:
                client.create_registered_model(name, tags={TAG_PRODUCER: PRODUCER})
            except MlflowException as error:
                if error.error_code != EXISTS:
                    raise

    def _same_key(self, name: str, key: str) -> list[Version]:
        condition = f"name = '{name}' and tags.`{TAG_KEY}` = '{key}'"
        return [v for v in self._search_versions(condition) if v.digest]

    def _search_versions(self, condition: str) -> list[Version]:
        client = self.client
        with self.calls("search versions"):
            found = list(
                pages(
                    lambda page_token: client.search_model_versions(
                        condition, max_results=500, page_token=page_token
                    )
                )
            )
        if not found:
            return []
        aliases = self.aliases(found[0].name)
        all_versions = (_version(v, aliases) for v in found)
        return sorted(all_versions, key=lambda v: int(v.version), reverse=True)

    def _settle(self, name: str, key: str) -> Version:
        """After creating: keep one version of a key, the same one whoever looks.

        Doubles come from MLflow's client, which may send a POST twice, and from two attempts at once.
        """
        same = self._same_key(name, key)
        if not same:
            raise self.failure(
                f"must list the version of {name} just created, got none", "Try again."
            )
        keep = chosen(same)
        self.delete_doubles(keep, same)
        return keep

    def _show_output(self, version: Version) -> None:
        """List the model among its run's outputs in MLflow's UI, once."""
        client = self.client
        model_id = version.tags.get(
            TAG_MODEL_ID
        )  # `ModelVersion.model_id` is None on a SQL registry
        with self.calls(f"link {version.name} {version.version} to its run"):
            if not model_id or model_id in self._outputs(version.run_id):
                return
            try:
                client.log_outputs(version.run_id, [LoggedModelOutput(model_id, step=0)])
            except MlflowException:
                if model_id not in self._outputs(version.run_id):  # unless somebody was faster
                    raise

    def _outputs(self, run_id: str) -> set[str]:
        outputs = self.client.get_run(run_id).outputs
        return {str(o.model_id) for o in outputs.model_outputs} if outputs else set()

    def _reap_models(self, experiment_ids: list[str], limit: int) -> None:
        client, sources = self.client, dict[str, str]()
        condition = f"tags.`{TAG_PRODUCER}` = '{PRODUCER}' AND creation_timestamp < {limit}"
        found = pages(
            lambda page_token: client.search_logged_models(
                experiment_ids, condition, page_token=page_token
            )
        )
        for model in found:
            name, model_id = str(model.name), str(model.model_id)
            if name not in sources:
                sources[name] = self._sources(f"name = '{name}'")
            if model_id in sources[name] or self._sources(f"source_path = 'models:/{model_id}'"):
                continue  # a version refers to it, under our name or anybody's
            client.delete_logged_model(model_id)

    def _sources(self, condition: str) -> str:
        """Return where the versions found come from, one a line."""
        client = self.client
        found = pages(
            lambda page_token: client.search_model_versions(
                condition, max_results=500, page_token=page_token
            )
        )
        return "\n".join(str(version.source) for version in found)


def _version(found: ModelVersion, aliases: Mapping[str, str] | None = None) -> Version:
    number = str(found.version)
    held: Any = found.aliases
    if aliases is not None:
        held = [alias for alias, target in aliases.items() if target == number]
    return Version(
        name=str(found.name),
        version=number,
        run_id=str(found.run_id or ""),
        tags={str(k): str(v) for k, v in found.tags.items()},
        aliases=tuple(sorted(str(alias) for alias in held)),
        created_at=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).isoformat(),
    )


def _describe(package: Package) -> str:
    codes = ", ".join(f"{code} = {label!r}" for code, label in enumerate(package.classes))
    return f"Predicts {package.target}." + (f" Classes: {codes}." if codes else "")
