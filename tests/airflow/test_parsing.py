"""What a Dag processor pays for us: time, memory and imports, measured in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "pandas",
    "numpy",
    "sklearn",
    "mlflow",
    "great_expectations",
    "evidently",
    "optuna",
    "duckdb",
    "pyarrow",
    "skops",
    "matplotlib",
    "boto3",
)
_PARSE = """
import json, runpy, sys
found = runpy.run_path(sys.argv[1])
dags = sorted(n for n, v in found.items() if type(v).__name__ == "DAG" and n != "dag")
print(json.dumps({"dags": dags, "heavy": [m for m in json.loads(sys.argv[2]) if m in sys.modules]}))
"""

SPEC = """
model: {name}
task: binary
ingest: {{source: {{kind: file, path: data/*.csv}}, target: y}}
"""


def parse(
    models: Path | None = None, file: str = "training.py", **extra: str
) -> dict[str, list[str]]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]), **extra}
    if models:
        env["EVERGREEN_MODELS"] = str(models)
    answer = subprocess.run(
        [sys.executable, "-c", _PARSE, str(ROOT / "dags" / file), json.dumps(HEAVY)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(answer.stdout.strip().splitlines()[-1])


def test_shipped_dags_parse_without_ml_libraries() -> None:
    found = parse()
    assert found["dags"] == ["churn__train", "diabetes__train"]
    assert found["heavy"] == []


def test_a_broken_spec_takes_nobody_down_and_does_not_vanish(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(SPEC.format(name="good"))
    (tmp_path / "bad.yaml").write_text("model: bad\ntask: binry\n")
    (tmp_path / "not yaml.yaml").write_text("a: [")
    assert parse(tmp_path)["dags"] == ["bad__config_error", "good__train", "not_yaml__config_error"]


@pytest.mark.parametrize("wanted", ["good__train", "bad__config_error"])
def test_a_task_parses_its_own_model_only(tmp_path: Path, wanted: str) -> None:
    (tmp_path / "good.yaml").write_text(SPEC.format(name="good"))
    (tmp_path / "bad.yaml").write_text("model: bad\n")
    context = {"_AIRFLOW_PARSING_CONTEXT_DAG_ID": wanted}
    assert parse(tmp_path, **context)["dags"] == [wanted]


def test_dag_files_are_short() -> None:
    for path in (ROOT / "dags").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 40, path
