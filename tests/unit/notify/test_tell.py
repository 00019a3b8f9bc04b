"""One message per event, whatever happens around it; received by a real HTTP server and a real mail server."""

import logging
import socket
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import pytest

from include.errors import ServiceError
from include.ledger.ledger import Ledger
from include.notify.channels import Receiver, hide_address, receiver_of, secrets_of
from include.notify.message import Message
from include.notify.tell import Told, tell
from tests.receivers import SECRET, Hook, Mailbox
from tests.servers import free_port

NOW = datetime(2026, 1, 2, tzinfo=UTC)
MESSAGE = Message(
    "promotion", "shop__train/r1", "shop: version 2 is champion", ("Better.", "By 3 %")
)


def say(ledger: Ledger, *urls: str) -> Told:
    return tell(ledger, "shop", MESSAGE, [receiver_of(u) for u in urls], actor="r1", now=NOW)


def test_everybody_hears_once(ledger: Ledger, hook: Hook, mailbox: Mailbox) -> None:
    for _ in range(3):
        say(ledger, hook.url(), mailbox.url)
    ((path, login, body),) = hook.posts
    assert path == "/hooks/T0KENT0KEN"
    assert login is not None
    assert (body["title"], body["message"]) == ("shop: version 2 is champion", "Better.\nBy 3 %")
    assert body["type"] == "success"
    ((subject, text),) = mailbox.messages
    assert (subject, text.splitlines()) == ("shop: version 2 is champion", ["Better.", "By 3 %"])
    (event,) = ledger.events("shop", "notified")
    assert event.key == "notified/promotion/shop__train/r1"
    assert event.payload["taken"] == ["json://...", "mailto://..."]
    assert SECRET not in str(event.payload)


def test_a_receiver_that_is_away_does_not_keep_it_from_the_others(
    ledger: Ledger, hook: Hook
) -> None:
    nobody = f"mailto://127.0.0.1:{free_port()}?from=a@example.com&to=b@example.com&mode=insecure"
    told = say(ledger, hook.url("/refused"), nobody, "foo://x", "nonsense", hook.url())
    assert told.delivery is not None
    assert told.delivery.taken == ("json://...",)
    names = ["json://...", "mailto://...", "foo://...", "text without ://"]
    assert [missed.partition(": ")[0] for missed in told.delivery.missed] == names
    assert "must be an Apprise URL" in told.delivery.missed[-1]
    assert [path for path, _, _ in hook.posts] == ["/refused", "/hooks/T0KENT0KEN"]
    say(ledger, hook.url())
    assert len(hook.posts) == 2


def test_what_nobody_took_is_sent_at_the_next_occasion(ledger: Ledger, hook: Hook) -> None:
    assert say(ledger, hook.url("/refused")).delivery
    assert ledger.events("shop", "notified") == []
    hook.refuses = False
    assert say(ledger, hook.url("/refused")).delivery
    assert say(ledger, hook.url("/refused")).delivery is None
    assert hook.titles == [MESSAGE.title] * 2


def test_killed_after_sending_it_is_sent_again_and_then_no_more(
    ledger: Ledger, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "record", die)
        with pytest.raises(Killed):
            say(ledger, hook.url())
    for _ in range(2):
        say(ledger, hook.url())
    assert len(hook.posts) == 2


def test_a_ledger_that_is_away_keeps_nothing_back(hook: Hook) -> None:
    gone = Ledger(f"postgresql://u:p@127.0.0.1:{free_port()}/x")
    told = say(gone, hook.url())
    assert told.delivery
    assert told.delivery.taken == ("json://...",)
    assert "127.0.0.1" in told.unrecorded
    assert len(hook.posts) == 1


def test_a_ledger_that_goes_away_is_said(
    ledger: Ledger, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ServiceError("ledger", "must answer, got nothing", "Start it.")

    monkeypatch.setattr(ledger, "record", refuse)
    assert say(ledger, hook.url()).unrecorded == "ledger: must answer, got nothing. Start it."


def test_nothing_secret_is_logged(
    ledger: Ledger, hook: Hook, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    urls = [hook.url("/refused/T0KENT0KEN"), f"foo://ann:{SECRET}@host", f"mailto://ann:{SECRET}@"]
    told = say(ledger, *urls, hook.url())
    seen = caplog.text + "".join(capfd.readouterr()) + str(told)
    assert SECRET not in seen
    assert "T0KENT0KEN" not in seen


def test_a_problem_known_before_is_said_without_trying(ledger: Ledger) -> None:
    receiver = Receiver("connection:ops", (), "is not there")
    told = tell(ledger, "shop", MESSAGE, [receiver], actor="r1", now=NOW)
    assert told.delivery
    assert told.delivery.missed == ("connection:ops: is not there",)
    assert ledger.events("shop") == []


@pytest.mark.parametrize(
    ("url", "shown", "secrets"),
    [
        ("connection:ops", "connection:ops", set()),
        ("json://u:p%40ss@h/x", "json://...", {"p@ss"}),
        ("slack://TokenA123/TokenB123/#c", "slack://...", {"TokenA123", "TokenB123"}),
        ("mailto://h?user=u&pass=hush&mode=insecure", "mailto://...", {"hush"}),
        ("http://[bad", "http://...", set()),
    ],
)
def test_addresses_are_hidden(url: str, shown: str, secrets: set[str]) -> None:
    assert hide_address(url) == shown
    assert secrets <= set(secrets_of(url))
    assert "insecure" not in secrets_of(url)


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("json://hooks.example.com/evergreen/training", set()),
        ("json://evergreen:pw@hooks.example.com:8080/Model-7/churn_2026", {"pw"}),
        ("mailto://ann@mail-1.example.com/ops@example.com?from=evergreen@example.com", set()),
        ("json://h/p4ss%2Fw0rd", {"p4ss%2Fw0rd", "p4ss/w0rd"}),
        ("json://u:p%40ss@h/x", {"p%40ss", "p@ss"}),
        ("json://h/x?token=tr%61ining&mode=insecure", {"tr%61ining", "training"}),
        ("json://h/x?unheard_of=a1B2c3D4e5", {"a1B2c3D4e5"}),
        ("json://h/abcdefghijklmnopqrstuvwxyz", {"abcdefghijklmnopqrstuvwxyz"}),
        ("slack://TokenA123/TokenB123", {"TokenA123", "TokenB123"}),
        ("tgram://123456789:abcdefg_hij/42", {"123456789:abcdefg_hij"}),
    ],
)
def test_words_are_no_secrets_and_tokens_are(url: str, secrets: set[str]) -> None:
    assert set(secrets_of(url)) - {url, unquote(url)} == secrets


def test_of_an_address_in_a_connection_only_the_host_may_be_seen() -> None:
    url = "json://evergreen:pw@hooks.example.com:8080/training/a?to=somebody"
    assert set(secrets_of(url, kept=True)) == {url, "evergreen", "pw", "training", "somebody"}


def test_a_fault_in_one_channel_does_not_keep_it_from_the_others(
    ledger: Ledger, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    import apprise

    add = apprise.Apprise.add

    def break_down(self: apprise.Apprise, url: str) -> bool:
        if url.startswith("foo"):
            raise RuntimeError(url)
        return bool(add(self, url))

    monkeypatch.setattr(apprise.Apprise, "add", break_down)
    told = say(ledger, f"foo://{SECRET}", hook.url())
    assert told.delivery
    assert told.delivery.missed == ("foo://...: did not take the message, got RuntimeError",)
    assert len(hook.posts) == 1


def test_a_receiver_that_never_answers_is_given_up(ledger: Ledger, hook: Hook) -> None:
    """It takes the connection and says nothing: a few seconds, and the others are told."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began = time.monotonic()
        told = say(ledger, f"json://127.0.0.1:{port}/x", hook.url())
    assert time.monotonic() - began < 15
    assert told.delivery
    assert len(told.delivery.missed) == 1
    assert len(hook.posts) == 1
