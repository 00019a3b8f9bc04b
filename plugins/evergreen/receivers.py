"""Whom to tell: addresses of a spec, and those that an Airflow connection keeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

from include.notify.channels import CONNECTION, Receiver, receiver_of, secrets_of

if TYPE_CHECKING:
    from airflow.sdk import Connection

_SEPARATOR = "://"


def receivers(
    to: Sequence[str], get: Callable[[str], Connection] = BaseHook.get_connection
) -> list[Receiver]:
    """Return the receivers a spec names, their secrets masked in Airflow's logs from now on.

    A connection that is not there, or is malformed, is a receiver with a problem: the others shall be told
    nevertheless.

    Args:
        to: Apprise URLs, or `connection:<id>`.
        get: Returns the Airflow connection of an id.
    """
    found = [_receiver(name, get) for name in to]
    for receiver in found:
        for url in receiver.urls:
            for secret in secrets_of(url, kept=receiver.name.startswith(CONNECTION)):
                mask_secret(secret)
    return found


def _receiver(name: str, get: Callable[[str], Connection]) -> Receiver:
    if not name.startswith(CONNECTION):
        return receiver_of(name)
    conn_id = name.removeprefix(CONNECTION)
    try:
        urls = tuple(addresses(get(conn_id)))
    except Exception as error:  # noqa: BLE001  # whatever is wrong with it; its text may hold a secret
        return Receiver(name, (), f"cannot be read from Airflow, got {type(error).__name__}")
    return Receiver(name, urls, "" if urls else f"connection {conn_id} must hold a URL, got none")


def addresses(connection: Connection) -> list[str]:
    """Return the Apprise URLs of a connection.

    They are looked for in the password, which Airflow shows to nobody, in the extra `url`, in the host, and in
    the extra `config` of Airflow's own connection type *Apprise*. A connection that was given as one URI, such as
    `AIRFLOW_CONN_OPS=mailtos://...`, is that URI.
    """
    extra = connection.extra_dejson
    for value in (connection.password, extra.get("url"), connection.host):
        if value and _SEPARATOR in str(value):
            return [str(value)]
    if config := extra.get("config"):
        return _configured(json.loads(config) if isinstance(config, str) else config)
    return [connection.get_uri()] if connection.host else []


def _configured(config: Any) -> list[str]:
    entries = config if isinstance(config, list) else [config]
    return [str(entry["path"]) for entry in entries]
