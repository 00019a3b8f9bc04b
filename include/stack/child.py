"""Becomes one component, after ending what an earlier process of the same component left behind.

supervisord restarts a component that died, but knows nothing of its children: MLflow's server process
would keep the port, Airflow's idle workers would stay for ever. Usage: `child COMMAND ARGUMENT...`, with both
marks in the environment.
"""

from __future__ import annotations

import os
import sys

from include.stack.leftovers import COMPONENT_MARK, STACK_MARK, end_idle

_GRACE_SECONDS = 2.0


def main(command: list[str]) -> None:
    """Clean up, then replace this process by the command; does not return."""
    ended = end_idle(os.environ[STACK_MARK], os.environ[COMPONENT_MARK], _GRACE_SECONDS)
    if ended:
        print(f"Ended {ended} processes of an earlier {os.environ[COMPONENT_MARK]}.", flush=True)
    os.execv(command[0], command)  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    main(sys.argv[1:])
