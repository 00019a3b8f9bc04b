"""A step of a rollout, look by look, on a real ledger and store; the registry is a dictionary."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from airflow.providers.standard.operators import hitl
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSkipException,
    DownstreamTasksSkipped,
    TaskAwaitingInput,
    TaskDeferred,
)
from evergreen.operators import deploy, deploy_decide, deploy_step, finish
from evergreen.operators.deploy import PromoteOperator
from evergreen.operators.deploy_decide import AskOperator
from evergreen.operators.deploy_step import StepOperator
from evergreen.operators.finish import FinishOperator
from evergreen.operators.ingest import IngestOperator
from evergreen.operators.monitor_collect import CollectOperator
from evergreen.operators.reap import CloseRunsOperator
from evergreen.triggers.hold import HoldTrigger

from include.errors import ServiceError
from include.ledger.ledger import Ledger
from include.registry.rollouts import (
    TAG_ROLLOUT,
    Rollout,
    Standing,
    begin,
    current,
    end,
    latest,
    wish_promotion,
)
from include.spec.schema import Spec
from include.store.folder import FolderStore
from include.store.predictions import prediction_schema, write_part

START = datetime(2026, 3, 2, 12, tzinfo=UTC)


class MemoryRegistry:
    """Aliases and tags of one model."""

    def __init__(self) -> None:
        self.alias = {"champion": "1", "challenger": "2"}
        self.tags: dict[str, str] = {}
        self.logged: dict[str, str] = {}

    def aliases(self, _name: str) -> dict[str, str]:
        return dict(self.alias)

    def set_alias(self, _name: str, alias: str, version: str | None, *, expected: str) -> None:
        assert self.alias.get(alias) == expected
        if version is None:
            del self.alias[alias]

    def model_tags(self, _name: str) -> dict[str, str]:
        return dict(self.tags)

    def set_model_tag(self, _name: str, key: str, value: str | None) -> None:
        if value is None:
            self.tags.pop(key, None)
        else:
            self.tags[key] = value

    def log(self, _run_id: str, *, tags: dict[str, str]) -> None:
        self.logged |= tags

    def find_run(self, *_: str) -> None:
        return None


class World:
    """One model with a champion and a challenger, and a clock."""

    def __init__(self, root: Path) -> None:
        self.now = self.run_began = START
        self.ledger = Ledger(f"sqlite:///{root}/ledger.db")
        self.store = FolderStore(root / "store")
        self.registry = MemoryRegistry()
        self.pushed: dict[str, Any] = {}
        self.states: dict[str, str | None] = {"finish": None}
        self.runs: dict[str, str] = {"r": "running"}

    def count(self, *, dag_id: str, run_ids: list[str], states: list[str] | None = None) -> int:
        assert dag_id == "churn__train"
        found = [self.runs[run] for run in run_ids if run in self.runs]
        return len([state for state in found if states is None or state in states])

    def spec(self, **rules: Any) -> Spec:
        return Spec.model_validate(
            {
                "model": "churn",
                "task": "binary",
                "ingest": {"source": {"kind": "file", "path": "x.csv"}, "target": "y"},
                "deploy": {"rollout": "canary", "min_rows": 20, "hold": "1m", "patience": "1h"}
                | {"timeout": "1s"}
                | rules,
            }
        )

    def context(self) -> Any:
        following = [
            SimpleNamespace(task_id="deploy.step_50", is_teardown=False),
            SimpleNamespace(task_id="finish", is_teardown=True),
        ]
        push = lambda key, value: self.pushed.__setitem__(key, value)  # noqa: E731
        return {
            "dag_run": SimpleNamespace(
                dag_id="churn__train",
                run_id="r",
                conf={},
                run_type=SimpleNamespace(value="manual"),
                start_date=self.run_began,
            ),
            "params": {},
            "ti": SimpleNamespace(
                xcom_push=push,
                try_number=1,
                get_task_states=lambda dag_id, run_ids: {run: self.states for run in run_ids},
                get_dr_count=self.count,
            ),
            "task": SimpleNamespace(get_direct_relatives=lambda upstream: following),
        }

    def operator(
        self, kind: type = StepOperator, champion: str | None = "1", **options: Any
    ) -> Any:
        given = {
            "task_id": "step",
            "model": "churn",
            "data": {
                "run_id": "m",
                "champion": {"version": champion} if champion else None,
                "fingerprint": "f",
            },
            "verdict": {"verdict": "PROMOTE", "reason": "it is better"},
            "version": {"version": "2", "verdict": "PROMOTE"},
        }
        rules = options.pop("rules", {})
        if kind is StepOperator:
            given |= {"number": 0, "share": 0.1}
        made = kind(**given | options)
        made.__dict__["bench"] = SimpleNamespace(
            spec=self.spec(**rules),
            ledger=self.ledger,
            store=self.store,
            registry=self.registry,
            settings=SimpleNamespace(serving="http://127.0.0.1:9", client_key=""),
        )
        made.link_run = lambda *_: None
        return made

    def step(self, **options: Any) -> Any:
        """Run a step as on its first try."""
        return self.operator(**options).execute(self.context())

    def resume(self, **options: Any) -> Any:
        """Let the trigger fire."""
        return self.operator(**options).resume(self.context(), {})

    def report(self, share: float = 0.1) -> None:
        """One replica, which routes as the tag says."""
        mine = {
            "champion": "1",
            "loaded": ["1", "2"],
            "failures": {},
            "rollout": {"id": self.rollout_id, "version": "2", "share": share},
        }
        state = {"models": {"churn": mine}}
        self.ledger.report_replica("a", state, started_at=self.now, now=self.now)

    @property
    def rollout_id(self) -> str:
        return str(self.operator().rollout_id(self.context()))

    @property
    def standing(self) -> Standing:
        found = latest(self.ledger, "churn")
        assert found is not None
        return found

    def traffic(self, version: str, arm: str, count: int, *, error: str | None = None) -> None:
        values = {
            "_request_id": [f"{arm}{n}{error}" for n in range(count)],
            "_row": [0] * count,
            "_key": [None] * count,
            "_time": [self.now] * count,
            "_logged_at": [self.now] * count,
            "_version": [version] * count,
            "_arm": [arm] * count,
            "_prediction": [None if error else "no"] * count,
            "_score": [None if error else n / count for n in range(count)],
            "_probability": [None] * count,
            "_latency_ms": [3.0] * count,
            "_error": [error] * count,
        }
        write_part(self.store, "churn", pa.table(values, schema=prediction_schema([], [])))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    it = World(tmp_path)
    for module in (deploy, deploy_decide, deploy_step, finish):
        monkeypatch.setattr(module, "utc_now", lambda: it.now)
    it.report()
    return it


def test_a_step_takes_its_share_and_defers(world: World) -> None:
    with pytest.raises(TaskDeferred) as parked:
        world.step()
    assert world.standing.rollout == Rollout(world.rollout_id, "2", "canary", 0.1)
    assert Rollout.from_tag(world.registry.tags[TAG_ROLLOUT]) == world.standing.rollout
    trigger = parked.value.trigger
    assert isinstance(trigger, HoldTrigger)
    assert trigger.until == (START + timedelta(seconds=5)).isoformat()
    assert parked.value.method_name == "resume"


def test_a_killed_or_cleared_step_goes_on_where_it_stood(world: World) -> None:
    with pytest.raises(TaskDeferred):
        world.step()
    world.now += timedelta(seconds=50)
    world.report()
    with pytest.raises(TaskDeferred) as parked:
        world.step()
    assert world.standing.since == START, "the hold does not begin anew"
    assert parked.value.trigger.until == (START + timedelta(minutes=1)).isoformat()


def test_it_goes_on_after_its_hold_with_good_evidence(world: World) -> None:
    with pytest.raises(TaskDeferred):
        world.step()
    world.traffic("1", "champion", 60)
    world.traffic("2", "challenger", 40)
    with pytest.raises(TaskDeferred):
        world.resume()
    world.now += timedelta(minutes=1)
    assert world.resume()["verdict"] == "GO"
    assert world.standing.active
    (judged,) = world.ledger.events("churn", "judgement")
    assert judged.payload["numbers"]["challenger"]["rows"] == 40
    assert world.resume()["verdict"] == "GO", "killed after the record, it says the same"
    assert len(world.ledger.events("churn", "judgement")) == 1


def test_a_broken_one_goes_home_at_the_first_look(world: World) -> None:
    with pytest.raises(TaskDeferred):
        world.step()
    world.traffic("1", "champion", 20)
    world.traffic("2", "challenger", 3, error="500 ValueError")
    world.now += timedelta(seconds=5)
    with pytest.raises(DownstreamTasksSkipped) as stopped:
        world.resume()
    assert stopped.value.tasks == ["deploy.step_50"], "finish is not skipped"
    assert (world.standing.outcome, world.registry.alias) == ("STOPPED", {"champion": "1"})
    assert TAG_ROLLOUT not in world.registry.tags
    assert world.pushed["return_value"]["outcome"] == "STOPPED"
    assert world.registry.logged["evergreen.rollout"].startswith("STOPPED: it failed on 3 of 3")
    for again in (world.step, world.resume):
        with pytest.raises(DownstreamTasksSkipped):
            again()
    assert len(world.ledger.events("churn", "rollout")) == 3


def test_without_traffic_it_waits_and_then_stops(world: World) -> None:
    with pytest.raises(TaskDeferred):
        world.step()
    world.now += timedelta(minutes=59)
    with pytest.raises(TaskDeferred):
        world.resume()
    world.now += timedelta(minutes=1)
    with pytest.raises(DownstreamTasksSkipped):
        world.resume()
    assert world.standing.reason.startswith("undecided after 1 h")


def test_a_log_that_cannot_be_read_is_waited_for(world: World) -> None:
    with pytest.raises(TaskDeferred):
        world.step()
    world.traffic("2", "challenger", 30)
    part = next(world.store.root.rglob("*.parquet"))
    part.chmod(0o644)
    part.write_bytes(b"no parquet")
    with pytest.raises(TaskDeferred):
        world.resume()
    assert world.standing.active


def test_a_persons_word_holds(world: World) -> None:
    with pytest.raises(TaskDeferred):
        world.step()
    wish_promotion(world.ledger, "churn", reason="seen enough", actor="ann", now=world.now)
    assert world.resume() == {"verdict": "GO", "reason": "ann: seen enough"}
    end(
        world.registry,
        world.ledger,
        "churn",
        world.rollout_id,
        outcome="STOPPED",
        reason="ann: complaints",
        actor="ann",
        now=world.now,
    )
    with pytest.raises(DownstreamTasksSkipped):
        world.resume()


def test_another_champion_ends_it(world: World) -> None:
    with pytest.raises(TaskDeferred):
        world.step()
    world.registry.alias["champion"] = "7"
    with pytest.raises(DownstreamTasksSkipped):
        world.resume()
    assert world.standing.outcome == "SUPERSEDED"
    assert "the champion is 7 now" in world.standing.reason


def test_a_replica_that_lags_is_named(world: World) -> None:
    world.report(share=0.5)
    with pytest.raises(
        Exception, match=r"route 10% to it in every replica .* a routes by .* at 0.5"
    ):
        world.step()


def test_a_step_that_was_passed_is_not_taken_again(world: World) -> None:
    with pytest.raises(TaskDeferred):
        world.step()
    world.report(0.5)
    with pytest.raises(TaskDeferred):
        world.step(number=1, share=0.5)
    assert world.step()["reason"] == "passed before"
    assert world.standing.rollout.share == 0.5


@pytest.mark.parametrize("options", [{"champion": None}, {"rules": {"rollout": "direct"}}])
def test_where_there_is_nothing_to_compare_no_step_is_taken(
    world: World, options: dict[str, Any]
) -> None:
    assert world.step(**options)["verdict"] == "GO"
    assert world.ledger.events("churn", "rollout") == []


def test_nothing_is_promoted_that_no_step_let_pass(world: World) -> None:
    with pytest.raises(AirflowFailException, match="must have passed its steps"):
        world.operator(PromoteOperator).execute(world.context())
    with pytest.raises(TaskDeferred):
        world.step()
    world.traffic("2", "challenger", 3, error="500 ValueError")
    with pytest.raises(DownstreamTasksSkipped):
        world.resume()
    with pytest.raises(
        AirflowSkipException
    ):  # a success would tell who waits for a new champion of one
        world.operator(PromoteOperator).execute(world.context())
    assert world.pushed["skip_reason"].startswith("STOPPED: it failed on 3 of 3")
    assert world.registry.alias == {"champion": "1"}


def begun(world: World, **rules: Any) -> None:
    """A rollout at its last step, which nobody has judged."""
    world.report(0.5)
    with pytest.raises(TaskDeferred):
        world.step(number=1, share=0.5, rules=rules)


def pass_(world: World, **options: Any) -> None:
    """Let the judge say GO."""
    world.traffic("1", "champion", 60)
    world.traffic("2", "challenger", 40)
    world.now += timedelta(minutes=1)
    assert world.resume(number=1, share=0.5, **options)["verdict"] == "GO"


def check(world: World, **rules: Any) -> None:
    """What `promote` looks at first."""
    made = world.operator(PromoteOperator, rules=rules)
    made.plainly(lambda: made._check_rollout(world.context()))


def test_a_step_that_was_marked_green_by_hand_promotes_nothing(world: World) -> None:
    begun(world)
    with pytest.raises(AirflowFailException, match="must have the judge's GO at its last step"):
        check(world)
    pass_(world)
    check(world)
    end_it(world, "ABANDONED")
    check(world)  # the run was cleared from `promote` on
    world.report(0.5)
    with pytest.raises(TaskDeferred):
        world.step(number=1, share=0.5)
    with pytest.raises(AirflowFailException, match="got none since it began"):
        check(world)  # begun anew, it must be judged anew


def test_an_ab_test_is_promoted_only_by_who_decides_it(world: World) -> None:
    begun(world, rollout="ab")
    pass_(world, rules={"rollout": "ab"})
    with pytest.raises(AirflowFailException, match="must have a person's yes"):
        check(world, rollout="ab")
    with pytest.raises(AirflowFailException, match="must have the labels' yes"):
        check(world, rollout="ab", decide="labels")
    wish_promotion(world.ledger, "churn", reason="seen enough", actor="ann", now=world.now)
    check(world, rollout="ab")
    check(world, rollout="ab", decide="labels")


def end_it(world: World, outcome: Any, reason: str = "complaints") -> None:
    end(
        world.registry,
        world.ledger,
        "churn",
        world.rollout_id,
        outcome=outcome,
        reason=reason,
        actor="ann",
        now=world.now,
    )


def test_a_step_cleared_without_finish_gets_no_traffic(world: World) -> None:
    with pytest.raises(TaskDeferred):
        world.step()
    end_it(world, "ABANDONED")
    world.states["finish"] = "success"
    with pytest.raises(AirflowFailException, match="needs `finish` to come after it"):
        world.step()
    assert world.registry.tags == {}
    world.states["finish"] = None
    with pytest.raises(TaskDeferred):
        world.step()


@pytest.mark.parametrize(
    ("state", "replaced"), [(None, True), ("failed", True), ("running", False)]
)
def test_a_rollout_whose_run_is_gone_blocks_no_other(
    world: World, state: str | None, replaced: bool
) -> None:
    begin(
        world.registry,
        world.ledger,
        "churn",
        Rollout("old", "7", "canary", 0.0),
        champion="1",
        actor="churn__train/old",
        now=world.now,
    )
    if state:
        world.runs["old"] = state
    with pytest.raises(TaskDeferred if replaced else AirflowFailException):
        world.step()
    assert world.standing.rollout.id == (world.rollout_id if replaced else "old")
    before = latest(world.ledger, "churn", "old")
    assert before is not None
    assert before.outcome == ("SUPERSEDED" if replaced else None)


def away(*_: Any) -> None:
    raise ServiceError("mlflow", "must answer, got nothing", "Start it.")


@pytest.mark.parametrize("kind", [FinishOperator, CollectOperator, IngestOperator])
def test_what_was_decided_while_mlflow_was_away_is_settled_by_whoever_comes_next(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    begun(world)
    with monkeypatch.context() as patched:
        patched.setattr(world.registry, "set_model_tag", away)
        with pytest.raises(ServiceError):
            end_it(world, "STOPPED")
    assert world.standing.outcome == "STOPPED"
    assert TAG_ROLLOUT in world.registry.tags
    options = {"data": None} if kind is FinishOperator else {}
    made = kind(task_id="next", model="churn", **options)
    made.__dict__["bench"] = world.operator().bench
    with contextlib.suppress(AttributeError):  # the others' work needs more than there is here
        made.execute(world.context())
    assert (world.standing.outcome, world.registry.tags) == ("STOPPED", {})


def asked(world: World, monkeypatch: pytest.MonkeyPatch) -> AskOperator:
    """An ab test at its last step, and the task that asks about it."""
    with pytest.raises(TaskDeferred):
        world.step(rules={"rollout": "ab"})
    world.traffic("1", "champion", 60)
    world.traffic("2", "challenger", 40)
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **_: None)
    ask = AskOperator(
        task_id="decide",
        model="churn",
        patience=timedelta(hours=3),
        data={"run_id": "m", "champion": {"version": "1"}, "fingerprint": "f"},
        verdict={"verdict": "PROMOTE", "reason": "it is better"},
        version={"version": "2", "verdict": "PROMOTE"},
    )
    ask.step.__dict__["bench"] = world.operator(rules={"rollout": "ab"}).bench
    return ask


def answer(option: str, who: str | None) -> dict[str, Any]:
    user = {"id": who, "name": who} if who else None
    return {
        "chosen_options": [option],
        "params_input": {},
        "responded_at": START,
        "responded_by_user": user,
    }


def test_a_person_sees_the_evidence_and_lets_it_take_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = asked(world, monkeypatch)
    context = world.context() | {"task_instance": SimpleNamespace(id="t")}
    with pytest.raises(TaskAwaitingInput):
        ask.execute(context)
    assert ask.body is not None
    assert "has answered 10% of the traffic" in ask.body
    assert "| predictions | 60 | 40 |" in ask.body
    ask.execute_complete(context, answer("Approve", "ann"))
    assert world.standing.wish == ("ann", "approved")


@pytest.mark.parametrize(("who", "reason"), [("ann", "ann"), (None, "nobody in time")])
def test_a_no_and_no_answer_send_it_home(
    world: World, monkeypatch: pytest.MonkeyPatch, who: str | None, reason: str
) -> None:
    ask = asked(world, monkeypatch)
    ask.execute_complete(world.context(), answer("Reject", who))
    assert (world.standing.outcome, world.standing.reason) == (
        "STOPPED",
        f"not approved: {reason}",
    )
    assert world.registry.alias == {"champion": "1"}


def test_asked_again_people_have_the_rest_of_the_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, context = asked(world, monkeypatch), world.context()
    context |= {"task_instance": SimpleNamespace(id="t")}
    for passed, left in ((0, 180), (120, 60), (70, 1)):
        world.now += timedelta(minutes=passed)
        with pytest.raises(TaskAwaitingInput) as parked:
            ask.execute(context)
        assert parked.value.timeout == timedelta(minutes=left)
        assert ask.body is not None
        assert f"No answer until {world.now + timedelta(minutes=left):%Y-%m-%d %H:%M}" in ask.body


@pytest.mark.parametrize(("who", "promoted"), [(None, True), ("bob", False)])
def test_a_yes_said_elsewhere_holds_where_nobody_answered(
    world: World, monkeypatch: pytest.MonkeyPatch, who: str | None, promoted: bool
) -> None:
    ask = asked(world, monkeypatch)
    wish_promotion(world.ledger, "churn", reason="seen enough", actor="ann", now=world.now)
    said = ask.execute_complete(world.context(), answer("Reject", who))
    assert said["chosen_options"] == (["Approve"] if promoted else ["Reject"])
    assert world.standing.active is promoted


def test_finish_leaves_the_blame_to_the_task_that_failed(world: World) -> None:
    with pytest.raises(TaskDeferred):
        world.step()
    world.states |= {"deploy.step_10": "failed", "deploy.promote": "upstream_failed"}
    made = FinishOperator(task_id="finish", model="churn", data=None)
    made.__dict__["bench"] = world.operator().bench
    made.execute(world.context())
    assert (world.standing.outcome, world.registry.tags) == ("ABANDONED", {})


def test_finish_leaves_no_canary_behind(world: World) -> None:
    with pytest.raises(TaskDeferred):
        world.step()
    made = FinishOperator(task_id="finish", model="churn", data=None)
    made.__dict__["bench"] = world.operator().bench
    for _ in "first try", "after a kill":
        with pytest.raises(AirflowFailException, match="must be decided before its run ends"):
            made.execute(world.context())
    assert (world.standing.outcome, world.registry.tags) == ("ABANDONED", {})
    assert current(world.ledger, "churn") is None
    world.run_began = world.now + timedelta(minutes=1)  # cleared; now there is nothing to roll out
    made.execute(world.context())
    with pytest.raises(TaskDeferred):  # cleared, it begins again
        world.step()
    assert world.standing.active


@pytest.mark.parametrize(
    ("under_way", "known", "minutes", "ended"),
    [
        (1, 1, 60, False),
        (1, 1, 62, True),  # its hold and patience are over: the Dag is paused, nobody looks
        (0, 1, 0, True),  # its run is over, `finish` was killed
        (0, 0, 60, False),  # `./evergreen run` keeps a database of its own
        (0, 0, 62, True),  # its run was deleted
    ],
)
def test_the_clean_up_ends_what_no_run_looks_after(
    world: World, under_way: int, known: int, minutes: int, ended: bool
) -> None:
    with pytest.raises(TaskDeferred):
        world.step()

    def count(*, dag_id: str, run_ids: list[str], states: list[str] | None = None) -> int:
        assert (dag_id, run_ids) == ("churn__train", ["r"])
        return under_way if states else known

    made = CloseRunsOperator(task_id="close_runs")
    made.__dict__["bench"] = world.operator().bench
    made.__dict__["specs"] = [world.spec()]
    context = world.context() | {"ti": SimpleNamespace(get_dr_count=count)}
    now = START + timedelta(minutes=minutes)
    made._end_rollout(context, "churn", now, dry=True)
    assert world.standing.active
    made._end_rollout(context, "churn", now, dry=False)
    assert world.standing.active is not ended
    assert (TAG_ROLLOUT in world.registry.tags) is not ended


def test_the_trigger_fires_at_its_moment_and_at_once_when_that_is_past() -> None:
    async def fired(until: datetime) -> Any:
        trigger = HoldTrigger(until.isoformat())
        path, arguments = trigger.serialize()
        assert path == "evergreen.triggers.hold.HoldTrigger"
        return [event.payload async for event in HoldTrigger(**arguments).run()]

    past = datetime.now(UTC) - timedelta(hours=1)
    assert asyncio.run(fired(past)) == [{"until": past.isoformat()}]
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    asyncio.run(fired(soon))
    assert datetime.now(UTC) >= soon
