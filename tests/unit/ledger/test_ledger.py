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
        skipped = decide(ledger, "data", "data", NOW + timedelta(hours=23))
        assert "cooling down" in skipped.reason
        assert decide(ledger, "by api", "api", NOW + timedelta(hours=23)).verdict == "RETRAIN"
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
