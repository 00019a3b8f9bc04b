"""What the page on triggering tells people to type is what the end-to-end test runs."""

import re

from include.settings import ROOT

DOCS = ROOT / "docs"
_BLOCK = re.compile(r"(?:<!-- (?P<file>\S+) -->\n)?```sh\n(?P<code>.*?)```", re.DOTALL)


def test_shell_snippets_are_from_scripts_that_are_run() -> None:
    page = (DOCS / "triggering.md").read_text()
    run = (ROOT / "tests/e2e/test_triggers.py").read_text()
    blocks = list(_BLOCK.finditer(page))
    assert len(blocks) == page.count("```sh") == 5
    for block in blocks:
        if block["file"] == "test_triggers.py":
            scripts = re.findall(r"docs/examples/(\S+)", block["code"])
            assert len(scripts) == len(block["code"].splitlines())
            for name in scripts:
                assert (DOCS / "examples" / name).exists()
                assert f'script(stack, "{name}", MODEL' in run
        else:
            assert block["code"] in (DOCS / block["file"]).read_text()


def test_every_script_is_on_the_page() -> None:
    page = (DOCS / "triggering.md").read_text()
    scripts = [path.name for path in (DOCS / "examples").glob("*.sh")]
    assert len(scripts) == 3
    assert all(f"(examples/{name})" in page for name in scripts)
