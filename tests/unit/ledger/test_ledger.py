import multiprocessing
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, text

from include.errors import ConflictError, DataError, ServiceError
from include.ledger.ledger import Ledger
from include.spec.schema import Retrain

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
RULES = Retrain(cooldown="24h", max_per_week=7)


def add(ledger, key, *, model="churn", kind="approval", actor="ann", now=NOW, **payload):
    return ledger.record(model, kind, key, payload, actor, now)


def judged(ledger, run_key):
    add(ledger, f"verdict/{run_key}", kind="verdict", actor=run_key)


def decide(ledger, run_key, trigger="schedule", now=NOW, **options):
    return ledger.decide(
        "churn", run_key=run_key, trigger=trigger, spec_retrain=RULES, now=now, **options
    )


def tamper(url, statement):
    url = url.replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(url)
    with engine.begin() as connection:
        assert connection.execute(text(statement)).rowcount > 0
    engine.dispose()


class TestEvents:
    def test_take_names_and_ids_as_long_as_airflow_and_mlflow_let_them_be(self, ledger):
        model, run = "m" * 256, "d" * 250 + "/" + "r" * 250
        event = add(ledger, f"verdict/{'f' * 64}/{run}", model=model, kind="verdict", actor=run)
        assert event in ledger.events(model)
        ledger.request(model, "drift", "psi 0.4", run * 2, {}, NOW)
        decision = ledger.decide(
            model, run_key=run, trigger="drift", spec_retrain=RULES, now=NOW, force=True
        )
        assert len(decision.request_ids) == 1

    def test_come_back_in_order_with_their_payload(self, ledger):
        add(ledger, "a", score=0.5, text="ä\x00")
        add(ledger, "b", kind="rollback")
        add(ledger, "c", model="other")
        assert [e.key for e in ledger.events()] == ["a", "b", "c"]
        assert [e.seq for e in ledger.events("churn")] == [1, 2]
        assert [e.key for e in ledger.events("churn", limit=1)] == ["b"]
        assert [e.key for e in ledger.events(kind=["rollback"])] == ["b"]
        assert [e.key for e in ledger.events("churn", prefix="a")] == ["a"]
        assert ledger.events("churn", prefix="_") == ledger.events("churn", prefix="%") == []
        found = ledger.find("churn", "a")
        assert found.payload == {"score": 0.5, "text": "ä\x00"}
        assert found.at == "2026-03-02T12:00:00.000000+00:00"
        assert ledger.head("churn") == 2
        assert ledger.head("nobody") == 0

    def test_the_same_key_is_the_same_event(self, ledger):
        first = add(ledger, "a", n=1)
        assert add(ledger, "a", n=2, now=NOW + timedelta(days=1)) == first
        assert len(ledger.events()) == 1

    def test_a_key_of_another_kind_is_refused(self, ledger):
        add(ledger, "a")
        with pytest.raises(ConflictError, match="approval and rollback"):
            add(ledger, "a", kind="rollback")

    def test_compare_and_set_takes_only_the_next_place(self, ledger):
        ledger.record("churn", "promotion", "a", {}, "ann", NOW, after=0)
        with pytest.raises(ConflictError, match="must end at event 0"):
            ledger.record("churn", "promotion", "b", {}, "ann", NOW, after=0)
        # a retry of what did succeed is not a conflict
        assert ledger.record("churn", "promotion", "a", {}, "ann", NOW, after=0).seq == 1

    def test_refuses_what_is_not_json_or_has_no_time_zone(self, ledger):
        with pytest.raises(DataError, match="must be JSON values"):
            add(ledger, "a", score=float("nan"))
        with pytest.raises(DataError, match="must be aware"):
            add(ledger, "a", now=datetime(2026, 1, 1))
        assert ledger.events() == []

    def test_many_writers_at_once_leave_one_unbroken_chain(self, ledger_url):
        def write(number):
            ledger = Ledger(ledger_url)
            return [add(ledger, f"{number}-{i}").seq for i in range(5)]

        with ThreadPoolExecutor(6) as pool:
            seqs = [seq for part in pool.map(write, range(6)) for seq in part]
        assert sorted(seqs) == list(range(1, 31))
        assert Ledger(ledger_url).verify().ok

    def test_compare_and_set_has_one_winner(self, ledger_url):
        def take(number):
            try:
                Ledger(ledger_url).record("m", "promotion", f"k{number}", {}, "x", NOW, after=0)
            except ConflictError:
                return 0
            return 1

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(take, range(8))) == 1


@pytest.mark.parametrize("attempt", range(10))
def test_processes_that_meet_on_a_new_file_wait_for_each_other(tmp_path, attempt):
    url = f"sqlite:///{tmp_path}/ledger.db"
    context = multiprocessing.get_context("fork")
    together = context.Barrier(6)
    found = context.Queue()

    def open_it():
        together.wait(30)
        try:
            found.put(len(Ledger(url).events()))
        except ServiceError as error:
            found.put(str(error))

    processes = [context.Process(target=open_it) for _ in range(6)]
    for process in processes:
        process.start()
    assert [found.get(timeout=60) for _ in processes] == [0] * 6
    for process in processes:
        process.join()


class TestVerify:
    @pytest.fixture
    def chain(self, ledger):
        for key in "abc":
            add(ledger, key, n=key)
        add(ledger, "z", model="other")
        assert ledger.verify().ok
        assert ledger.verify().events == 4
        return ledger

    @pytest.mark.parametrize("column", ["kind", "actor", "key", "at", "payload"])
    def test_names_a_changed_row(self, chain, ledger_url, column):
        new = '\'{"n":"forged"}\'' if column == "payload" else "'forged'"
        tamper(ledger_url, f"UPDATE events SET {column} = {new} WHERE model='churn' AND seq = 2")
        found = chain.verify()
        assert not found.ok
        assert found.problem.startswith("event 2 of churn")
        assert found.problem.endswith("was changed after it was written")
        assert found.events == 1
        assert chain.verify("other").ok

    def test_names_a_gap(self, chain, ledger_url):
        tamper(ledger_url, "DELETE FROM events WHERE model = 'churn' AND seq = 2")
        assert "event 3 of churn" in chain.verify().problem
        assert "rows between are missing" in chain.verify().problem

    def test_names_a_row_whose_own_hash_was_made_to_fit(self, chain, ledger_url):
        tamper(ledger_url, "UPDATE events SET prev_hash = 'x' WHERE model = 'churn' AND seq = 3")
        assert "event 3 of churn" in chain.verify().problem
        assert "does not continue" in chain.verify().problem


class TestDecide:
    def test_answers_all_that_waits_once(self, ledger):
        ledger.request("churn", "drift", "psi 0.4", "w1", {"psi": 0.4}, NOW)
        ledger.request("churn", "drift", "psi 0.4", "w1", {"psi": 0.4}, NOW)
        ledger.request("churn", "decay", "auc -0.1", "w2", {}, NOW)
        ledger.request("other", "decay", "auc -0.1", "w2", {}, NOW)
        decision = decide(ledger, "run1", "drift")
        assert decision.verdict == "RETRAIN"
        assert len(decision.request_ids) == 2
        assert ledger.requests("churn") == []
        assert {r.run_key for r in ledger.requests("churn", pending=False)} == {"run1"}
        assert len(ledger.requests("other")) == 1
        event = ledger.events("churn", "decision")[-1]
        assert event.payload["requests"] == ["w1", "w2"]

    def test_only_runs_that_trained_use_up_cooldown_and_budget(self, ledger):
        for hours in range(9):  # nothing new, or failed: no verdict
            at = NOW + timedelta(hours=hours)
            assert decide(ledger, f"run{hours}", "data", at).verdict == "RETRAIN"
        judged(ledger, "run8")
        judged(ledger, "run8")  # judged again, as after a clear: still one run
        assert decide(ledger, "next", "data", NOW + timedelta(hours=9)).verdict == "SKIP"

    def test_a_verdict_of_another_model_says_nothing(self, ledger):
        decide(ledger, "run1")
        add(ledger, "verdict/run1", model="other", kind="verdict", actor="run1")
        assert decide(ledger, "run2", "data").verdict == "RETRAIN"

    def test_the_same_run_gets_the_same_answer_again(self, ledger):
        first = decide(ledger, "run1")
        assert decide(ledger, "run1", now=NOW + timedelta(hours=1)) == first
        assert len(ledger.events("churn", "decision")) == 1

    def test_cooldown_counts_only_what_nobody_asked_for(self, ledger):
        assert decide(ledger, "by hand", "manual").verdict == "RETRAIN"
        judged(ledger, "by hand")
        assert decide(ledger, "nightly").verdict == "RETRAIN"
        judged(ledger, "nightly")
        skipped = decide(ledger, "data", "data", NOW + timedelta(hours=22))
        assert "cooling down" in skipped.reason
        assert decide(ledger, "by api", "api", NOW + timedelta(hours=22)).verdict == "RETRAIN"
        assert decide(ledger, "next", "data", NOW + timedelta(hours=24)).verdict == "RETRAIN"

    def test_a_skipped_run_leaves_requests_waiting(self, ledger):
        decide(ledger, "nightly")
        judged(ledger, "nightly")
        ledger.request("churn", "drift", "psi 0.4", "w1", {}, NOW)
        assert decide(ledger, "drift", "drift", NOW + timedelta(hours=1)).verdict == "SKIP"
        assert [r.key for r in ledger.requests("churn")] == ["w1"]

    def test_freeze_and_unfreeze(self, ledger):
        ledger.freeze("churn", "audit", key="f1", actor="ann", now=NOW)
        assert "frozen: audit" in decide(ledger, "a", "manual").reason
        assert decide(ledger, "b", "manual", force=True).verdict == "RETRAIN"
        ledger.unfreeze("churn", "done", key="f2", actor="ann", now=NOW)
        assert decide(ledger, "c", "manual").verdict == "RETRAIN"

    def test_a_request_is_answered_by_one_of_two_runs_at_once(self, ledger_url):
        Ledger(ledger_url).request("churn", "drift", "psi 0.4", "w1", {}, NOW)

        def run(number):
            return decide(Ledger(ledger_url), f"run{number}").request_ids

        with ThreadPoolExecutor(6) as pool:
            answered = list(pool.map(run, range(6)))
        assert sorted(map(len, answered)) == [0, 0, 0, 0, 0, 1]

    def test_acts_as_of_another_time_and_is_recorded_at_the_true_one(self, ledger):
        then = NOW - timedelta(days=100)
        decide(ledger, "run1", as_of=then)
        judged(ledger, "run1")
        event = ledger.events("churn", "decision")[-1]
        assert event.at == "2026-03-02T12:00:00.000000+00:00"
        assert event.payload["as_of"] == "2025-11-22T12:00:00.000000+00:00"
        # the cool-down is counted by the time acted as
        later = then + timedelta(hours=22)
        assert "cooling down until 2025-11-23" in decide(ledger, "run2", as_of=later).reason
        assert decide(ledger, "run3", as_of=then + timedelta(hours=24)).verdict == "RETRAIN"
        assert "as_of" not in add_decision(ledger, "run4").payload

    def test_a_run_as_of_another_time_answers_only_what_was_filed_as_of_such_a_time(self, ledger):
        then = NOW - timedelta(days=100)
        ledger.request("churn", "drift", "real", "now", {}, NOW)
        asked = ledger.request("churn", "drift", "old", "w1", {"as_of": then.isoformat()}, NOW)
        assert asked.as_of == "2025-11-22T12:00:00.000000+00:00"
        early = decide(ledger, "early", "drift", as_of=then - timedelta(hours=1))
        assert "no request" in early.reason, "what was asked later is not known yet"
        assert decide(ledger, "replay", "drift", as_of=then).request_ids == (asked.id,)
        assert [r.key for r in ledger.requests("churn")] == ["now"]
        late = ledger.would("churn", "drift", RULES, NOW, as_of=then)
        assert late.reason == "the monitor's request was answered already by replay"

    def test_a_wish_of_a_replay_starts_no_run_of_the_present(self, ledger):
        then = NOW - timedelta(days=100)
        ledger.request("churn", "drift", "old", "w1", {"as_of": then.isoformat()}, NOW)
        assert ledger.would("churn", "drift", RULES, NOW).verdict == "SKIP"
        assert decide(ledger, "real", "drift").reason.startswith("no request")
        assert decide(ledger, "nightly").request_ids == ()
        assert [r.key for r in ledger.requests("churn")] == ["w1"]

    def test_cooldown_and_budget_count_runs_of_the_same_kind(self, ledger):
        then = NOW - timedelta(minutes=1)
        decide(ledger, "replay", as_of=then)
        judged(ledger, "replay")
        assert decide(ledger, "real").verdict == "RETRAIN", "a replay uses up nothing"
        judged(ledger, "real")
        later = NOW + timedelta(hours=1)
        assert "cooling down" in decide(ledger, "real2", now=later).reason
        assert "cooling down" in decide(ledger, "replay2", now=later, as_of=NOW).reason
        assert decide(ledger, "replay3", as_of=then - timedelta(days=30)).verdict == "RETRAIN"
        assert ledger.is_replay("churn", "churn") is False
        assert [ledger.is_replay("churn", run) for run in ("replay", "real")] == [True, False]

    def test_would_says_the_same_and_records_nothing(self, ledger):
        ledger.request("churn", "drift", "psi 0.4", "w1", {}, NOW)
        head = ledger.head("churn")
        said = ledger.would("churn", "drift", RULES, NOW)
        assert ledger.head("churn") == head
        assert len(ledger.requests("churn")) == 1
        assert decide(ledger, "run1", "drift") == said
        assert "answered already by run1" in ledger.would("churn", "drift", RULES, NOW).reason
        assumed = ledger.would("churn", "drift", RULES, NOW, wish="6 of 11")
        assert (assumed.verdict, assumed.reason) == (
            "RETRAIN",
            "triggered by drift; drift: 6 of 11",
        )
        assert ledger.requests("churn") == []
        ledger.freeze("churn", "audit", key="f1", actor="ann", now=NOW)
        assert "frozen" in ledger.would("churn", "manual", RULES, NOW).reason
        assert ledger.would("churn", "manual", RULES, NOW, force=True).verdict == "RETRAIN"


def add_decision(ledger, run_key):
    decide(ledger, run_key)
    return ledger.events("churn", "decision")[-1]


class TestRequests:
    def test_are_seen_in_the_chain_once(self, ledger):
        for attempt in range(2):
            at = NOW + timedelta(minutes=attempt)
            ledger.request("churn", "drift", "6 of 11", "drift/3/w1", {"window": "w1"}, at)
        events = ledger.events("churn")
        assert [(e.kind, e.actor) for e in events] == [("request", "monitor")]
        assert events[0].payload == {
            "source": "drift",
            "reason": "6 of 11",
            "request": "drift/3/w1",
            "details": {"window": "w1"},
        }
        assert ledger.verify().ok

    def test_filed_by_many_at_once_are_one(self, ledger_url):
        def file(number):
            return Ledger(ledger_url).request("churn", "drift", "r", "w1", {}, NOW).id

        with ThreadPoolExecutor(6) as pool:
            assert len(set(pool.map(file, range(6)))) == 1
        assert len(Ledger(ledger_url).events("churn", "request")) == 1

    def test_one_that_cannot_be_recorded_is_not_filed(self, ledger):
        add(ledger, "request:w1")  # the key is taken by an event of another kind
        with pytest.raises(ConflictError, match="approval and request"):
            ledger.request("churn", "drift", "r", "w1", {}, NOW)
        assert ledger.requests("churn") == []

    def test_a_run_whose_requests_were_answered_says_by_whom(self, ledger):
        assert "no request" in decide(ledger, "early", "drift").reason
        ledger.request("churn", "drift", "r", "w1", {}, NOW)
        assert decide(ledger, "nightly", "schedule").verdict == "RETRAIN"
        said = decide(ledger, "retrain__3__w1", "drift")
        assert said.verdict == "SKIP"
        assert said.reason == "the monitor's request was answered already by nightly"

    def test_expire_once_and_are_recorded(self, ledger):
        ledger.request("churn", "drift", "old", "w1", {}, NOW - timedelta(days=8))
        ledger.request("churn", "decay", "answered", "w2", {}, NOW - timedelta(days=8))
        ledger.request("other", "drift", "old too", "w1", {}, NOW - timedelta(days=9))
        decide(ledger, "nightly")
        ledger.request("churn", "drift", "forgotten", "w3", {}, NOW - timedelta(days=8))
        ledger.request("churn", "drift", "fresh", "w4", {}, NOW - timedelta(days=7))
        limit = NOW - timedelta(days=7)
        assert [r.key for r in ledger.expire_requests("churn", limit, now=NOW)] == ["w3"]
        assert [r.model for r in ledger.expire_requests(None, limit, now=NOW)] == ["other"]
        assert ledger.expire_requests(None, limit, now=NOW) == []
        assert [r.key for r in ledger.requests("churn")] == ["w4"]
        event = ledger.events("churn", "request_expired")[-1]
        assert event.actor == "maintenance"
        assert event.payload == {
            "reason": "nobody answered the request of 2026-02-22T12:00: forgotten",
            "source": "drift",
            "request": "w3",
        }
        assert len(ledger.events(kind="request_expired")) == 2
        assert ledger.verify().ok

    def test_an_expired_one_is_answered_by_nobody_and_not_filed_again(self, ledger):
        ledger.request("churn", "drift", "r", "w1", {}, NOW - timedelta(days=8))
        ledger.expire_requests("churn", NOW)
        assert "expired" in decide(ledger, "run1", "drift").reason
        assert ledger.request("churn", "drift", "r", "w1", {}, NOW).run_key == "expired"
        assert ledger.requests("churn") == []

    def test_are_answered_or_expire_but_never_both(self, ledger_url):
        for number in range(12):
            Ledger(ledger_url).request("churn", "drift", "r", f"w{number}", {}, NOW)

        def close(number):
            ledger = Ledger(ledger_url)
            if number % 2:
                return len(decide(ledger, f"run{number}").request_ids)
            return len(ledger.expire_requests("churn", NOW + timedelta(days=1)))

        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(close, range(6))) == 12


class TestDatabase:
    def test_first_use_by_several_processes_at_once(self, ledger_url):
        code = (
            "import sys; from datetime import UTC, datetime; from include.ledger.ledger import Ledger\n"
            "Ledger(sys.argv[1]).record('m', 'k', sys.argv[2], {}, 'x', datetime.now(UTC))"
        )
        started = [
            subprocess.Popen(
                [sys.executable, "-c", code, ledger_url, str(number)],
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(4)
        ]
        errors = [process.communicate(timeout=60)[1] for process in started]
        assert [p.returncode for p in started] == [0] * 4, errors
        assert Ledger(ledger_url).verify().events == 4

    @pytest.mark.parametrize("url", ["mysql://h/x", "nonsense", "", "sqlite://"])
    def test_refuses_what_it_cannot_open(self, url):
        with pytest.raises(ServiceError, match="must be a"):
            Ledger(url).head("churn")

    def test_an_unreachable_server_is_one_error_without_the_password(self):
        with pytest.raises(ServiceError, match="must take part") as caught:
            Ledger("postgresql://ann:s3cret@127.0.0.1:1/x").head("churn")
        assert "s3cret" not in str(caught.value)
        assert "ann:***@127.0.0.1" in str(caught.value)

    def test_a_file_that_is_no_database(self, tmp_path):
        (tmp_path / "ledger.db").write_text(
            "not a database, but long enough to be read as one" * 50
        )
        with pytest.raises(ServiceError, match="file is not a database"):
            Ledger(f"sqlite:///{tmp_path}/ledger.db").head("churn")

    def test_a_half_done_write_leaves_nothing(self, ledger):
        half = (
            "INSERT INTO requests (model, source, reason, key, details, at) "
            "VALUES ('churn', 'drift', 'r', 'k', '{}', 't')"
        )

        def killed():
            with ledger._db.write("churn") as connection:
                connection.execute(text(half))
                raise RuntimeError("killed")

        with pytest.raises(RuntimeError, match="killed"):
            killed()
        assert ledger.requests("churn") == []
