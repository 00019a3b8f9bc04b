"""The search for the best arguments of one candidate, and the choice among candidates.

Owns the loop over trials: its budget, and what a failure means. Trials run one after the other in one thread;
candidates run side by side, as one process each.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.pruners import MedianPruner
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import threadpool_limits

from include.errors import ModelError
from include.spec.metrics import HIGHER_IS_BETTER
from include.spec.schema import Spec
from include.store.files import Store
from include.store.snapshots import Manifest
from include.store.split import Split
from include.train.candidates import candidate_key, make_estimator, require_candidate, spec_file
from include.train.folds import make_folds
from include.train.objective import Objective
from include.train.rows import load_rows
from include.train.search import SeededSampler, make_space
from include.train.study import STALE, open_storage, open_study, valid_trials

_FAILURES_ALLOWED = 3  # a candidate whose first trials all fail will not recover
_POLL_SECONDS = 0.2
_REASON, _SECONDS = "reason", "seconds"


@dataclass(frozen=True)
class Trial:
    """One set of arguments that was tried.

    Attributes:
        number: Position in the search, from 0.
        candidate: Position of the candidate in the spec.
        state: COMPLETE, PRUNED (stopped early: no hope or no time left) or FAIL.
        value: Mean of the primary metric over the folds, in its own unit; None unless complete.
        params: The searched arguments.
        seconds: Time it took; 0 for arguments that had been tried before.
        reason: Why it failed or was stopped; None when complete.
    """

    number: int
    candidate: int
    state: str
    value: float | None
    params: dict[str, Any]
    seconds: float
    reason: str | None = None


@dataclass(frozen=True)
class TuneResult:
    """What the search of one candidate found.

    Attributes:
        candidate: Position of the candidate in the spec.
        study: Name of the Optuna study.
        trials: All trials, by number.
        best_value: Best mean of the primary metric, in its own unit.
        best_params: The searched arguments that gave it.
    """

    candidate: int
    study: str
    trials: tuple[Trial, ...]
    best_value: float
    best_params: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "trials": [asdict(t) for t in self.trials]}


@dataclass(frozen=True)
class _Budget:
    """How much a search may cost, over all its attempts.

    Args:
        trials: Most trials.
        seconds: Time box; no trial starts after it, and a started one stops at the next fold.
        clock: Monotonic seconds.
        started: What the clock said at the start, less what earlier attempts used.
    """

    trials: int
    seconds: float
    clock: Callable[[], float]
    started: float

    def out_of_time(self) -> bool:
        """Tell whether the time box is over."""
        return self.clock() - self.started >= self.seconds


def tune(
    spec: Spec,
    store: Store,
    manifest: Manifest,
    split: Split,
    candidate: int,
    *,
    storage: str,
    study: str,
    progress: Callable[[Trial], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> TuneResult:
    """Search the best arguments of one candidate by cross-validation on the training part.

    Can be killed and called again: finished trials count, and the next one tries what it would have tried anyway.

    Args:
        spec: The model's spec.
        store: Where the snapshot is.
        manifest: The snapshot.
        split: Which rows are the holdout; they are never looked at.
        candidate: Position of the candidate in the spec.
        storage: SQLAlchemy URL of Optuna's storage.
        study: Name of the study; the same name resumes.
        progress: Called with each finished trial.
        clock: Monotonic seconds, for the time box.

    Returns:
        The trials and the best arguments.

    Raises:
        ModelError: The candidate is wrong (see `check_candidates`), or every trial failed.
        DataError: The training part cannot be learnt from.
        ConflictError: The study belongs to other data or another spec.
        ServiceError: The storage is away.
    """
    # First of all: it imports the estimator's library, and only libraries already loaded can be held to one thread.
    require_candidate(spec, candidate)
    estimator = make_estimator(spec, spec.candidates[candidate], {})
    settings, space = spec.train.tune, make_space(spec.candidates[candidate])
    sampler = SeededSampler(
        spec.train.seed, settings.trials, space, estimator.get_params(deep=True)
    )
    with threadpool_limits(1), _quiet(), open_storage(storage) as opened:
        work = open_study(
            opened,
            study,
            maximize=HIGHER_IS_BETTER[spec.primary.metric],
            sampler=sampler,
            pruner=MedianPruner(n_startup_trials=5, n_warmup_steps=0),
            fingerprint=_fingerprint(spec, manifest, split, candidate),
        )
        budget = _Budget(
            settings.trials if sampler.listed is None else len(sampler.listed),
            settings.timeout.total_seconds(),
            clock,
            clock() - sum(t.user_attrs.get(_SECONDS, 0.0) for t in valid_trials(work)),
        )
        if _wants_more(work, budget):
            rows = load_rows(spec, store, manifest, split)
            where = f"{spec_file(spec)}: train.tune.folds"
            folds = make_folds(rows, spec.task, settings.folds, spec.train.seed, where=where)
            objective = Objective(spec, candidate, rows, folds)
            while _wants_more(work, budget):
                done = _run_trial(work, work.ask(dict(space)), objective, budget)
                if progress and done is not None:
                    progress(_trials(work, candidate)[done])
        return _result(work, spec, candidate)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's own messages out of the task log."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _fingerprint(spec: Spec, manifest: Manifest, split: Split, candidate: int) -> str:
    """Digest everything a trial's value depends on, but not how many trials there are."""
    whole = spec.canonical()
    parts = {
        "ingest": {k: whole["ingest"][k] for k in ("target", "positive", "features", "drop")},
        "candidate": spec.candidates[candidate].model_dump(mode="json"),
        "metric": [spec.task, spec.primary.metric],
        "folds": [spec.train.tune.folds, spec.train.seed],
        "data": [manifest.snapshot_id, split.to_dict()],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _wants_more(study: optuna.Study, budget: _Budget) -> bool:
    """Tell whether another trial should start; waits for those of another process at the end."""
    while True:
        trials = valid_trials(study)
        done = [t for t in trials if t.state.is_finished()]
        if done and (budget.out_of_time() or _hopeless(done)):
            return False
        if len(trials) < budget.trials:
            return True
        if len(done) == len(trials) or budget.out_of_time():
            return False
        time.sleep(
            _POLL_SECONDS
        )  # a second process works on the same study; the time box bounds the wait


def _hopeless(done: Sequence[FrozenTrial]) -> bool:
    return len(done) >= _FAILURES_ALLOWED and all(t.state == TrialState.FAIL for t in done)


def _run_trial(
    study: optuna.Study, trial: optuna.Trial, objective: Objective, budget: _Budget
) -> int | None:
    """Run one trial and record it; return its position, or None when another process took it away."""
    begun = budget.clock()
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    same = next((t for t in finished if t.params == trial.params), None)
    value: float | None = None
    reason: str | None = None
    try:
        try:
            # Without any finished trial there would be no result: the first one gets the time it needs.
            stop = budget.out_of_time if finished else _never
            value = same.value if same is not None else objective(trial, stop)
            state = TrialState.COMPLETE
        except optuna.TrialPruned as stopped:
            state, reason = TrialState.PRUNED, str(stopped)
        except ModelError as error:
            state, reason = TrialState.FAIL, error.rule
        trial.set_user_attr(_SECONDS, 0.0 if same is not None else budget.clock() - begun)
        if reason is not None:
            trial.set_user_attr(_REASON, reason)
        told = study.tell(trial, value, state, skip_if_finished=True)
    except optuna.exceptions.UpdateFinishedTrialError:
        return None
    if STALE in told.user_attrs:
        return None
    return [t.number for t in valid_trials(study)].index(trial.number)


def _never() -> bool:
    return False


def _trials(study: optuna.Study, candidate: int) -> tuple[Trial, ...]:
    return tuple(
        Trial(
            number=number,
            candidate=candidate,
            state=trial.state.name,
            value=trial.value if trial.state == TrialState.COMPLETE else None,
            params=dict(trial.params),
            seconds=float(trial.user_attrs.get(_SECONDS, 0.0)),
            reason=trial.user_attrs.get(_REASON),
        )
        for number, trial in enumerate(valid_trials(study))
        if trial.state.is_finished()
    )


def _result(study: optuna.Study, spec: Spec, candidate: int) -> TuneResult:
    trials = _trials(study, candidate)
    scored = [(t.value, t) for t in trials if t.value is not None]
    if not scored:
        reason = next((t.reason for t in reversed(trials) if t.reason), "no reason")
        raise ModelError(
            f"{spec_file(spec)}: {candidate_key(candidate)}",
            f"needs one trial that works, got {len(trials)} that failed, the last one: {reason}",
            "Correct the candidate's params and search, or remove it.",
        )
    sign = 1 if HIGHER_IS_BETTER[spec.primary.metric] else -1
    value, best = max(scored, key=lambda pair: (sign * pair[0], -pair[1].number))
    return TuneResult(candidate, study.study_name, trials, value, best.params)


def best_candidate(
    spec: Spec, results: Sequence[TuneResult | Mapping[str, Any] | None]
) -> tuple[int, dict[str, Any]]:
    """Choose the candidate to fit.

    Args:
        spec: Names the primary metric.
        results: One result per candidate, as object or as `to_dict` gave it; None for a candidate that failed.

    Returns:
        Position of the candidate in the spec, and its best arguments. On a tie the earlier candidate wins.

    Raises:
        ModelError: No candidate has a result.
    """
    plain = [r.to_dict() if isinstance(r, TuneResult) else r for r in results]
    scored = [r for r in plain if r is not None]
    if not scored:
        raise ModelError(
            f"{spec_file(spec)}: train.candidates",
            "needs one candidate that can be trained, got none",
            "See the log of each candidate's task.",
        )
    sign = 1 if HIGHER_IS_BETTER[spec.primary.metric] else -1
    best = max(scored, key=lambda r: (sign * r["best_value"], -r["candidate"]))
    return int(best["candidate"]), dict(best["best_params"])
