"""The pages name what there is."""

import re

from include.cli.group import COMMANDS
from include.settings import ROOT, Settings


def test_every_setting_is_in_the_table() -> None:
    page = (ROOT / "docs/operating.md").read_text()
    named = set(re.findall(r"^\| `EVERGREEN_([A-Z_]+)`", page, re.MULTILINE))
    assert named == {name.upper() for name in Settings.model_fields}


def test_commands_in_the_pages_exist() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    used = {c for p in pages for c in re.findall(r"\./evergreen ([a-z]+)", p.read_text())}
    assert used - set(COMMANDS) == set()


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if "://" not in link and not (page.parent / link).exists():
                broken.append(f"{page.name}: {link}")
    assert broken == []
