from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from include.errors import ConflictError, ServiceError
from include.train.study import open_storage, open_study, valid_trials

OPEN = """
import sys, time
import optuna
from include.train.study import open_storage, open_study
optuna.logging.set_verbosity(optuna.logging.ERROR)
url, name, go = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
with open_storage(url) as storage:
    study = open_study(storage, name, maximize=True, sampler=optuna.samplers.RandomSampler(seed=1),
                       pruner=optuna.pruners.NopPruner(), fingerprint="f")
    for _ in range(3):
        trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        try:
            study.tell(trial, trial.params["x"], skip_if_finished=True)
        except optuna.exceptions.UpdateFinishedTrialError:
            pass  # the other process took the trial for a dead one's
"""


def opened(storage: optuna.storages.RDBStorage, fingerprint: str = "f") -> optuna.Study:
    return open_study(
        storage,
        "s",
        maximize=True,
        sampler=optuna.samplers.RandomSampler(seed=1),
        pruner=optuna.pruners.NopPruner(),
        fingerprint=fingerprint,
    )


def test_tasks_that_start_at_the_same_moment_share_a_new_storage(
    tmp_path: Path, storage: str
) -> None:
    tasks = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, storage, f"study-{n % 2}", "go"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    for task in tasks:
        assert task.stdout is not None
        assert task.stdout.readline() == "ready\n"
    for task in tasks:
        assert task.stdin is not None
        task.stdin.write("\n")
        task.stdin.flush()
    for task in tasks:
        _, errors = task.communicate(timeout=60)
        assert task.returncode == 0, errors
    with open_storage(storage) as storage_:
        summaries = optuna.get_all_study_summaries(storage_)
        assert sorted(s.study_name for s in summaries) == ["study-0", "study-1"]
        for summary in summaries:
            study = optuna.load_study(study_name=summary.study_name, storage=storage_)
            numbers = [t.number for t in study.trials]
            assert numbers == list(range(6))


def test_trials_of_a_dead_process_are_marked(storage: str) -> None:
    with open_storage(storage) as storage_:
        study = opened(storage_)
        study.tell(study.ask(), 1.0)
        study.ask()
    with open_storage(storage) as storage_:
        study = opened(storage_)
        assert [t.state for t in study.trials] == [TrialState.COMPLETE, TrialState.FAIL]
        assert [t.number for t in valid_trials(study)] == [0]


def test_study_of_other_work_is_refused(storage: str) -> None:
    with open_storage(storage) as storage_:
        opened(storage_)
        with pytest.raises(ConflictError, match="optuna study s: must belong to the same data"):
            opened(storage_, "other")


def test_storage_that_is_away(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    with (
        pytest.raises(ServiceError, match=r"optuna storage sqlite.*must answer, got"),
        open_storage(f"sqlite:///{tmp_path}/folder.db"),
    ):
        pass
    with pytest.raises(ServiceError, match="must be a SQLAlchemy URL"), open_storage("nonsense"):
        pass


def test_password_is_not_shown() -> None:
    url = "postgresql+psycopg://me:secret@127.0.0.1:9/optuna"
    with pytest.raises(ServiceError, match="must answer") as caught, open_storage(url):
        pass
    assert "secret" not in str(caught.value)
    assert "me:***@127.0.0.1" in str(caught.value)
