"""The passwords and keys of the embedded stack: generated once, kept with mode 600, never defaults."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from include.errors import ServiceError
from include.stack.layout import Layout, write_private


def _password() -> str:
    return secrets.token_urlsafe(15)


def _key() -> str:
    return secrets.token_urlsafe(48)


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


@dataclass(frozen=True, repr=False)
class Credentials:
    """Everything secret about one stack. `repr` is off so that no log shows it by accident."""

    admin: str = field(default_factory=_password)
    service: str = field(default_factory=_password)
    viewer: str = field(default_factory=_password)
    jwt_secret: str = field(default_factory=_key)
    secret_key: str = field(default_factory=_key)
    fernet_key: str = field(default_factory=_fernet_key)


#: Users of Airflow's SimpleAuthManager and their roles. `service` is what our own command line logs in as.
USERS = {"admin": "admin", "service": "op", "viewer": "viewer"}


def read_credentials(layout: Layout) -> Credentials | None:
    """Return the stored credentials, or None before the first start.

    Raises:
        ServiceError: The file is there but cannot be used.
    """
    try:
        stored = json.loads(layout.credentials.read_text())
        return Credentials(**{item.name: str(stored[item.name]) for item in fields(Credentials)})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServiceError(
            str(layout.credentials),
            f"must hold this stack's passwords and keys, got {type(error).__name__}: {error}",
            "Restore the file, or delete it to have new ones made (stored Airflow connections are lost).",
        ) from error


def ensure_credentials(layout: Layout) -> Credentials:
    """Return the stored credentials, generating them at the first start; also writes Airflow's own file."""
    credentials = read_credentials(layout)
    if credentials is None:
        credentials = Credentials()
        write_private(layout.credentials, json.dumps(asdict(credentials), indent=1) + "\n")
        layout.login_shown.unlink(missing_ok=True)
    passwords = {user: getattr(credentials, user) for user in USERS}
    write_private(airflow_passwords(layout), json.dumps(passwords) + "\n")
    return credentials


def airflow_passwords(layout: Layout) -> Path:
    """File SimpleAuthManager reads; written before Airflow starts, so that Airflow generates and prints none."""
    return layout.home / "airflow-passwords.json"
