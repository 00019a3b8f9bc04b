from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from include.reproduce.changes import Change, Present, find_changes, likely_reasons, look_around
from include.reproduce.record import Record, read_record
from include.settings import Settings
from tests.unit.reproduce.conftest import Made

LINE = {
    "estimator": "sklearn.linear_model.Ridge",
    "params": {"fit_intercept": False},
    "search": {"alpha": {"choices": [1, 2]}},
}


@pytest.fixture
def made(make_version: Callable[..., Made]) -> Made:
    return make_version("regression", LINE, {"alpha": 2.0})


def present(record: Record, **changes: Any) -> Present:
    return replace(Present(record.sections, "abc", "123", dict(record.libraries)), **changes)


def test_nothing_changed(made: Made) -> None:
    record = read_record(made.package)
    assert find_changes(record, present(record)) == []


def test_a_changed_spec_is_told_key_by_key(made: Made) -> None:
    record = read_record(made.package)
    now = {
        name: dict(section) if isinstance(section, dict) else section
        for name, section in record.sections.items()
    }
    candidates = now["train"]["candidates"]
    second = {
        **candidates[1],
        "params": {"solver": "svd"},
        "search": {"alpha": {"choices": [1, 3]}},
    }
    now["train"]["candidates"] = [candidates[0], second]
    now["ingest"]["drop"] = ["b", "place"]
    now["ingest"]["time"] = "at"
    told = {
        change.what: (change.then, change.now)
        for change in find_changes(record, present(record, sections=now))
    }
    key = "spec: train.candidates[1]"
    assert told[f"{key}.params.fit_intercept"] == ("False", "none")
    assert told[f"{key}.params.solver"] == ("none", "svd")
    assert told[f"{key}.search.alpha.choices"] == ("1, 2", "1, 3")
    assert told["spec: ingest.drop"] == ("none", "b, place")
    assert told["spec: ingest.time"] == ("none", "at")
    assert not any("candidates[0]" in what for what in told)


def test_code_and_libraries(made: Made) -> None:
    record = read_record(made.package)
    libraries = {**record.libraries, "scikit-learn": "1.9.1", "numpy": "none"}
    found = find_changes(
        record, present(record, git_commit="", lock_hash="456", libraries=libraries)
    )
    assert [str(change) for change in found] == [
        "git commit abc → unknown",
        "library lock 123 → 456",
        "scikit-learn 1.0.2 → 1.9.1",
        "numpy 2.0.0 → none",
    ]


def test_what_was_not_recorded_did_not_change(made: Made) -> None:
    version = replace(made.package.version, tags={})
    record = read_record(replace(made.package, version=version))
    assert find_changes(record, present(record)) == []


def test_the_present(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_GIT_COMMIT", "def")
    record = read_record(made.package)
    settings = Settings(models=tmp_path / "models")
    now = look_around(record, settings)
    assert (now.sections, now.git_commit) == (None, "def")
    assert now.libraries.keys() == record.libraries.keys()
    assert now.libraries["scikit-learn"] > "1.7"
    assert find_changes(record, now)[0] == Change("spec", "as registered", "none that is valid")
    settings.models.mkdir()
    path = settings.models / "toy.yaml"
    path.write_text("model: [")
    assert look_around(record, settings).sections is None
    path.write_text(
        "model: toy\ntask: regression\n"
        "ingest: {source: {kind: file, path: x.csv}, target: regression}\n"
    )
    sections = look_around(record, settings).sections
    assert sections is not None
    assert sections["ingest"]["source"]["path"] == "x.csv"


def test_reasons(made: Made) -> None:
    record = read_record(made.package)
    (only,) = likely_reasons(record, [Change("spec: train.seed", "1", "2")], made.manifest)
    assert only.startswith("nothing recorded differs")
    changes = [Change("scikit-learn", "1.0", "1.9"), Change("spec: x", "1", "2")]
    assert likely_reasons(record, changes, made.manifest) == ["scikit-learn 1.0 → 1.9"]


def test_more_reasons(made: Made) -> None:
    tags = {**made.package.version.tags, "evergreen.git_commit": "abc-dirty", "evergreen.seed": "1"}
    version = replace(made.package.version, tags=tags)
    record = read_record(replace(made.package, version=version))
    again = replace(made.manifest, created_at="2026-03-02T00:00:01Z")
    assert likely_reasons(record, [], again) == [
        "its tag evergreen.seed says 1, its metadata 42",
        "it was trained by code with local changes, which no commit holds",
        "the snapshot was taken anew since: the same rows, perhaps in another order",
    ]
