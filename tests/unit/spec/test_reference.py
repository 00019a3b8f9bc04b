"""The generated pages are the ones in `docs/`."""

import json

import jsonschema
import pytest

from include.settings import ROOT
from include.spec.loader import load_spec, spec_paths
from include.spec.reference import json_schema, reference_page
from include.spec.yaml12 import parse


def test_pages_are_current() -> None:
    assert (ROOT / "docs/spec.schema.json").read_text() == json_schema(), "run `make docs`"
    assert (ROOT / "docs/spec.md").read_text() == reference_page(), "run `make docs`"


def test_every_key_is_described() -> None:
    rows = [line for line in reference_page().splitlines() if line.startswith("| `")]
    silent = [row for row in rows if row.split("|")[-2].strip() == "" and "`kind`" not in row]
    assert silent == []


@pytest.mark.parametrize("path", spec_paths(), ids=lambda p: p.stem)
def test_shipped_specs_are_valid_by_both(path) -> None:
    assert load_spec(path).model == path.stem
    jsonschema.validate(parse(path.read_text()), json.loads(json_schema()))
