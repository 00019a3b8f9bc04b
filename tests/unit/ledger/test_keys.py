"""API keys in the ledger: what a key is, and what is kept of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from include.errors import DataError
from include.ledger.chain import iso
from include.ledger.keys import hash_key, key_id
from include.ledger.ledger import Ledger
from include.ledger.tables import API_KEYS

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def test_a_key_is_shown_once_and_kept_as_a_hash(ledger: Ledger) -> None:
    key, text = ledger.add_api_key("ann", ["churn", "fraud"], now=NOW, lifetime=90 * DAY)
    assert re.fullmatch(r"eg_[0-9a-f]{12}\.[\w-]{43}", text)
    assert key_id(text) == key.id
    assert key.hash == hash_key(text)
    assert ledger.api_keys() == [key]
    assert (key.models, key.expires_at) == (("churn", "fraud"), "2026-05-30T12:00:00.000000+00:00")
    with ledger._db.read() as connection:
        row = connection.execute(select(API_KEYS)).one()
    assert text.partition(".")[2] not in str(row)


def test_keys_differ(ledger: Ledger) -> None:
    made = [ledger.add_api_key("ann", now=NOW) for _ in range(5)]
    assert len({key.id for key, _ in made}) == len({text for _, text in made}) == 5


def test_an_end(ledger: Ledger) -> None:
    key, _ = ledger.add_api_key("ann", now=NOW, lifetime=DAY)
    assert not key.expired(NOW + DAY - timedelta(seconds=1))
    assert key.expired(NOW + DAY)
    assert not ledger.add_api_key("bob", now=NOW)[0].expired(NOW + 10_000 * DAY)


def test_rotation(ledger: Ledger) -> None:
    old, _ = ledger.add_api_key("ann", ["churn"], now=NOW, lifetime=90 * DAY)
    later = NOW + 30 * DAY
    new, text, ended = ledger.rotate_api_key(old.id, now=later, grace=DAY)
    assert (new.name, new.models, new.hash) == ("ann", ("churn",), hash_key(text))
    assert new.expires_at == iso(later + 90 * DAY)
    assert ended.expires_at == iso(later + DAY)
    assert ledger.api_keys() == [ended, new]


def test_a_rotated_key_is_not_rotated_again(ledger: Ledger) -> None:
    first, _ = ledger.add_api_key("ann", now=NOW)
    second, _, ended = ledger.rotate_api_key(first.id, now=NOW + DAY / 4, grace=DAY)
    with pytest.raises(DataError, match=f"must not have been rotated .* key {second.id}") as caught:
        ledger.rotate_api_key(first.id, now=NOW + DAY / 2, grace=DAY)
    assert f"Rotate {second.id}" in str(caught.value)
    assert ledger.api_keys() == [ended, second]
    third, _, _ = ledger.rotate_api_key(second.id, now=NOW + DAY / 2, grace=DAY)
    assert third.expires_at is None


def test_a_grace_does_not_prolong_a_key(ledger: Ledger) -> None:
    old, _ = ledger.add_api_key("ann", now=NOW, lifetime=DAY)
    _, _, ended = ledger.rotate_api_key(old.id, now=NOW, grace=7 * DAY)
    assert ended.expires_at == old.expires_at


def test_an_expired_key_is_not_rotated(ledger: Ledger) -> None:
    old, _ = ledger.add_api_key("ann", now=NOW, lifetime=DAY)
    with pytest.raises(DataError, match="must still work to be rotated"):
        ledger.rotate_api_key(old.id, now=NOW + DAY, grace=DAY)
    assert ledger.api_keys() == [old]


def test_revocation(ledger: Ledger) -> None:
    key, _ = ledger.add_api_key("ann", now=NOW)
    assert ledger.revoke_api_key(key.id) == key
    assert ledger.api_keys() == []
    for call in (
        lambda: ledger.revoke_api_key(key.id),
        lambda: ledger.rotate_api_key(key.id, now=NOW, grace=DAY),
    ):
        with pytest.raises(DataError, match="got none of this id"):
            call()


@pytest.mark.parametrize("name", ["", " ", "x" * 101, "a\nb"])
def test_names(ledger: Ledger, name: str) -> None:
    with pytest.raises(DataError, match="must have a name of 1 to 100"):
        ledger.add_api_key(name, now=NOW)


@pytest.mark.parametrize("models", [[], [""], ["*", "churn"]])
def test_scopes(ledger: Ledger, models: list[str]) -> None:
    with pytest.raises(DataError, match="must be for named models or for all"):
        ledger.add_api_key("ann", models, now=NOW)
