from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from include.errors import ConflictError
from include.ledger.ledger import Ledger
from include.registry import rollouts
from include.registry.gateway import Registry
from include.registry.promotion import nominate, promote, undo
from include.registry.rollouts import TAG_ROLLOUT, Rollout

pytestmark = pytest.mark.server
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Killed(BaseException):
    """What SIGKILL looks like from inside."""


class Bomb:
    """Explodes at the nth dangerous step, before or after doing it."""

    def __init__(self, step, after):
        self.left, self.after = step, after

    def around(self, action):
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Killed
        result = action()
        if self.left == 0:
            raise Killed
        return result


def armed(registry, ledger_url, bomb):
    """A registry and a ledger whose every write goes through the bomb."""

    class DyingRegistry(Registry):
        def set_alias(self, *args, **options):
            return bomb.around(lambda: super(DyingRegistry, self).set_alias(*args, **options))

        def set_model_tag(self, *args, **options):
            return bomb.around(lambda: super(DyingRegistry, self).set_model_tag(*args, **options))

    class DyingLedger(Ledger):
        def record(self, *args, **options):
            return bomb.around(lambda: super(DyingLedger, self).record(*args, **options))

    return DyingRegistry(registry.url), DyingLedger(ledger_url)


@pytest.fixture
def world(registry, tmp_path, name, versions):
    """Helpers bound to one model: version 1 is champion, 2 challenger."""
    url = f"sqlite:///{tmp_path}/ledger.db"

    class World:
        def __init__(self):
            self.registry, self.ledger, self.url = registry, Ledger(url), url

        def begin(self, rollout_id="r1", version="2", now=NOW):
            return rollouts.begin(
                self.registry,
                self.ledger,
                name,
                Rollout(rollout_id, version, "canary", 0.0),
                champion="1",
                actor="run",
                now=now,
            )

        def step(self, number, share, rollout_id="r1", now=NOW):
            return rollouts.step(
                self.registry,
                self.ledger,
                name,
                rollout_id,
                number=number,
                share=share,
                actor="run",
                now=now,
            )

        def end(self, outcome="STOPPED", reason="it errs", rollout_id="r1", actor="run"):
            return rollouts.end(
                self.registry,
                self.ledger,
                name,
                rollout_id,
                outcome=outcome,
                reason=reason,
                actor=actor,
                now=NOW,
            )

        @property
        def tag(self):
            return Rollout.from_tag(registry.model_tags(name).get(TAG_ROLLOUT))

        @property
        def aliases(self):
            return registry.aliases(name)

        @property
        def rows(self):
            found = self.ledger.events(name, "rollout")
            return [(e.payload["action"], e.payload["step"], e.payload["share"]) for e in found]

    made = World()
    promote(
        registry, made.ledger, name, "1", expected=None, key="p", reason="", actor="ann", now=NOW
    )
    nominate(registry, made.ledger, name, "2", key="n", actor="ann", now=NOW)
    return made


def test_from_beginning_to_end(world, name):
    later = NOW + timedelta(minutes=5)
    assert rollouts.current(world.ledger, name) is None
    assert world.begin().rollout == world.tag == Rollout("r1", "2", "canary", 0.0)
    assert world.step(0, 0.1).step == 0
    standing = world.step(1, 0.5, now=later)
    assert world.tag == standing.rollout == Rollout("r1", "2", "canary", 0.5)
    assert (standing.step, standing.began, standing.since) == (1, NOW, later)
    assert rollouts.current(world.ledger, name) == standing
    ended = world.end()
    assert (ended.outcome, ended.reason, ended.active) == ("STOPPED", "it errs", False)
    assert world.tag is None
    assert world.aliases == {"champion": "1"}, "the challenger goes home"
    assert rollouts.current(world.ledger, name) is None
    assert rollouts.latest(world.ledger, name) == ended
    assert world.rows == [("begin", -1, 0.0), ("step", 0, 0.1), ("step", 1, 0.5), ("end", 1, 0.5)]
    assert world.ledger.verify().ok


def test_again_changes_nothing_and_never_goes_back(world):
    world.begin()
    world.step(0, 0.1)
    reached = world.step(1, 0.5)
    later = NOW + timedelta(hours=1)
    assert world.begin(now=later) == reached
    assert world.step(0, 0.1, now=later) == reached, "a cleared step does not start its hold anew"
    assert world.step(1, 0.5, now=later) == reached
    assert world.tag.share == 0.5
    world.end()
    assert world.end("ABANDONED", "its run ended").outcome == "STOPPED", "the first end holds"
    assert len(world.rows) == 4


def test_only_one_at_a_time(world):
    world.begin()
    with pytest.raises(ConflictError, match="must be the only one, got version 2 under way"):
        world.begin("r2", "3")
    assert world.tag.id == "r1"
    world.end()
    assert world.begin("r2", "3").rollout.version == "3"
    assert world.end().outcome == "STOPPED", "ending the old one again leaves the new one alone"
    assert world.tag.id == "r2"


def test_what_was_decided_is_not_begun_again(world):
    world.begin()
    world.end()
    with pytest.raises(ConflictError, match=r"until it is decided, got STOPPED .*: it errs"):
        world.begin()
    with pytest.raises(ConflictError, match="must go on to take a step, got STOPPED"):
        world.step(0, 0.1)
    assert world.tag is None


def test_an_abandoned_one_begins_again_from_the_first_step(world):
    world.begin()
    world.step(1, 0.5)
    world.end("ABANDONED", "its run ended")
    assert world.aliases["challenger"] == "2", "it may be tried again"
    later = NOW + timedelta(hours=1)
    standing = world.begin(now=later)
    assert (standing.step, standing.rollout.share, standing.began) == (-1, 0.0, later)
    assert world.step(0, 0.1, now=later).rollout.share == 0.1


def take_over(world, name, ledger=None, **options):
    return promote(
        world.registry,
        ledger or world.ledger,
        name,
        "2",
        expected="1",
        key="t",
        reason="it is better",
        actor="run",
        now=NOW,
        **options,
    )


def test_a_stop_that_comes_before_the_promotions_row_wins(world, name):
    world.begin()
    world.step(0, 0.1)

    class Slow(Ledger):
        """Somebody stops the rollout after all checks, before the row."""

        def record(self, model, kind, *args, **options):
            if kind == "promotion":
                world.end("STOPPED", "complaints")
            return super().record(model, kind, *args, **options)

    with pytest.raises(ConflictError, match=r"must not be stopped .* got STOPPED .* complaints"):
        take_over(world, name, Slow(world.url), rollout="r1")
    assert world.aliases == {"champion": "1"}
    assert take_over(world, name, rollout="another").payload["to"] == "2"


@pytest.mark.parametrize("outcome", ["ABANDONED", "STOPPED"])
def test_what_is_champion_ends_as_promoted(world, name, outcome):
    world.begin()
    take_over(world, name, rollout="r1")
    ended = world.end(outcome, "its run ended")  # `promote` was killed after its move
    assert (ended.outcome, ended.reason) == ("PROMOTED", "it is better")
    assert world.tag is None


def test_a_promotion_that_was_taken_back_can_be_stopped(world, registry, name):
    world.begin()
    move = take_over(world, name, rollout="r1")
    undo(registry, world.ledger, name, move=move, key="u", reason="", actor="run", now=NOW)
    assert world.end("STOPPED", "complaints").outcome == "STOPPED"


def test_an_abandoned_one_may_be_promoted_after_all(world, name):
    world.begin()
    world.end("ABANDONED", "its run ended")
    take_over(world, name, rollout="r1")
    assert world.end("PROMOTED", "it is better").outcome == "PROMOTED"
    assert world.end("STOPPED", "complaints").outcome == "PROMOTED", "that one holds"


def test_ending_what_never_began(world):
    assert world.end() is None
    assert world.rows == []


def test_a_challenger_nominated_again_since_keeps_its_alias(world, registry, name):
    world.begin()
    world.end()
    nominate(registry, world.ledger, name, "2", key="n2", actor="ann", now=NOW)
    rollouts.settle(registry, world.ledger, name)
    assert world.aliases["challenger"] == "2"


def test_a_persons_wish(world, name):
    def wish(reason="looks fine"):
        return rollouts.wish_promotion(world.ledger, name, reason=reason, actor="ann", now=NOW)

    with pytest.raises(ConflictError, match="must go on to be promoted, got none"):
        wish()
    world.begin()
    assert wish().wish == ("ann", "looks fine")
    assert wish("once more").wish == ("ann", "looks fine")
    assert world.step(0, 0.1).wish == ("ann", "looks fine"), "it holds for the steps to come"


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("action", ["begin", "step", "end"])
def test_killed_at_any_point_and_tried_again(world, registry, action, nth, after):
    def act():
        return {
            "begin": world.begin,
            "step": lambda: world.step(0, 0.1),
            "end": world.end,
        }[action]()

    if action != "begin":
        world.begin()
    if action == "end":
        world.step(0, 0.1)
    whole = world.registry, world.ledger
    world.registry, world.ledger = armed(registry, world.url, Bomb(nth, after))
    dies = nth <= {"begin": 2, "step": 2, "end": 3}[action]
    if dies:
        with pytest.raises(Killed):
            act()
    else:
        act()
    world.registry, world.ledger = whole
    act()
    want = {"begin": 0.0, "step": 0.1, "end": None}[action]
    assert (world.tag.share if world.tag else None) == want
    assert ("challenger" in world.aliases) == (action != "end")
    assert len(world.rows) == {"begin": 1, "step": 2, "end": 3}[action]


def test_whoever_comes_next_finishes_what_was_written(world, registry, name):
    world.begin()
    killed = world.registry, world.ledger
    world.registry, world.ledger = armed(registry, world.url, Bomb(1, after=True))
    with pytest.raises(Killed):
        world.end()
    assert world.tag is not None
    world.registry, world.ledger = killed
    world.begin("r2", "3")
    assert world.tag.id == "r2"
    rollouts.settle(registry, world.ledger, name)
    assert world.tag.id == "r2"


def test_two_that_begin_at_once_have_one_winner(world, registry, name):
    def attempt(number):
        try:
            return rollouts.begin(
                Registry(registry.url),
                Ledger(world.url),
                name,
                Rollout(f"r{number}", str(number), "canary", 0.0),
                champion="1",
                actor="run",
                now=NOW,
            )
        except ConflictError:
            return None

    with ThreadPoolExecutor(4) as pool:
        won = [standing for standing in pool.map(attempt, [2, 3, 4, 2]) if standing]
    assert len({standing.rollout.id for standing in won}) == 1
    assert world.tag.id == won[0].rollout.id
    assert [action for action, _, _ in world.rows] == ["begin"]


def test_a_model_nobody_registered(registry, ledger):
    rollouts.settle(registry, ledger, "nobody_knows_it")
    assert registry.model_tags("nobody_knows_it") == {}
