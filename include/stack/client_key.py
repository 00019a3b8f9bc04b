"""The API key of our own clients on this machine: deploy's, the command line's and the simulator's.

Owns that the first key a person adds does not lock them out: it is when serving begins to ask for keys.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from include.ledger.keys import ApiKey, hash_key, key_id
from include.stack.layout import write_private

if TYPE_CHECKING:
    from include.ledger.ledger import Ledger
    from include.settings import Settings

NAME = "evergreen's own clients"


def ensure_client_key(settings: Settings, ledger: Ledger, now: datetime) -> ApiKey | None:
    """See to it that our own clients have a key that works.

    Args:
        settings: Where its file is; where EVERGREEN_SERVING_KEY is set, that is the key.
        ledger: Where keys are.
        now: The time, aware.

    Returns:
        The key, when this call added it.
    """
    if settings.serving_key.get_secret_value():
        return None
    held = settings.client_key
    known = {key.id: key for key in ledger.api_keys()}.get(key_id(held))
    if known is not None and known.hash == hash_key(held) and not known.expired(now):
        return None
    key, text = ledger.add_api_key(NAME, now=now)
    settings.client_key_file.parent.mkdir(parents=True, exist_ok=True)
    write_private(settings.client_key_file, text + "\n")
    return key
