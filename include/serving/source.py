"""The registry as serving sees it: aliases and rollouts of all models in one poll, and verified versions.

Owns the reading of a downloaded model folder's stored input example. Everything MLflow stays in
`include.registry`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from include.engines.opening import open_version
from include.errors import ModelError
from include.registry.gateway import Registry
from include.registry.rollouts import TAG_ROLLOUT, Rollout
from include.registry.runs import pages
from include.serving.engine import LoadedModel
from include.serving.served import Wanted

EXAMPLE_FILE = "input_example.json"


class RegistrySource:
    """The real `ModelSource`: an MLflow registry behind Evergreen's gateway."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def models(self) -> Mapping[str, Wanted]:
        """Return aliases and rollout of every registered model.

        Raises:
            ServiceError: MLflow does not answer.
        """
        client = self._registry.client
        with self._registry.calls("list all models"):
            found = list(
                pages(
                    lambda page_token: client.search_registered_models(
                        max_results=500, page_token=page_token
                    )
                )
            )
        return {
            str(model.name): Wanted(
                {str(alias): str(version) for alias, version in model.aliases.items()},
                Rollout.from_tag(model.tags.get(TAG_ROLLOUT)),
            )
            for model in found
        }

    def load(self, name: str, version: str, cache: Path) -> LoadedModel:
        """Return a version, from `cache` where its digest is right, else downloaded into it.

        Raises:
            ModelError: The version is gone, not Evergreen's, damaged or not to be trusted.
            ServiceError: MLflow does not answer.
        """
        found = self._registry.get_version(name, version)
        if found is None:
            raise ModelError(
                f"model {name} version {version}",
                "must exist in the registry, got nothing",
                "Set the alias on another version.",
            )
        fetched = self._registry.fetch(found, cache)
        return LoadedModel(
            name=name,
            version=version,
            predictor=open_version(fetched.folder, fetched.meta),
            meta=fetched.meta,
            example=read_example(fetched.folder / EXAMPLE_FILE),
            folder=fetched.folder,
        )


def read_example(path: Path) -> dict[str, Sequence[Any]]:
    """Return MLflow's stored input example (a data frame in split form) by column.

    Raises:
        ModelError: It is missing or in another form.
    """
    try:
        stored = orjson.loads(path.read_bytes())
        names, data = stored["columns"], stored["data"]
        return {name: [row[place] for row in data] for place, name in enumerate(names)}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ModelError(
            str(path),
            f"must be an input example in split form, got {type(error).__name__}: {error}",
            "Register the model through Evergreen.",
        ) from error
