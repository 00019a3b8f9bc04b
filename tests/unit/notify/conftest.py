from collections.abc import Iterator
from pathlib import Path

import pytest

from include.ledger.ledger import Ledger
from tests.receivers import Hook, Mailbox, start_hook, start_mailbox


@pytest.fixture
def hook() -> Iterator[Hook]:
    with start_hook() as it:
        yield it


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with start_mailbox() as it:
        yield it


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
