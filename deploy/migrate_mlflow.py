"""Brings MLflow's database to the schema of the installed MLflow; the server itself refuses an older one.

`mlflow db upgrade` with the address from MLFLOW_BACKEND_STORE_URI, so that its password stays out of the
list of processes.
"""

import os

from mlflow.cli import cli  # noqa: TID253  # this script does nothing else

cli(["db", "upgrade", os.environ["MLFLOW_BACKEND_STORE_URI"]])
