"""One world for all tests of this folder, with one model that has a champion."""

from collections.abc import Iterator

import pytest

from tests.integration.pipeline.world import World, start_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """MLflow, serving, and a process that runs Dags."""
    with start_world(tmp_path_factory.mktemp("world")) as it:
        yield it
