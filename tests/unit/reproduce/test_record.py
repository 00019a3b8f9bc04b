from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml

from include.errors import ModelError
from include.reproduce.record import read_record
from include.spec.schema import Spec, sections_hash
from tests.unit.reproduce.conftest import Made

RIDGE = {"estimator": "sklearn.linear_model.Ridge", "params": {"fit_intercept": False}}


@pytest.fixture
def made(make_version: Callable[..., Made]) -> Made:
    return make_version("regression", RIDGE, {"alpha": 2.0})


def changed(made: Made, **meta: Any) -> Any:
    return replace(made.package, meta={**made.package.meta, **meta})


def test_the_recipe_is_complete(made: Made) -> None:
    record = read_record(made.package)
    assert record.title == "toy version 3"
    assert record.estimator.params == {"fit_intercept": False, "alpha": 2.0}
    assert len(record.spec.candidates) == 1
    assert record.spec.ingest.features is not None  # open in the spec, known of the version
    assert set(record.spec.ingest.features.numeric) == {"a", "b"}
    assert record.split.column == "id"
    assert record.libraries == {"Python": "3.11.9", "scikit-learn": "1.0.2", "numpy": "2.0.0"}
    assert record.contradictions() == []


@pytest.mark.parametrize("name", ["spec", "split", "fixed", "snapshot_id"])
def test_what_is_not_there_is_named(made: Made, name: str) -> None:
    with pytest.raises(ModelError, match=rf"^toy version 3: .* got no {name}\. .*train again"):
        read_record(changed(made, **{name: None}))


def test_metadata_of_another_evergreen(made: Made) -> None:
    spec = {**made.package.meta["spec"], "train": {"gone": 1}}
    with pytest.raises(ModelError, match=r"metadata this code reads, got .*gone.* commit abc and"):
        read_record(changed(made, spec=spec))
    with pytest.raises(ModelError, match=r"metadata this code reads, got .*unexpected"):
        read_record(changed(made, split={"kind": "hash", "more": 1}))


def test_contradictions(made: Made) -> None:
    sections = made.package.meta["spec"]
    spec = {**sections, "train": {**sections["train"], "seed": 43}}
    found = read_record(changed(made, spec=spec)).contradictions()
    hashed = made.package.meta["spec_hash"]
    assert found == [
        "its tag evergreen.seed says 42, its metadata 43",
        f"its spec has the hash {sections_hash(spec)}, its metadata says {hashed}",
    ]


def test_a_spec_survives_the_way_through_mlmodel() -> None:
    """MLflow writes metadata as YAML; what comes back is the same spec, with the same hash."""
    odd = "select 'é\u2028\x85', \"x\"\n  from t\t -- 2026-01-01 no: 1e3\n"
    params = {"a": 1e-05, "b": 10**20, "c": 0.1 + 0.2, "d": [1, None, True, "no", "0x1", "1e3"]}
    spec = Spec.model_validate(
        {
            "model": "m",
            "task": "binary",
            "ingest": {
                "source": {"kind": "sql", "query": odd, "url_env": "X"},
                "target": "y",
                "positive": "Yes",
                "window": "180d",
            },
            "validate": {"expectations": [{"expect_x": {"min_value": 1e-7, "mostly": 1}}]},
            "train": {"candidates": [{"estimator": "sklearn.x.Y", "params": params}]},
            "evaluate": {"holdout": "12.5%"},
        }
    )
    sections = yaml.safe_load(yaml.safe_dump(spec.shaping()))
    assert sections == spec.shaping()
    assert Spec.model_validate(sections).shaping() == sections
    assert sections_hash(sections) == spec.spec_hash
