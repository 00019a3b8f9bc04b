"""One embedded stack for all e2e tests of this folder that ask for it."""

from collections.abc import Iterator

import pytest

from tests.e2e.stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that runs, without models."""
    it = Stack(tmp_path_factory.mktemp("stack"))
    try:
        it.up()
        yield it
    finally:
        it.down()
