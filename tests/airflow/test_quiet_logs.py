"""What libraries say on import would stand in every task's log, above the one line that matters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_AS_IN_A_TASK = """
import logging
logging.basicConfig(level=logging.INFO)
import airflow.utils.timezone, airflow.utils.trigger_rule
from airflow.sdk import DAG
print("begin", flush=True)
"""


@pytest.mark.parametrize(
    "module", ["include.registry.gateway", "include.train.fit", "include.evaluate.evaluate"]
)
def test_imports_say_nothing(module: str) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")])}
    answer = subprocess.run(
        [sys.executable, "-c", f"{_AS_IN_A_TASK}\nimport {module}"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        timeout=120,
    )
    said = answer.stdout.partition("begin\n")[2].splitlines()
    assert said == []
