from contextlib import ExitStack

import psycopg
import pytest

from include.ledger.ledger import Ledger
from tests.servers import start_postgres


@pytest.fixture(scope="session")
def postgres():
    with ExitStack() as stack:
        try:
            url = stack.enter_context(start_postgres())
        except FileNotFoundError as error:
            pytest.skip(f"no Postgres here: {error}")
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def ledger_url(request, tmp_path):
    """An empty ledger on each database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deep/ledger.db"
    url = request.getfixturevalue("postgres")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return url


@pytest.fixture
def ledger(ledger_url):
    return Ledger(ledger_url)
