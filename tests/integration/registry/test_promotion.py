from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from include.errors import ConflictError, ModelError, ServiceError
from include.ledger.ledger import Ledger
from include.registry.gateway import Registry
from include.registry.promotion import nominate, promote, reconcile, rollback, undo

pytestmark = pytest.mark.server
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
WHO = {"reason": "because", "actor": "ann", "now": NOW}
MOVES = ("promotion", "rollback", "external_move")


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

    class DyingLedger(Ledger):
        def record(self, *args, **options):
            return bomb.around(lambda: super(DyingLedger, self).record(*args, **options))

    return DyingRegistry(registry.url), DyingLedger(ledger_url)


@pytest.fixture
def ledger_url(tmp_path):
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def world(registry, ledger, name, versions):
    """Helpers bound to one model with four versions."""

    class World:
        def promote(self, version, expected, key=None, registry=registry, ledger=ledger):
            return promote(
                registry, ledger, name, version, expected=expected, key=key or f"p{version}", **WHO
            )

        def rollback(self, to=None, key="r", registry=registry, ledger=ledger):
            return rollback(registry, ledger, name, to=to, key=key, **WHO)

        def undo(self, move, key="u"):
            return undo(registry, ledger, name, move=move, key=key, **WHO)

        def nominate(self, version, key=None):
            return nominate(
                registry, ledger, name, version, key=key or f"n{version}", actor="ann", now=NOW
            )

        def reconcile(self):
            return reconcile(registry, ledger, name, actor="ann", now=NOW)

        def by_hand(self, version):
            registry.client.set_registered_model_alias(name, "champion", version)

        @property
        def aliases(self):
            return registry.aliases(name)

        @property
        def history(self):
            return [
                (e.kind, e.payload["from"], e.payload["to"]) for e in ledger.events(name, MOVES)
            ]

    return World()


class TestPromote:
    def test_moves_three_aliases_and_writes_rows(self, world, ledger, name):
        world.nominate("1")
        assert world.aliases == {"challenger": "1"}
        first = world.promote("1", None)
        assert world.aliases == {"champion": "1"}
        world.nominate("2")
        world.promote("2", "1")
        assert world.aliases == {"champion": "2", "previous_champion": "1"}
        assert world.history == [("promotion", None, "1"), ("promotion", "1", "2")]
        assert (first.actor, first.payload["reason"]) == ("ann", "because")
        assert ledger.verify().ok
        kinds = [event.kind for event in ledger.events(name)]
        assert kinds == ["challenger", "promotion", "applied"] * 2

    def test_again_changes_nothing(self, world):
        first = world.promote("1", None)
        assert world.promote("1", None) == first
        world.promote("2", "1")
        assert world.promote("1", None) == first  # an old task, cleared: must not go back
        assert world.aliases["champion"] == "2"
        assert len(world.history) == 2

    def test_a_champion_needs_no_promotion(self, world):
        first = world.promote("1", None)
        assert world.promote("1", None, key="another run") == first
        assert world.promote("1", "1", key="a third") == first
        assert len(world.history) == 1

    def test_judged_against_somebody_else(self, world):
        world.promote("1", None)
        with pytest.raises(ConflictError, match="must be at None, got 1"):
            world.promote("2", None)
        with pytest.raises(ConflictError, match="must be at 3, got 1"):
            world.promote("2", "3")
        assert world.aliases == {"champion": "1"}
        assert len(world.history) == 1

    def test_of_nothing(self, world, registry, name):
        with pytest.raises(ModelError, match="version 99 must be one that Evergreen registered"):
            world.promote("99", None)
        registry.client.delete_model_version_tag(name, "4", "evergreen.producer")
        with pytest.raises(ModelError, match="got one registered by somebody else"):
            world.promote("4", None)
        assert world.history == []

    def test_two_at_once_have_one_winner(self, world, registry, ledger_url):
        world.promote("1", None)

        def attempt(version):
            try:
                world.promote(
                    version, "1", registry=Registry(registry.url), ledger=Ledger(ledger_url)
                )
            except ConflictError:
                return None
            return version

        with ThreadPoolExecutor(3) as pool:
            won = [v for v in pool.map(attempt, ["2", "3", "4"]) if v]
        assert len(won) == 1
        assert world.aliases == {"champion": won[0], "previous_champion": "1"}
        assert world.history == [("promotion", None, "1"), ("promotion", "1", won[0])]

    def test_the_same_one_at_once(self, world, registry, ledger_url):
        def attempt(_):
            return world.promote(
                "1", None, registry=Registry(registry.url), ledger=Ledger(ledger_url)
            )

        with ThreadPoolExecutor(3) as pool:
            assert len({event.seq for event in pool.map(attempt, range(3))}) == 1
        assert world.history == [("promotion", None, "1")]


class TestKilled:
    """A promotion has six dangerous steps: row, three aliases, `applied` row; one more is none."""

    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
    def test_the_retry_ends_the_same(self, world, registry, ledger, ledger_url, step, after):
        world.promote("1", None)
        world.nominate("2")
        dying = armed(registry, ledger_url, Bomb(step, after))
        with pytest.raises(Killed):
            world.promote("2", "1", registry=dying[0], ledger=dying[1])
        world.promote("2", "1")
        assert world.aliases == {"champion": "2", "previous_champion": "1"}
        assert world.history == [("promotion", None, "1"), ("promotion", "1", "2")]
        assert ledger.verify().ok

    def test_the_bomb_covers_every_step(self, world, registry, ledger_url):
        world.promote("1", None)
        world.nominate("2")
        bomb = Bomb(10**6, False)
        dying = armed(registry, ledger_url, bomb)
        world.promote("2", "1", registry=dying[0], ledger=dying[1])
        assert 10**6 - bomb.left == 5

    @pytest.mark.parametrize("step", [1, 2, 3, 4])
    def test_the_next_one_finishes_it_first(self, world, registry, ledger_url, step):
        world.promote("1", None)
        dying = armed(registry, ledger_url, Bomb(step, True))
        with pytest.raises(Killed):
            world.promote("2", "1", registry=dying[0], ledger=dying[1])
        with pytest.raises(ConflictError, match="must be at 1, got 2"):
            world.promote("3", "1")  # judged against a champion that is none any more
        assert world.aliases == {"champion": "2", "previous_champion": "1"}
        world.promote("3", "2", key="judged again")
        assert world.aliases == {"champion": "3", "previous_champion": "2"}

    def test_reconcile_finishes_it(self, world, registry, ledger_url):
        dying = armed(registry, ledger_url, Bomb(1, True))
        with pytest.raises(Killed):
            world.promote("1", None, registry=dying[0], ledger=dying[1])
        assert world.aliases == {}
        assert world.reconcile().payload["to"] == "1"
        assert world.aliases == {"champion": "1"}

    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize("step", [1, 2, 3, 4])
    def test_a_rollback_too(self, world, registry, ledger_url, step, after):
        for version, expected in (("1", None), ("2", "1"), ("3", "2")):
            world.promote(version, expected)
        dying = armed(registry, ledger_url, Bomb(step, after))
        with pytest.raises(Killed):
            world.rollback(registry=dying[0], ledger=dying[1])
        world.rollback()
        assert world.aliases == {"champion": "2", "previous_champion": "1"}
        assert world.history[-1] == ("rollback", "3", "2")
        assert len(world.history) == 4

    def test_mlflow_away_in_the_middle(self, world, registry, ledger):
        class Away(Registry):
            def set_alias(self, *args, **options):
                raise self.failure("must answer, got nothing", "Start it.")

        with pytest.raises(ServiceError):
            world.promote("1", None, registry=Away(registry.url))
        assert world.aliases == {}
        world.promote("1", None)
        assert world.aliases == {"champion": "1"}
        assert len(world.history) == 1

    def test_a_writer_that_slept_puts_right_what_it_wrote_late(self, world, registry, ledger_url):
        """It looked, slept while two others promoted, and then wrote its old target."""
        world.promote("1", None)

        class Sleeper(Registry):
            slept = False

            def set_alias(self, name, alias, version, *, expected):
                if alias == "champion" and not Sleeper.slept:
                    Sleeper.slept = True
                    world.reconcile()
                    world.promote("3", "2")
                    self.client.set_registered_model_alias(name, alias, version)
                else:
                    super().set_alias(name, alias, version, expected=expected)

        world.promote("2", "1", registry=Sleeper(registry.url))
        assert Sleeper.slept
        assert world.aliases == {"champion": "3", "previous_champion": "2"}
        assert world.history[-1] == ("promotion", "2", "3")


class TestMovedByHand:
    def test_is_written_down_before_the_next_promotion(self, world):
        world.promote("1", None)
        world.by_hand("2")
        world.promote("3", "2")
        assert world.history == [
            ("promotion", None, "1"),
            ("external_move", "1", "2"),
            ("promotion", "2", "3"),
        ]
        assert world.aliases == {"champion": "3", "previous_champion": "2"}

    def test_is_a_conflict_for_who_did_not_know(self, world):
        world.promote("1", None)
        world.by_hand("2")
        with pytest.raises(ConflictError, match=r"must be at 1, got 2 \(moved by hand from 1\)"):
            world.promote("3", "1")
        assert world.aliases["champion"] == "2"

    def test_to_what_is_being_promoted(self, world):
        world.promote("1", None)
        world.by_hand("2")
        world.promote("2", "1")
        assert world.history[-1] == ("promotion", "1", "2")
        assert world.aliases == {"champion": "2", "previous_champion": "1"}

    def test_before_there_was_a_ledger(self, world):
        world.by_hand("1")
        world.promote("2", "1")
        assert world.history == [("external_move", None, "1"), ("promotion", "1", "2")]

    def test_in_the_middle_of_a_promotion(self, world, registry, ledger_url):
        world.promote("1", None)
        dying = armed(registry, ledger_url, Bomb(1, True))
        with pytest.raises(Killed):
            world.promote("2", "1", registry=dying[0], ledger=dying[1])
        world.by_hand("4")
        with pytest.raises(ConflictError, match="moved by hand"):
            world.promote("2", "1")
        assert world.aliases["champion"] == "4"
        world.promote("3", "4")
        assert world.aliases["champion"] == "3"
        assert world.history[-2:] == [("external_move", "2", "4"), ("promotion", "4", "3")]

    def test_reconcile_writes_it_down(self, world):
        world.promote("1", None)
        world.by_hand("2")
        assert world.reconcile().kind == "external_move"
        assert world.reconcile().seq == world.reconcile().seq
        assert world.history == [("promotion", None, "1"), ("external_move", "1", "2")]

    def test_a_removed_champion(self, world, registry, name):
        world.promote("1", None)
        registry.client.delete_registered_model_alias(name, "champion")
        world.promote("2", None)
        assert world.history[1:] == [("external_move", "1", None), ("promotion", None, "2")]


class TestRollback:
    def test_goes_back_and_further_back(self, world):
        for version, expected in (("1", None), ("2", "1"), ("3", "2")):
            world.promote(version, expected)
        world.rollback(key="r1")
        assert world.aliases == {"champion": "2", "previous_champion": "1"}
        world.rollback(key="r2")
        assert world.aliases == {"champion": "1"}
        with pytest.raises(ConflictError, match="needs another version"):
            world.rollback(key="r3")

    def test_the_same_twice_is_once(self, world):
        for version, expected in (("1", None), ("2", "1"), ("3", "2")):
            world.promote(version, expected)
        assert world.rollback(key="r") == world.rollback(key="r")
        assert world.aliases["champion"] == "2"

    def test_to_a_named_version(self, world):
        for version, expected in (("1", None), ("2", "1"), ("3", "2")):
            world.promote(version, expected)
        world.rollback(to="1")
        assert world.aliases == {"champion": "1"}
        world.promote("4", "1")
        assert world.aliases == {"champion": "4", "previous_champion": "1"}

    def test_to_itself_or_to_nothing(self, world):
        with pytest.raises(ConflictError, match="needs another version"):
            world.rollback()
        world.promote("1", None)
        with pytest.raises(ConflictError, match="got 1"):
            world.rollback(to="1")
        with pytest.raises(ModelError, match="version 99"):
            world.rollback(to="99")

    def test_after_a_move_by_hand(self, world):
        world.promote("1", None)
        world.by_hand("2")
        world.rollback()
        assert world.aliases["champion"] == "1"
        assert world.history[1:] == [("external_move", "1", "2"), ("rollback", "2", "1")]

    def test_a_deleted_previous_champion_is_no_obstacle(self, world, registry, name):
        for version, expected in (("1", None), ("2", "1"), ("3", "2")):
            world.promote(version, expected)
        registry.client.delete_model_version(name, "1")
        world.rollback()
        assert world.aliases == {"champion": "2"}


class TestUndo:
    def test_returns_to_what_was(self, world):
        world.promote("1", None)
        move = world.promote("2", "1")
        world.undo(move)
        world.undo(move)
        assert world.aliases == {"champion": "1"}
        assert world.history[-1] == ("rollback", "2", "1")

    def test_of_the_first_promotion_leaves_no_champion(self, world):
        world.undo(world.promote("1", None))
        assert world.aliases == {}
        world.promote("2", None)
        assert world.aliases == {"champion": "2"}

    def test_not_when_somebody_moved_since(self, world):
        move = world.promote("1", None)
        world.promote("2", "1")
        with pytest.raises(ConflictError, match="got a later one"):
            world.undo(move)
        assert world.aliases["champion"] == "2"


def test_the_newest_nomination_holds(world):
    world.nominate("1")
    world.nominate("2")
    world.nominate("1")  # an old task, cleared
    assert world.aliases == {"challenger": "2"}
    world.promote("2", None)
    world.nominate("2", key="again")
    assert world.aliases == {"champion": "2"}
