import math
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from include.errors import ConflictError
from include.registry.gateway import Registry

pytestmark = pytest.mark.server

TRIALS = [
    {
        "number": i,
        "candidate": 0,
        "state": state,
        "value": value,
        "params": {"C": i},
        "seconds": 0.1,
    }
    for i, (state, value) in enumerate([("COMPLETE", 0.5), ("FAIL", None), ("COMPLETE", 0.7)])
]


def search(registry, experiment, condition=""):
    return list(registry._search([registry.experiment_id(experiment)], condition))


@pytest.mark.parametrize(
    "key", ["manual__2026-01-01T00:00:00+00:00", 'it\'s "odd" `too`', "ä" * 300]
)
def test_a_key_has_one_run(registry, name, key):
    first = registry.ensure_run(name, key, "train", {"dag": "churn__train"})
    assert registry.ensure_run(name, key, "train", {"dag": "churn__train"}) == first
    assert registry.ensure_run(name, f"{key}x", "train", {}) != first
    run = registry.client.get_run(first)
    assert run.info.run_name == "train"
    assert run.data.tags["evergreen.dag"] == "churn__train"


def test_a_finished_run_is_reopened(registry, run_id, name):
    registry.finish_run(run_id, "FAILED")
    info = registry.client.get_run(run_id).info
    assert info.status == "FAILED"
    assert info.end_time >= info.start_time
    assert registry.ensure_run(name, "run", "run", {}) == run_id
    assert registry.client.get_run(run_id).info.status == "RUNNING"


def test_doubles_from_a_repeated_post_are_deleted(registry, name):
    class Twice(Registry):
        @property
        def client(self):
            client = super().client
            if client.create_run.__name__ == "create_run":
                once = client.create_run

                def twice(*args, **options):
                    once(*args, **options)
                    return once(*args, **options)

                client.create_run = twice
            return client

    run_id = Twice(registry.url).ensure_run(name, "k", "train", {})
    assert [run.info.run_id for run in search(registry, name)] == [run_id]


def test_an_experiment_made_by_several_at_once(mlflow_url, name):
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda _: Registry(mlflow_url).experiment_id(name), range(4)))
    assert len(set(ids)) == 1


def test_a_deleted_experiment_is_said_plainly(registry, name, mlflow_url):
    registry.client.delete_experiment(registry.experiment_id(name))
    with pytest.raises(ConflictError, match="must not be deleted"):
        Registry(mlflow_url).ensure_run(name, "k", "train", {})


def test_logging_twice_is_logging_once(registry, run_id):
    for _ in range(2):
        registry.log(
            run_id,
            metrics={"auc": 0.8, "nan": float("nan"), "none": None},
            params={"C": 1, "long": "x" * 9000},
            tags={"verdict": "HOLD", "mlflow.note.content": "note"},
        )
    held = registry.client.get_run(run_id).data
    assert held.metrics["auc"] == 0.8
    assert math.isnan(held.metrics["nan"])
    assert "none" not in held.metrics
    assert held.params["C"] == "1"
    assert held.tags["evergreen.verdict"] == "HOLD"
    assert held.tags["mlflow.note.content"] == "note"
    assert len(registry.client.get_metric_history(run_id, "auc")) == 1


def test_a_later_attempt_may_differ(registry, run_id):
    registry.log(run_id, metrics={"auc": 0.8}, params={"C": 1})
    time.sleep(0.002)  # MLflow's "latest" is the larger value within one millisecond
    registry.log(run_id, metrics={"auc": 0.7}, params={"C": 2})
    held = registry.client.get_run(run_id).data
    assert held.metrics["auc"] == 0.7
    assert held.params["C"] == "1"
    assert held.tags["evergreen.param.C"] == "2"


def test_more_than_one_batch(registry, run_id):
    registry.log(
        run_id,
        metrics={f"m{i}": float(i) for i in range(1100)},
        params={f"p{i}": i for i in range(150)},
    )
    held = registry.client.get_run(run_id).data
    assert len(held.metrics) == 1100
    assert len(held.params) == 150


def test_artifacts_land_below_their_path(registry, run_id, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.json").write_text("{}")
    registry.log_artifacts(run_id, tmp_path, "verdict")
    registry.log_artifacts(run_id, tmp_path, "verdict")
    assert [f.path for f in registry.client.list_artifacts(run_id, "verdict/sub")] == [
        "verdict/sub/a.json"
    ]


def test_trials_are_children_once(registry, run_id, name):
    registry.log_trials(run_id, name, TRIALS[:2])
    registry.log_trials(run_id, name, TRIALS)
    children = search(registry, name, f"tags.`mlflow.parentRunId` = '{run_id}'")
    by_name = {child.info.run_name: child for child in children}
    assert len(children) == len(by_name) == 3
    best = by_name["candidate 0, trial 2"]
    assert best.data.metrics == {"value": 0.7, "seconds": 0.1}
    assert best.data.params == {"candidate": "0", "C": "2"}
    assert best.info.status == "FINISHED"
    assert by_name["candidate 0, trial 1"].info.status == "FAILED"


def test_a_trial_a_killed_attempt_left_open_is_completed(registry, run_id, name, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    dying = Registry(registry.url)
    monkeypatch.setattr(dying, "finish_run", killed)
    with pytest.raises(KeyboardInterrupt):
        dying.log_trials(run_id, name, TRIALS)
    registry.log_trials(run_id, name, TRIALS)
    children = search(registry, name, f"tags.`mlflow.parentRunId` = '{run_id}'")
    assert len(children) == 3
    assert {child.info.status for child in children} == {"FINISHED", "FAILED"}


class TestReaping:
    LATER = datetime.now(UTC) + timedelta(hours=3)

    def reap(self, registry, name, **options):
        options = {"older_than": timedelta(hours=2), "now": self.LATER, "keep": ()} | options
        return registry.reap_runs(name, **options)

    def test_closes_what_a_dead_worker_left_open(self, registry, name):
        dead = registry.ensure_run(name, "dead", "train", {})
        done = registry.ensure_run(name, "done", "train", {})
        registry.finish_run(done)
        foreign = registry.client.create_run(registry.experiment_id(name)).info.run_id
        assert self.reap(registry, name) == [dead]
        assert self.reap(registry, name) == []
        run = registry.client.get_run(dead)
        assert run.info.status == "KILLED"
        assert run.data.tags["evergreen.reaped"] == self.LATER.isoformat()
        assert registry.client.get_run(foreign).info.status == "RUNNING"

    def test_leaves_the_young_and_the_living_and_their_trials_alone(
        self, registry, name, monkeypatch
    ):
        alive = registry.ensure_run(name, "alive", "train", {})
        dying = Registry(registry.url)
        monkeypatch.setattr(dying, "finish_run", lambda *_: None)
        dying.log_trials(alive, name, TRIALS[:1])
        assert self.reap(registry, name, older_than=timedelta(hours=4)) == []
        assert self.reap(registry, name, keep={alive}) == []
        assert len(self.reap(registry, name)) == 2

    def test_age_counts_from_the_last_reopening(self, registry, name, run_id):
        registry.client.set_tag(
            run_id, "evergreen.opened_ms", str(int(self.LATER.timestamp() * 1000))
        )
        assert self.reap(registry, name) == []

    def test_all_experiments(self, registry, name):
        dead = registry.ensure_run(name, "dead", "train", {})
        assert dead in self.reap(registry, None)
