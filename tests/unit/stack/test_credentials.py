import json
import stat
from dataclasses import astuple

import pytest

from include.errors import ServiceError
from include.stack.credentials import (
    Credentials,
    airflow_passwords,
    ensure_credentials,
    read_credentials,
)
from include.stack.layout import Layout


def test_generated_once_and_kept_private(layout: Layout) -> None:
    assert read_credentials(layout) is None
    made = ensure_credentials(layout)
    assert ensure_credentials(layout) == made == read_credentials(layout)
    for path in (layout.credentials, airflow_passwords(layout)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_secret_is_its_own() -> None:
    secrets = [*astuple(Credentials()), *astuple(Credentials())]
    assert len(set(secrets)) == len(secrets)
    assert min(map(len, secrets)) >= 20


def test_airflow_finds_a_password_for_each_user(layout: Layout) -> None:
    made = ensure_credentials(layout)
    stored = json.loads(airflow_passwords(layout).read_text())
    assert stored == {"admin": made.admin, "service": made.service, "viewer": made.viewer}


def test_nothing_secret_in_repr() -> None:
    made = Credentials()
    assert made.admin not in repr(made)


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_damaged_file_is_not_overwritten(layout: Layout, text: str) -> None:
    layout.credentials.write_text(text)
    with pytest.raises(ServiceError, match="must hold this stack's passwords and keys"):
        ensure_credentials(layout)
    assert layout.credentials.read_text() == text
