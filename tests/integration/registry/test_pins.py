"""A pin stops every promotion, whoever is faster: with threads in between, and with processes that race."""

import multiprocessing
import time
from datetime import UTC, datetime

import pytest

from include.errors import ConflictError, PinnedError
from include.ledger.ledger import Ledger
from include.registry.gateway import Registry
from include.registry.pins import find_pin, pin, unpin
from include.registry.promotion import nominate, promote, rollback, undo
from include.registry.rollouts import Rollout, begin, current

pytestmark = pytest.mark.server
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
WHO = {"actor": "ann", "now": NOW}
ROUNDS = 5


def move(registry, ledger, name, version, expected, key=None):
    key = key or f"p{version}"
    return promote(
        registry, ledger, name, version, expected=expected, key=key, reason="better", **WHO
    )


def chain(ledger, name):
    return [(e.kind, e.payload.get("to") or e.payload.get("version")) for e in ledger.events(name)]


def test_a_pin_stands_until_it_is_released(ledger, name):
    assert find_pin(ledger, name) is None
    assert unpin(ledger, name, reason="never was", key="u0", **WHO) is None
    pin(ledger, name, "2", reason="complaints.", key="p1", **WHO)
    pin(ledger, name, "2", reason="complaints.", key="p1", **WHO)
    standing = find_pin(ledger, name)
    assert (standing.version, standing.reason, standing.actor) == ("2", "complaints.", "ann")
    assert str(standing) == "pinned to version 2 since 2026-03-02 12:00 by ann: complaints."
    pin(ledger, name, "1", reason="still", key="p2", **WHO)
    assert find_pin(ledger, name).version == "1"
    released = unpin(ledger, name, reason="mended", key="u1", **WHO)
    assert released.payload == {"version": "1", "reason": "mended"}
    assert find_pin(ledger, name) is None
    pin(ledger, name, "1", reason="again", key="p3", **WHO)
    assert unpin(ledger, name, reason="mended", key="u1", **WHO) == released  # cleared: a retry
    assert find_pin(ledger, name).reason == "again"
    assert [e.kind for e in ledger.events(name)] == ["pin", "pin", "unpin", "pin"]


def test_a_pin_may_ask_that_nothing_happened_since(ledger, name):
    pin(ledger, name, "1", reason="r", key="p1", after=0, **WHO)
    with pytest.raises(ConflictError, match="must end at event 0"):
        pin(ledger, name, "2", reason="r", key="p2", after=0, **WHO)
    assert find_pin(ledger, name).version == "1"


class Between:
    """A ledger to which somebody else writes right before our row."""

    def __init__(self, ledger, act):
        self.ledger, self.act = ledger, act

    def __getattr__(self, name):
        return getattr(self.ledger, name)

    def record(self, *args, **options):
        act, self.act = self.act, lambda: None
        act()
        return self.ledger.record(*args, **options)


def test_a_release_spares_a_pin_that_came_in_between(ledger, name):
    pin(ledger, name, "3", reason="old", key="p1", **WHO)
    later = Between(ledger, lambda: pin(ledger, name, "5", reason="worse", key="p2", **WHO))
    with pytest.raises(ConflictError, match=r"must stay pinned to version 3 .* version 5"):
        unpin(later, name, reason="mended", key="u1", **WHO)
    assert find_pin(ledger, name).version == "5"


def test_a_release_waits_for_no_other_row(ledger, name):
    pin(ledger, name, "3", reason="old", key="p1", **WHO)
    later = Between(ledger, lambda: ledger.record(name, "judgement", "j", {}, "judge", NOW))
    assert unpin(later, name, reason="mended", key="u1", **WHO).payload["version"] == "3"
    assert [e.kind for e in ledger.events(name)] == ["pin", "judgement", "unpin"]


def test_nothing_is_promoted_while_it_stands(registry, ledger, name, versions):
    move(registry, ledger, name, "1", None)
    pin(ledger, name, "1", reason="complaints.", key="p", **WHO)
    words = rf"model {name}: must not be pinned .* by ann: complaints\. `evergreen unpin {name}`"
    with pytest.raises(PinnedError, match=words):
        move(registry, ledger, name, "2", "1")
    with pytest.raises(PinnedError):
        move(registry, ledger, name, "2", "7")
    assert registry.aliases(name) == {"champion": "1"}
    move(registry, ledger, name, "1", "1", key="champion already")  # nothing to move
    nominate(registry, ledger, name, "2", key="n2", **WHO)
    assert registry.aliases(name) == {"champion": "1", "challenger": "2"}
    unpin(ledger, name, reason="mended", key="u", **WHO)
    move(registry, ledger, name, "2", "1")
    assert registry.aliases(name) == {"champion": "2", "previous_champion": "1"}


def test_it_stops_no_way_back(registry, ledger, name, versions):
    for version, expected in (("1", None), ("2", "1"), ("3", "2")):
        last = move(registry, ledger, name, version, expected)
    pin(ledger, name, "2", reason="r", key="p", **WHO)
    undo(registry, ledger, name, move=last, key="u", reason="r", **WHO)
    rollback(registry, ledger, name, to=None, key="b", reason="r", **WHO)
    assert registry.aliases(name) == {"champion": "1"}


@pytest.mark.parametrize("chosen", ["promotion", "applied"])
def test_set_between_a_promotion_s_look_and_its_write(registry, ledger, name, versions, chosen):
    """Before the row, the promotion must look again and give way; after it, it stands and is finished."""
    move(registry, ledger, name, "1", None)

    class Late(Ledger):
        def record(self, model, kind, *args, **options):
            if kind == chosen and find_pin(ledger, name) is None:
                pin(ledger, name, "1", reason="r", key="p", **WHO)
            return super().record(model, kind, *args, **options)

    late = Late(str(ledger._db.url))
    if chosen == "promotion":
        with pytest.raises(PinnedError):
            move(registry, late, name, "2", "1")
        assert registry.aliases(name) == {"champion": "1"}
        assert chain(ledger, name)[2:] == [("pin", "1")]
    else:
        move(registry, late, name, "2", "1")
        assert registry.aliases(name)["champion"] == "2"
    assert ledger.verify().ok


def _promote_all(url, ledger_url, name, barrier, over):
    """Swap the champion between 1 and 2 whenever it may."""
    registry, ledger = Registry(url), Ledger(ledger_url)
    barrier.wait(60)
    champion, number = "1", 0
    while not over.is_set():
        other, number = "2" if champion == "1" else "1", number + 1
        try:
            move(registry, ledger, name, other, champion, key=f"race{number}")
        except PinnedError:
            continue
        champion = other


def _pin_and_release(ledger_url, name, barrier, over):
    ledger = Ledger(ledger_url)
    barrier.wait(60)
    for number in range(ROUNDS):
        pin(ledger, name, "1", reason="r", key=f"pin{number}", **WHO)
        seen = ledger.head(name)
        assert find_pin(ledger, name) is not None
        # Hold it for as long as a promotion needs to run into it, measured by nothing but reads.
        for _ in range(30):
            assert ledger.events(name, "promotion", 1)[0].seq <= seen
        unpin(ledger, name, reason="r", key=f"unpin{number}", **WHO)
        _wait_for_a_promotion(ledger, name, seen)
    over.set()


def _wait_for_a_promotion(ledger, name, since):
    deadline = time.monotonic() + 60
    while ledger.events(name, "promotion", 1)[0].seq <= since:
        assert time.monotonic() < deadline, "released, and nothing was promoted"


def test_processes_that_race(mlflow_url, registry, ledger, name, versions, tmp_path):
    move(registry, ledger, name, "1", None)
    spawn = multiprocessing.get_context("spawn")
    barrier, over = spawn.Barrier(2), spawn.Event()
    ledger_url = f"sqlite:///{tmp_path}/ledger.db"
    racers = [
        spawn.Process(target=_promote_all, args=(mlflow_url, ledger_url, name, barrier, over)),
        spawn.Process(target=_pin_and_release, args=(ledger_url, name, barrier, over)),
    ]
    for racer in racers:
        racer.start()
    try:
        racers[1].join(240)
        assert racers[1].exitcode == 0
    finally:
        over.set()
        for racer in racers:
            racer.join(30)
    assert racers[0].exitcode == 0
    pinned = False
    for event in ledger.events(name):
        pinned = {"pin": True, "unpin": False}.get(event.kind, pinned)
        assert not (pinned and event.kind == "promotion"), event
    assert ledger.verify().ok


def test_no_rollout_begins(registry, ledger, name, versions):
    move(registry, ledger, name, "1", None)
    pin(ledger, name, "1", reason="r", key="p", **WHO)
    canary = Rollout("r1", "2", "canary", 0.1)
    with pytest.raises(PinnedError):
        begin(registry, ledger, name, canary, champion="1", **WHO)
    assert current(ledger, name) is None
    unpin(ledger, name, reason="r", key="u", **WHO)
    assert begin(registry, ledger, name, canary, champion="1", **WHO).active
