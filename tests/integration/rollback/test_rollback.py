"""The way back against a real MLflow and a real ledger: its order, its kills, its replicas."""

from datetime import UTC, datetime, timedelta

import pytest

from include.errors import ConflictError, ModelError, PinnedError, ServiceError
from include.ledger.ledger import Ledger
from include.registry.gateway import Registry
from include.registry.package import TAG_DIGEST
from include.registry.pins import PIN, UNPIN, find_pin, pin, unpin
from include.registry.promotion import promote, undo
from include.registry.rollouts import TAG_ROLLOUT, Rollout, begin, current, step
from include.rollback import rollback as room
from include.rollback.rollback import Rollback as Ask
from include.rollback.rollback import roll_back

pytestmark = pytest.mark.server
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
WHO = {"actor": "ann", "now": NOW}


class Killed(BaseException):
    """What SIGKILL looks like from inside."""


class World:
    """One model, its replicas, and a clock that moves only when somebody sleeps."""

    def __init__(self, registry, ledger, name, cache):
        self.registry, self.ledger, self.name, self.cache = registry, ledger, name, cache
        self.now, self.replicas, self.tested = NOW, {}, []

    # --- time and replicas ---

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += timedelta(seconds=seconds)
        self.speak()

    def speak(self):
        """Every replica looks at the alias, does its part, and reports."""
        champion = self.registry.aliases(self.name).get("champion")
        for id, follow in self.replicas.items():
            state = {"models": {self.name: follow(champion)}}
            self.ledger.report_replica(id, state, started_at=NOW, now=self.now)

    def add_replica(self, id, follow=lambda champion: {"champion": champion}):
        self.replicas[id] = follow
        self.speak()

    # --- what is done ---

    def promote(self, version, expected, registry=None, key=None):
        key = key or f"p{version}"
        args = {"expected": expected, "key": key, "reason": "better"}
        return promote(self.registry, self.ledger, self.name, version, **args, **WHO)

    def begin(self, version):
        canary = Rollout(f"to{version}", version, "canary", 0.0)
        begin(self.registry, self.ledger, self.name, canary, champion="3", **WHO)
        args = {"number": 0, "share": 0.5}
        step(self.registry, self.ledger, self.name, canary.id, **args, **WHO)

    def roll_back(self, to=None, key="r", registry=None, ledger=None):
        ask = Ask(
            registry=registry or self.registry,
            ledger=ledger or self.ledger,
            name=self.name,
            cache=self.cache,
            key=key,
            reason="complaints",
            actor="ann",
            clock=self.clock,
            sleep=self.sleep,
            patience=timedelta(seconds=30),
        )
        return roll_back(ask, to)

    # --- what is so ---

    @property
    def aliases(self):
        return self.registry.aliases(self.name)

    @property
    def chain(self):
        kinds = ("promotion", "rollback", "external_move", PIN, UNPIN)
        events = self.ledger.events(self.name, kinds)
        return [(e.kind, e.payload.get("to") or e.payload.get("version")) for e in events]


@pytest.fixture
def world(registry, ledger, name, versions, tmp_path, monkeypatch):
    """Three champions one after the other, and a version 4 that never was; load tests pass."""
    it = World(registry, ledger, name, tmp_path / "cache")
    for version, expected in (("1", None), ("2", "1"), ("3", "2")):
        it.promote(version, expected)
    monkeypatch.setattr(room, "load_test", lambda *a: it.tested.append(a[2]))
    return it


BEGUN = [("promotion", "1"), ("promotion", "2"), ("promotion", "3")]


class TestOrder:
    def test_back_to_the_previous_champion(self, world):
        world.add_replica("one")
        world.add_replica("two")
        result = world.roll_back()
        assert (result.version, result.previous, world.tested) == ("2", "3", ["2"])
        assert world.aliases == {"champion": "2", "previous_champion": "1"}
        assert world.chain == [*BEGUN, ("pin", "2"), ("rollback", "2")]
        assert sorted(result.replies.answering) == ["one", "two"]
        assert result.seconds == pytest.approx(0.1)
        assert result.said == "2 serving processes answer with it, 0.1 s after the question."
        result.require_all()
        with pytest.raises(PinnedError):
            world.promote("4", "2")
        assert world.ledger.verify().ok

    def test_nobody_lives(self, world):
        result = world.roll_back()
        assert result.replies.answering == ()
        assert result.said == "No serving process lives, so nobody confirmed it (0.0 s)."
        result.require_all()

    def test_to_a_version_that_never_was_champion(self, world):
        assert world.roll_back("4").version == "4"
        assert world.aliases == {"champion": "4", "previous_champion": "3"}

    def test_the_same_key_is_the_same_rollback(self, world):
        first = world.roll_back()
        again = world.roll_back()
        assert (again.move, again.version) == (first.move, first.version)
        assert world.tested == ["2"]
        assert world.chain == [*BEGUN, ("pin", "2"), ("rollback", "2")]

    def test_another_key_goes_no_further_back(self, world):
        """A person whose command died gives it again."""
        first = world.roll_back(key="one")
        again = world.roll_back(key="two")
        assert (again.version, again.move) == ("2", first.move)
        assert world.roll_back("2", key="three").move == first.move
        assert world.roll_back("1", key="four").version == "1"
        assert world.chain[-2:] == [("pin", "1"), ("rollback", "1")]
        assert find_pin(world.ledger, world.name).version == "1"

    def test_an_active_rollout_is_ended(self, world):
        world.begin("4")
        assert TAG_ROLLOUT in world.registry.model_tags(world.name)
        world.roll_back()
        assert current(world.ledger, world.name) is None
        assert TAG_ROLLOUT not in world.registry.model_tags(world.name)
        assert world.aliases == {"champion": "2", "previous_champion": "1"}
        ended = world.ledger.events(world.name, "rollout")[-1].payload
        assert (ended["outcome"], ended["reason"]) == (
            "STOPPED",
            "rolled back to version 2: complaints",
        )

    def test_released_and_promoted_since_it_is_left_alone(self, world):
        """A task cleared much later must not touch what was decided since: neither champion nor rollout."""
        world.roll_back()
        unpin(world.ledger, world.name, reason="mended", key="u", **WHO)
        assert world.roll_back().version == "2"  # it is what it was: confirmed once more
        assert find_pin(world.ledger, world.name) is None
        world.promote("3", "2", key="again")
        world.begin("4")
        with pytest.raises(ConflictError, match="promotion to version 3 by ann"):
            world.roll_back()
        assert world.aliases["champion"] == "3"
        assert current(world.ledger, world.name).active

    def test_nowhere_to_go(self, world, monkeypatch):
        with pytest.raises(ConflictError, match="needs another version than the champion 3"):
            world.roll_back("3")
        assert world.chain == BEGUN

    def test_a_version_that_fails_its_test_moves_nothing(self, world, monkeypatch):
        def fails(*_):
            raise ModelError("model", "must load, got nothing", "Train.")

        monkeypatch.setattr(room, "load_test", fails)
        world.begin("4")
        with pytest.raises(ModelError):
            world.roll_back()
        assert world.chain == BEGUN
        assert world.aliases["champion"] == "3"
        assert current(world.ledger, world.name).active


class TestMeanwhile:
    def test_a_promotion_during_the_test_changes_what_is_previous(self, world, monkeypatch):
        def slow(_registry, _name, version, _cache):
            world.tested.append(version)
            if version == "2":
                world.promote("4", "3")

        monkeypatch.setattr(room, "load_test", slow)
        assert world.roll_back().version == "3"
        assert world.tested == ["2", "3"]
        assert world.chain == [*BEGUN, ("promotion", "4"), ("pin", "3"), ("rollback", "3")]

    def test_a_chain_that_grows_is_no_reason_to_test_again(self, world, monkeypatch):
        def slow(_registry, _name, version, _cache):
            world.tested.append(version)
            world.ledger.record(world.name, "monitor", "m", {"reason": "r"}, "dag", NOW)

        monkeypatch.setattr(room, "load_test", slow)
        assert world.roll_back().version == "2"
        assert world.tested == ["2"]

    def test_a_deployment_undone_meanwhile_needs_no_move(self, world):
        last = world.promote("4", "3")

        class Late(Ledger):
            def record(self, model, kind, *args, **options):
                event = super().record(model, kind, *args, **options)
                if kind == PIN:
                    undo(
                        world.registry,
                        world.ledger,
                        model,
                        move=last,
                        key="u",
                        reason="r",
                        **WHO,
                    )
                return event

        result = world.roll_back(ledger=Late(str(world.ledger._db.url)))
        assert result.version == "3"
        assert world.chain[-2:] == [("pin", "3"), ("rollback", "3")]

    def test_who_pins_last_decides(self, world):
        class Late(Ledger):
            def record(self, model, kind, *args, **options):
                event = super().record(model, kind, *args, **options)
                if kind == PIN:
                    world.roll_back("1", key="other")
                return event

        with pytest.raises(ConflictError, match="pinned to version 1 since"):
            world.roll_back(ledger=Late(str(world.ledger._db.url)))
        assert world.aliases["champion"] == "1"
        assert find_pin(world.ledger, world.name).version == "1"

    def test_a_release_in_between_is_respected(self, world):
        class Late(Ledger):
            def record(self, model, kind, *args, **options):
                event = super().record(model, kind, *args, **options)
                if kind == PIN:
                    unpin(world.ledger, model, reason="no", key="u", **WHO)
                return event

        with pytest.raises(ConflictError, match="got its release"):
            world.roll_back(ledger=Late(str(world.ledger._db.url)))
        assert world.aliases["champion"] == "3"


class Bomb:
    """Explodes at the nth write to MLflow or the ledger, before or after doing it."""

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


def armed(world, bomb):
    class DyingRegistry(Registry):
        def set_alias(self, *args, **options):
            return bomb.around(lambda: super(DyingRegistry, self).set_alias(*args, **options))

        def set_model_tag(self, *args, **options):
            return bomb.around(lambda: super(DyingRegistry, self).set_model_tag(*args, **options))

    class DyingLedger(Ledger):
        def record(self, *args, **options):
            return bomb.around(lambda: super(DyingLedger, self).record(*args, **options))

    return {
        "registry": DyingRegistry(world.registry.url),
        "ledger": DyingLedger(str(world.ledger._db.url)),
    }


STEPS = 7  # pin; rollout's end, its tag; the move; two aliases; applied


class TestKilled:
    def test_the_bomb_covers_every_step(self, world):
        world.begin("4")
        bomb = Bomb(10**6, False)
        world.roll_back(**armed(world, bomb))
        assert 10**6 - bomb.left == STEPS

    @pytest.mark.parametrize("key", ["r", "another"])
    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize("number", range(1, STEPS + 1))
    def test_a_repeat_ends_right(self, world, number, after, key):
        world.begin("4")
        with pytest.raises(Killed):
            world.roll_back(**armed(world, Bomb(number, after)))
        if number > 1 or after:
            with pytest.raises(PinnedError):  # from the first write on, nobody gets in between
                world.promote("4", "3")
        assert world.roll_back(key=key).version == "2"
        assert world.aliases == {"champion": "2", "previous_champion": "1"}
        assert world.chain.count(("rollback", "2")) == 1
        assert find_pin(world.ledger, world.name).version == "2"
        assert current(world.ledger, world.name) is None
        assert TAG_ROLLOUT not in world.registry.model_tags(world.name)
        assert world.ledger.verify().ok


class TestReplicas:
    def test_one_that_refuses_is_named_and_the_champion_stays(self, world):
        world.add_replica("good")
        broken = {"2": {"error": "model churn version 2: no room", "permanent": True}}
        world.add_replica("bad", lambda champion: {"champion": "3", "failures": broken})
        result = world.roll_back()
        assert result.replies.answering == ("good",)
        assert world.aliases["champion"] == "2"
        with pytest.raises(ModelError, match=r"all 2 live replicas, got 1 .*bad: .*no room\)"):
            result.require_all()

    def test_one_that_lags_is_waited_for_and_then_named(self, world):
        world.add_replica("good")
        world.add_replica("slow", lambda champion: {"champion": "3"})
        result = world.roll_back()
        assert result.seconds == pytest.approx(30, abs=0.2)
        with pytest.raises(ServiceError, match=r"slow: answers with version 3\)"):
            result.require_all()
        world.replicas["slow"] = world.replicas["good"]
        world.roll_back().require_all()  # the retry

    def test_one_that_fails_for_now_is_waited_for(self, world):
        away = {"2": {"error": "MLflow is away.", "permanent": False}}
        world.add_replica("slow", lambda champion: {"champion": "3", "failures": away})
        result = world.roll_back()
        assert result.replies.behind == {"slow": "MLflow is away"}
        assert world.aliases["champion"] == "2"

    def test_an_old_report_says_nothing(self, world):
        """It said 2 before; what it does now is for it to say."""
        world.add_replica("silent", lambda champion: {"champion": "2"})
        world.replicas.clear()
        result = world.roll_back()
        assert result.replies.answering == ()

    def test_one_where_the_model_sleeps_is_woken_by_a_move_only(self, world):
        champion = {"champion": None, "loaded": [], "failures": {}}
        world.add_replica("awake")
        world.add_replica("sleepy", lambda now: {"champion": now} if now == "2" else champion)
        assert sorted(world.roll_back().replies.answering) == ["awake", "sleepy"]
        world.ledger.report_replica("sleepy", {"models": {}}, started_at=NOW, now=world.now)
        del world.replicas["sleepy"]
        again = world.roll_back(key="another")
        assert again.replies.answering == ("awake",)
        again.require_all()

    def test_one_that_dies_meanwhile_counts_no_longer(self, world):
        world.add_replica("good")
        world.add_replica("dying", lambda champion: {"champion": "3"})
        del world.replicas["dying"]
        result = world.roll_back()
        assert result.replies.answering == ("good",)
        assert result.seconds == pytest.approx(15, abs=0.2)
        result.require_all()

    def test_refused_by_all_it_is_taken_back(self, world):
        broken = {"2": {"error": "no such type.", "permanent": True}}
        for id in ("one", "two"):
            world.add_replica(id, lambda champion: {"champion": "3", "failures": broken})
        words = r"a refusal of every replica \(one: no such type; two: no such type\)"
        with pytest.raises(ModelError, match=words):
            world.roll_back()
        assert world.aliases == {"champion": "3", "previous_champion": "2"}
        assert find_pin(world.ledger, world.name) is None
        with pytest.raises(ModelError, match="taken back before"):
            world.roll_back()  # the same one, cleared
        assert world.chain[3:] == [
            ("pin", "2"),
            ("rollback", "2"),
            ("rollback", "3"),
            ("unpin", "2"),
        ]

    def test_taken_back_it_leaves_the_pin_there_was(self, world):
        pin(world.ledger, world.name, "3", reason="audit", key="p", **WHO)
        broken = {"1": {"error": "no such type.", "permanent": True}}
        world.add_replica("one", lambda champion: {"champion": "3", "failures": broken})
        with pytest.raises(ModelError, match="The champion is version 3 again"):
            world.roll_back("1")
        standing = find_pin(world.ledger, world.name)
        assert (standing.version, standing.reason) == ("3", "audit")

    @pytest.mark.parametrize("earlier", [None, "3"])
    def test_taken_back_it_leaves_a_pin_that_came_in_between(self, world, earlier):
        if earlier:
            pin(world.ledger, world.name, earlier, reason="audit", key="p", **WHO)
        broken = {"2": {"error": "no such type.", "permanent": True}}
        world.add_replica("one", lambda champion: {"champion": "3", "failures": broken})

        class Between(Ledger):
            def record(self, model, kind, key, *args, **options):
                if key in ("r/unpin", "r/repin") and not self.find(model, "later"):
                    pin(self, model, "1", reason="bob's", key="later", **WHO)
                return super().record(model, kind, key, *args, **options)

        with pytest.raises(ModelError, match="The champion is version 3 again"):
            world.roll_back("2", ledger=Between(str(world.ledger._db.url)))
        assert find_pin(world.ledger, world.name).reason == "bob's"

    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize("number", range(6, 11))
    def test_killed_while_it_is_taken_back(self, world, number, after):
        broken = {"2": {"error": "no such type.", "permanent": True}}
        world.add_replica("one", lambda champion: {"champion": "3", "failures": broken})
        with pytest.raises(Killed):
            world.roll_back(**armed(world, Bomb(number, after)))
        with pytest.raises(ModelError):
            world.roll_back()
        assert world.aliases == {"champion": "3", "previous_champion": "2"}
        assert find_pin(world.ledger, world.name) is None
        assert world.ledger.verify().ok


def test_a_damaged_version_is_refused_before_anything_moves(
    registry, ledger, name, run_id, package, tmp_path
):
    """Nothing is patched: real files, downloaded, checked, opened, asked."""
    world = World(registry, ledger, name, tmp_path / "cache")
    for key in ("a", "b"):
        registry.register(package, run_id=run_id, key=key, tags={})
    world.promote("1", None)
    world.promote("2", "1")
    registry.client.set_model_version_tag(name, "1", TAG_DIGEST, "0" * 64)
    with pytest.raises(ModelError, match=r"must pass its load test .* must have the digest"):
        world.roll_back()
    assert world.aliases["champion"] == "2"
    assert find_pin(ledger, name) is None


def test_a_whole_version_is_opened_and_asked(registry, ledger, name, run_id, package, tmp_path):
    world = World(registry, ledger, name, tmp_path / "cache")
    for key in ("a", "b"):
        registry.register(package, run_id=run_id, key=key, tags={})
    world.promote("1", None)
    world.promote("2", "1")
    assert world.roll_back().version == "1"
    assert [path.name for path in (world.cache / name).glob("1-*")]
