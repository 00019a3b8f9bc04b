"""Optuna's storage: where the history of searches lives.

Owns what several processes may do to it at once: create its tables, open the same study, die in the middle of a trial.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from include.errors import ConflictError, ServiceError

STALE = "stale"
_FINGERPRINT = "fingerprint"
_INIT_SECONDS = 30.0
_LOCK_SECONDS = 60


def valid_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return all trials but those a dead process left behind, by number."""
    trials = study.get_trials(deepcopy=False)
    return sorted((t for t in trials if STALE not in t.user_attrs), key=lambda t: t.number)


@contextmanager
def open_storage(url: str) -> Iterator[RDBStorage]:
    """Connect to Optuna's storage, making its tables when missing; closes it afterwards.

    Mapped tasks start at the same moment, and Optuna's creation of tables is not made for that: whoever loses the race
    sees an error from the database and tries again, when the tables are there.

    Args:
        url: SQLAlchemy URL.

    Raises:
        ServiceError: The storage cannot be reached, or something in it failed.
    """
    try:
        shown = make_url(url).render_as_string(hide_password=True)
    except ArgumentError as error:
        raise ServiceError(
            "optuna storage",
            "must be a SQLAlchemy URL, got another text",
            "Correct EVERGREEN_OPTUNA_URL.",
        ) from error
    where = f"optuna storage {shown}"
    storage = _retry(lambda: _connect(url), where)
    try:
        yield storage
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise _storage_failure(where, error) from error
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _connect(url: str) -> RDBStorage:
    address = make_url(url)
    options: dict[str, Any] = {"pool_pre_ping": True}
    if address.get_backend_name() == "sqlite":
        options = {"connect_args": {"timeout": _LOCK_SECONDS}}
        if address.database and address.database != ":memory:":
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)
    return RDBStorage(url, engine_kwargs=options)


def _retry(connect: Callable[[], RDBStorage], where: str) -> RDBStorage:
    deadline = time.monotonic() + _INIT_SECONDS
    pause = 0.05
    while True:
        try:
            return connect()
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
            if time.monotonic() + pause > deadline or not _lost_race(error):
                raise _storage_failure(where, error) from error
            time.sleep(pause)
            pause = min(2 * pause, 1.0)


def _lost_race(error: BaseException) -> bool:
    """Tell somebody else's simultaneous creation of tables from a database that is away."""
    text = f"{error} {error.__cause__}".lower()
    return any(
        w in text for w in ("already exists", "unique", "duplicate", "locked", "no such table")
    )


def _storage_failure(where: str, error: BaseException) -> ServiceError:
    cause = error.__cause__ or error
    text = " ".join(str(getattr(cause, "orig", None) or cause).split())
    return ServiceError(
        where, f"must answer, got {type(cause).__name__}: {text}", "Check the database."
    )


def open_study(
    storage: RDBStorage,
    name: str,
    *,
    maximize: bool,
    sampler: BaseSampler,
    pruner: BasePruner,
    fingerprint: str,
) -> optuna.Study:
    """Open a study by name, or make it; trials a dead process left running are marked failed.

    A live process that loses its trial this way simply goes on with the next one.

    Args:
        storage: From `open_storage`.
        name: The study's name.
        maximize: Whether a higher value is better.
        sampler: Chooses values.
        pruner: Stops hopeless trials.
        fingerprint: Digest of what the trials measure; trials of other work must not be mixed in.

    Raises:
        ConflictError: A study of that name measures something else.
    """
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="maximize" if maximize else "minimize",
        load_if_exists=True,
        sampler=sampler,
        pruner=pruner,
    )
    known = study.user_attrs.get(_FINGERPRINT)
    if known is None:
        study.set_user_attr(_FINGERPRINT, fingerprint)
    elif known != fingerprint:
        raise ConflictError(
            f"optuna study {name}",
            "must belong to the same data, estimator and seed, got trials of other ones",
            "Use another study name.",
        )
    for trial in valid_trials(study):
        if trial.state in (TrialState.RUNNING, TrialState.WAITING):
            mark_stale(storage, trial)
    return study


def mark_stale(storage: RDBStorage, trial: FrozenTrial) -> None:
    """Mark a trial whose process died as failed; nothing happens when it finished meanwhile."""
    try:
        storage.set_trial_user_attr(trial._trial_id, STALE, True)
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    except optuna.exceptions.UpdateFinishedTrialError:
        return
