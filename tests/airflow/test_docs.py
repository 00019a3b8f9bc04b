"""The pages on operators and triggering show what the examples really contain, and leave nothing out."""

import re
from pathlib import Path

import pytest

from include.spec import parameters

DOCS = Path(__file__).resolve().parents[2] / "docs"
PLUGINS = DOCS.parent / "plugins/evergreen"
_SNIPPET = re.compile(r"(?:<!-- (?P<file>\S+) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)
PAGES = ("operators.md", "triggering.md", "scoring.md")


@pytest.mark.parametrize("page", PAGES)
def test_snippets_are_the_examples_own_text(page: str) -> None:
    found = list(_SNIPPET.finditer((DOCS / page).read_text()))
    assert found
    for snippet in found:
        assert snippet["file"], f"{page} does not say where this is from:\n{snippet['code']}"
        assert snippet["code"] in (DOCS / snippet["file"]).read_text(), snippet["code"]


def test_every_operator_has_its_row() -> None:
    page = (DOCS / "operators.md").read_text()
    names = {
        name
        for path in (PLUGINS / "operators").glob("*.py")
        for name in re.findall(
            r"^class ([A-Z]\w+(?:Operator|Sensor))\(", path.read_text(), re.MULTILINE
        )
    }
    bases = {
        "EvergreenOperator",
        "StageOperator",
        "MonitorOperator",
        "DeployOperator",
        "ScoringOperator",
        "MlflowOperator",
        "ConfigErrorOperator",
    }
    assert len(names - bases) >= 28
    for name in names - bases:
        assert f"`{name}`" in page, name


def test_every_parameter_has_its_row() -> None:
    page = (DOCS / "triggering.md").read_text()
    for name in parameters.TRAINING:
        assert f"| `{name}` |" in page


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (DOCS / page).read_text()
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        else:
            assert (DOCS / target.partition("#")[0]).exists(), target
