"""The section `score`: what it may say, and that it shapes no version."""

from pathlib import Path
from typing import Any

import pytest

from include.errors import SpecError
from include.spec.loader import load_spec
from include.spec.schema import Spec
from include.spec.score import Score

SMALL = """
model: small
task: binary
ingest:
  source: {kind: file, path: data/*.csv}
  target: left
"""
FILE = """
score:
  source: {kind: file, path: "new/{partition}/*.csv"}
  to: {kind: file, path: scores}
"""


def load(folder: Path, score: str) -> Spec:
    path = folder / "small.yaml"
    path.write_text(SMALL + score)
    return load_spec(path)


def test_the_section_is_optional_and_changes_no_identity(tmp_path: Path) -> None:
    without, with_it = load(tmp_path, ""), load(tmp_path, FILE)
    assert without.score is None
    assert with_it.score is not None
    assert (with_it.score.schedule, with_it.score.timezone) == (None, "UTC")
    assert with_it.spec_hash == without.spec_hash
    assert Spec.model_validate(with_it.canonical()) == with_it


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (FILE.replace("source", "sorce"), "sorce.*did you mean.*source"),
        (FILE.replace("kind: file, path: scores", "kind: fil, path: scores"), "score.to"),
        (FILE.replace("{partition}", "{partion}"), r"no placeholder but \{partition\}"),
        (FILE.replace("path: scores", 'path: "scores/{partition}"'), "score.to"),
        (FILE.replace("kind: file, path: scores", "kind: s3, path: 's3://b/x*'"), "score.to"),
        (FILE.replace("kind: file, path: scores", "kind: sql, table: t"), "exactly one of"),
        (
            FILE.replace("kind: file, path: scores", "kind: sql, url_env: U, table: 't; drop'"),
            "score.to",
        ),
        (FILE + "  schedule: nightly\n", "score.schedule.*cron"),
        (FILE + "  timezone: Mars/Base\n", "score.timezone.*IANA"),
        (
            FILE.replace(
                'kind: file, path: "new/{partition}/*.csv"', "kind: python, call: os.system.x"
            ),
            "score.source.call",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, score: str, said: str) -> None:
    with pytest.raises(SpecError, match=f"(?is){said}"):
        load(tmp_path, score)


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ({"kind": "file", "path": "a/{partition}/b-{partition}.csv"}, ("a/P1/b-P1.csv",)),
        ({"kind": "file", "path": ["{partition}.csv", "all.csv"]}, ("P1.csv", "all.csv")),
        ({"kind": "s3", "path": "s3://in/day={partition}/*"}, "s3://in/day=P1/*"),
    ],
)
def test_the_partition_goes_into_paths(source: dict[str, Any], path: Any) -> None:
    score = Score.model_validate({"source": source, "to": {"kind": "file", "path": "x"}})
    assert score.for_partition("P1").path == path  # type: ignore[union-attr]
