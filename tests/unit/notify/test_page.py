"""The page on notifications names what there is."""

import re
from typing import get_args

from include.notify.message import Kind
from include.settings import ROOT
from include.spec.schema import Notify
from include.spec.yaml12 import parse

PAGE = (ROOT / "docs/notifications.md").read_text()


def test_the_example_is_a_spec() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    notify = Notify.model_validate(parse(block)["notify"])
    assert set(notify.on) == set(get_args(Kind))


def test_every_event_has_its_row() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == [
        "failure",
        "rejection",
        "promotion",
        "approval",
        "drift",
        "rollback",
    ]


def test_apprise_knows_the_addresses_of_the_page() -> None:
    import apprise

    named = re.findall(r"`((?:mailtos|slack|jsons|workflows|https)://[^`]*)`", PAGE)
    whole = [url for url in named if "..." not in url]
    assert len(whole) >= 3
    for url in whole:
        assert apprise.Apprise().add(url), url
