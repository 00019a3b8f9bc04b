"""The load test: a version is tried before anything is moved, just as serving will try it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from include.errors import EvergreenError, ModelError
from include.serving.engine import build_engine
from include.serving.source import RegistrySource

if TYPE_CHECKING:
    from include.registry.gateway import Registry


def load_test(registry: Registry, name: str, version: str, cache: Path) -> None:
    """Download a version, check digest and types, open it with its engine, and let it answer its own example.

    Args:
        registry: The registry.
        name: The model.
        version: The version.
        cache: Folder of downloaded versions.

    Raises:
        ModelError: It failed.
        ServiceError: MLflow is away.
    """
    if registry.get_version(name, version) is None:
        raise ModelError(
            f"model {name} version {version}",
            "must exist in the registry, got no such version",
            f"Choose one of `evergreen history {name}`.",
        )
    try:
        build_engine(RegistrySource(registry).load(name, version, cache))
    except EvergreenError as error:
        if error.transient:
            raise
        raise _failed(name, version, f"{error.where}: {error.rule}") from error
    except Exception as error:  # a damaged artifact may fail anywhere
        raise _failed(name, version, f"{type(error).__name__}: {error}") from error


def _failed(name: str, version: str, got: str) -> ModelError:
    return ModelError(
        f"model {name} version {version}",
        f"must pass its load test before it may serve again, got {got}",
        f"Nothing was moved: choose another version of `evergreen history {name}`.",
    )
