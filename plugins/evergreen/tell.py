"""`python -m evergreen.tell MODEL SEQ`: tells of a rollback where an address is kept in an Airflow connection.

`evergreen rollback` starts it in Airflow's environment and reads its last line: JSON, without addresses.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

from airflow.models.connection import Connection

from evergreen.receivers import receivers
from include.errors import EvergreenError, SpecError
from include.ledger.ledger import Ledger
from include.notify.rollback import tell_rollback
from include.settings import get_settings
from include.spec.loader import find_spec, load_spec


def main(model: str, seq: int) -> dict[str, object]:
    """Tell of event `seq` of a model's chain; return who took the message and who missed it."""
    settings = get_settings()
    events = Ledger(settings.ledger_dsn).events(model, "rollback")
    event = next((e for e in events if e.seq == seq), None)
    if event is None:
        raise SpecError(
            f"ledger of {model}", f"must have a rollback {seq}, got none", "Name another."
        )
    spec = load_spec(find_spec(model, settings), settings)
    # Outside a task, Airflow's connections are read from its database, as its own command line does.
    found = receivers(spec.notify.to, Connection.get_connection_from_secrets)
    told = tell_rollback(settings, event, found, now=datetime.now(UTC))
    delivery = told.delivery
    return {
        "taken": list(delivery.taken) if delivery else [],
        "missed": list(delivery.missed) if delivery else [],
        "unrecorded": told.unrecorded,
    }


if __name__ == "__main__":
    try:
        print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))  # noqa: T201  # read by the command line
    except EvergreenError as error:
        sys.exit(str(error))
