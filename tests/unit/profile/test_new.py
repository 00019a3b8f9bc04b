"""The spec on disk: valid, quoted, whole, never overwritten by accident."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from include.cli.new import command
from include.errors import DataError, SpecError
from include.profile.new import new_spec, source_path
from include.profile.write import scalar
from include.settings import ROOT, Settings
from include.spec.loader import load_spec
from include.spec.yaml12 import parse


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", models=tmp_path / "models")


@pytest.fixture
def source(tmp_path: Path) -> str:
    rng = np.random.default_rng(3)
    rows = 500
    frame = pd.DataFrame(
        {
            "customerID": [f"c{i}" for i in range(rows)],
            "when": pd.date_range("2024-01-01", periods=rows, freq="h").strftime("%m/%d/%y %H:%M"),
            "on": rng.choice(["yes", "no"], rows),
            "a: b, [c] #": rng.normal(size=rows).round(3),
            "amount": np.where(rng.random(rows) < 0.1, "?", rng.integers(0, 9, rows).astype(str)),
            "email": [f"c{i}@example.com" for i in range(rows)],
            "Left": rng.choice(["Yes", "No"], rows, p=[0.3, 0.7]),
        }
    )
    path = tmp_path / "data.csv"
    frame.to_csv(path, index=False)
    return str(path)


def test_writes_a_spec_that_loads(settings: Settings, source: str) -> None:
    made = new_spec("leavers", source, "Left", settings=settings)
    assert made.path == settings.models / "leavers.yaml"
    spec = load_spec(made.path, settings)
    ingest = spec.ingest
    assert (spec.task, ingest.key, ingest.time) == ("binary", "customerID", "when")
    assert (ingest.time_format, ingest.positive) == ("%m/%d/%y %H:%M", "Yes")
    assert ingest.source.model_dump()["missing"] == ("", "?")
    assert ingest.drop == ("email",)
    assert ingest.features is not None
    assert ingest.features.numeric == ("a: b, [c] #", "amount")
    assert ingest.features.categorical == ("on",)
    assert spec.validate_.min_rows == 250
    sets = [e["expect_column_values_to_be_in_set"] for e in spec.validate_.expectations[-1:]]
    assert sets == [{"column": "on", "value_set": ["no", "yes"], "mostly": 0.99}]
    assert [p.name for p in settings.models.iterdir()] == ["leavers.yaml"]


def test_every_decision_says_why(settings: Settings, source: str) -> None:
    text = new_spec("leavers", source, "Left", settings=settings).text
    for expected in (
        "# 500 different values, none missing",
        "# '01/13/24 00:00' cannot be %d/%m/%y %H:%M",
        "# these mean missing: '?' in amount",
        "# personal: looks like personal data",
        "# half of today's rows",
        "# the newest rows by when",
    ):
        assert expected in text
    order = [line.split(":")[0] for line in text.splitlines() if line[:1].isalpha()]
    assert order == ["model", "description", "task", "ingest", "validate", "train", "evaluate"]
    code = [line.split("  # ")[0] for line in text.splitlines() if "path: " not in line]
    assert max(len(line) for line in code if not line.startswith("#")) <= 100


def test_the_same_file_gives_the_same_text(settings: Settings, source: str) -> None:
    first = new_spec("leavers", source, "Left", settings=settings).text
    assert new_spec("leavers", source, "Left", settings=settings, force=True).text == first


def test_never_overwrites_unless_forced(settings: Settings, source: str) -> None:
    settings.models.mkdir()
    path = settings.models / "leavers.yaml"
    path.write_text("mine")
    with pytest.raises(SpecError, match=r"must not exist yet, got a file\. Use --force"):
        new_spec("leavers", source, "Left", settings=settings)
    assert path.read_text() == "mine"
    new_spec("leavers", source, "Left", settings=settings, force=True)
    assert path.read_text().startswith("# Written by `evergreen new`")


@pytest.mark.parametrize(("name", "better"), [("My Model", "my_model"), ("2nd", "model_2nd")])
def test_refuses_a_name_no_dag_can_have(
    settings: Settings, source: str, name: str, better: str
) -> None:
    with pytest.raises(SpecError, match=f"must be lower-case .* Try '{better}'"):
        new_spec(name, source, "Left", settings=settings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must match at least one file, got none"),
        (b"", "empty"),
        (b"a,b\n", "must hold at least one row"),
        (b"\x00\x01\xff\xfe", "must be"),
    ],
)
def test_a_file_that_cannot_be_read_leaves_nothing_behind(
    settings: Settings, tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "bad.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        new_spec("bad", str(path), "a", settings=settings)
    assert not settings.models.exists()


def test_paths_inside_the_repository_are_relative(tmp_path: Path) -> None:
    assert source_path(str(ROOT / "data" / "x.csv")) == "data/x.csv"
    assert source_path(str(tmp_path / "x.csv")) == str(tmp_path / "x.csv")


@given(st.one_of(st.text(), st.booleans(), st.integers(), st.none()))
def test_scalars_are_read_back_as_they_are(value: Any) -> None:
    assert parse(f"key: [{scalar(value)}]") == {"key": [value]}
    assert parse(f"{scalar(str(value))}: 1") == {str(value): 1}


# --- command line ---------------------------------------------------------------------------------------


def test_the_command_prints_findings_and_what_to_do_next(
    settings: Settings, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_MODELS", str(settings.models))
    result = CliRunner().invoke(command, ["leavers", "--from", source, "--target", "Left"])
    assert result.exit_code == 0, result.output
    assert "binary" in result.output
    assert "./evergreen trigger leavers" in result.output


def test_the_command_speaks_json(
    settings: Settings, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_MODELS", str(settings.models))
    arguments = ["leavers", "--from", source, "--target", "Left", "--json"]
    found = json.loads(CliRunner().invoke(command, arguments).output)
    assert found["key"] == "customerID"
    assert list(found["drop"]) == ["email"]
    assert Path(found["path"]).is_file()
