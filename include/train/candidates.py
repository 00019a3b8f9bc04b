"""Turns a candidate of the spec into an estimator, and says what is wrong with it before any data is read.

Owns the import of user-named classes, the check of their arguments, and what the platform imposes on every
estimator: a seed, one thread, and probabilities.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sklearn.base import is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.utils import all_estimators, get_tags

from include.errors import ModelError
from include.settings import get_settings
from include.spec.loader import display_path, suggest
from include.spec.schema import Candidate, Search, Spec

_CALIBRATION_FOLDS = 3


def candidate_key(number: int) -> str:
    """Return the spec's key of a candidate, as error messages name it."""
    return f"train.candidates[{number}]"


def spec_file(spec: Spec) -> str:
    """Return the path of the spec the way a reader knows it."""
    return display_path(get_settings().models / f"{spec.model}.yaml")


def resolve_estimator(
    candidate: Candidate, allowed_prefixes: Sequence[str], *, where: str = "train.candidates"
) -> type:
    """Import the class a candidate names.

    Args:
        candidate: Estimator by its dotted path.
        allowed_prefixes: Dotted prefixes, each ending in a dot, under which code may be named.
        where: File and key for error messages.

    Raises:
        ModelError: The path lies outside the prefixes, the module or class does not exist or cannot be
            imported, or it is not an estimator class. The message suggests the nearest name.
    """
    path = candidate.estimator
    if not path.startswith(tuple(allowed_prefixes)):
        raise ModelError(
            where,
            f"must lie under an allowed prefix ({', '.join(allowed_prefixes)}), got {path!r}",
            "Move the code there, or add its prefix to EVERGREEN_CODE_PREFIXES.",
        )
    module_name, _, name = path.rpartition(".")
    found = getattr(_import_module(module_name, path, where), name, None)
    if found is None:
        raise ModelError(
            where, f"must name an estimator class, got unknown {path!r}", _near_estimator(path)
        )
    if not inspect.isclass(found) or not all(hasattr(found, m) for m in _METHODS):
        raise ModelError(
            where,
            f"must name a class with {', '.join(_METHODS)}, got {path!r}",
            _near_estimator(path),
        )
    return found


_METHODS = ("fit", "predict", "get_params", "set_params")


def _import_module(module: str, path: str, where: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = path.partition(".")[0]
        if error.name == top:
            raise ModelError(
                where,
                f"needs the package {top}, got none installed",
                f"Add {top} to requirements.in and install it, or choose another estimator.",
            ) from error
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _import_failure(path, where, error) from error
        raise ModelError(
            where, f"must name an estimator class, got unknown {path!r}", _near_estimator(path)
        ) from error
    except Exception as error:  # code of the user's own module may fail in any way
        raise _import_failure(path, where, error) from error


def _import_failure(path: str, where: str, error: Exception) -> ModelError:
    return ModelError(
        where,
        f"must be importable, got {type(error).__name__} from {path!r}: {_flat(error)}",
        "Correct the module, or name another estimator.",
    )


def _flat(error: Exception) -> str:
    """Write an error's text as one clause."""
    return " ".join(str(error).split()).rstrip(".").replace(". ", "; ")


def _near_estimator(path: str) -> str:
    known = {name: f"{_public_module(cls)}.{name}" for name, cls in all_estimators()}
    near = difflib.get_close_matches(path.rpartition(".")[2], known, n=1, cutoff=0.7)
    if near:
        return f"Did you mean {known[near[0]]!r}?"
    return suggest(path, known.values()) or "Name one such as sklearn.linear_model.Ridge."


def _public_module(cls: type) -> str:
    parts = cls.__module__.split(".")
    return ".".join(itertools.takewhile(lambda part: not part.startswith("_"), parts))


def make_estimator(
    spec: Spec,
    candidate: Candidate,
    params: Mapping[str, Any],
    *,
    allowed_prefixes: Sequence[str] | None = None,
) -> Any:
    """Build an unfitted estimator the way the platform runs it.

    `random_state` gets the spec's seed where it is not set; `n_jobs` is one; a classifier that knows no
    probabilities is wrapped in Platt scaling, because the gate and serving speak in probabilities.

    Args:
        spec: Gives task, seed and the file's name for messages.
        candidate: Estimator and fixed arguments.
        params: Searched arguments, on top of the fixed ones.
        allowed_prefixes: None reads them from the settings.

    Raises:
        ModelError: As `check_candidates` says.
    """
    key = f"{spec_file(spec)}: {candidate_key(_number_of(spec, candidate))}"
    prefixes = get_settings().allowed_prefixes if allowed_prefixes is None else allowed_prefixes
    cls = resolve_estimator(candidate, prefixes, where=f"{key}.estimator")
    built = _construct(cls, {**candidate.params, **params}, f"{key}.params")
    for problem in _task_problems(built, spec.task, candidate, key):
        raise problem
    _settle(built, spec.train.seed)
    if spec.task != "regression" and not hasattr(built, "predict_proba"):
        return CalibratedClassifierCV(built, cv=_CALIBRATION_FOLDS, ensemble=False)
    return built


def check_candidates(spec: Spec, allowed_prefixes: Sequence[str]) -> list[tuple[str, str]]:
    """Return everything wrong with the candidates, without data.

    Args:
        spec: The parsed spec.
        allowed_prefixes: Dotted prefixes, each ending in a dot.

    Returns:
        (dotted key, "rule, got what. What to do.") pairs; empty when all is well.
    """
    found = [
        problem
        for number, candidate in enumerate(spec.candidates)
        for problem in _candidate_problems(spec, candidate, candidate_key(number), allowed_prefixes)
    ]
    return [(p.where, f"{p.rule}. {p.fix}") for p in found]


def require_candidate(spec: Spec, number: int) -> None:
    """Refuse a candidate whose estimator or arguments are wrong before any work is done for it.

    Raises:
        ModelError: The first thing `check_candidates` finds wrong with it.
    """
    key, prefixes = candidate_key(number), get_settings().allowed_prefixes
    for problem in _candidate_problems(spec, spec.candidates[number], key, prefixes):
        raise ModelError(f"{spec_file(spec)}: {problem.where}", problem.rule, problem.fix)


def _number_of(spec: Spec, candidate: Candidate) -> int:
    same = [n for n, c in enumerate(spec.candidates) if c == candidate]
    by_path = [n for n, c in enumerate(spec.candidates) if c.estimator == candidate.estimator]
    return next(iter(same + by_path), 0)


def _candidate_problems(
    spec: Spec, candidate: Candidate, key: str, allowed_prefixes: Sequence[str]
) -> Iterator[ModelError]:
    try:
        cls = resolve_estimator(candidate, allowed_prefixes, where=f"{key}.estimator")
    except ModelError as error:
        yield error
        return
    unknown = [
        *_unknown_names(cls, candidate.params, f"{key}.params"),
        *_unknown_names(cls, candidate.search, f"{key}.search"),
    ]
    yield from unknown
    if unknown:
        return
    try:
        built = _construct(cls, candidate.params, f"{key}.params")
    except ModelError as error:
        yield error
        return
    yield from _task_problems(built, spec.task, candidate, key)
    for name, search in candidate.search.items():
        try:
            for value in _ends(search):
                _construct(cls, {**candidate.params, name: value}, f"{key}.search.{name}")
        except ModelError as error:
            yield error


def _ends(search: Search) -> tuple[Any, ...]:
    return search.choices if search.choices is not None else (search.low, search.high)


def _unknown_names(cls: type, names: Iterable[str], key: str) -> Iterator[ModelError]:
    parameters = inspect.signature(cls).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return  # xgboost and lightgbm hand unknown arguments on to their own libraries
    known = sorted(parameters)
    for name in names:
        if name.partition("__")[0] not in known:
            hint = suggest(name, known) or f"It takes: {', '.join(known)}."
            yield ModelError(
                f"{key}.{name}", f"must be an argument of {cls.__name__}, got {name!r}", hint
            )


def _construct(cls: type, params: Mapping[str, Any], key: str) -> Any:
    """Return the estimator.

    Raises:
        ModelError: With the first problem with its arguments.
    """
    for problem in _unknown_names(cls, params, key):
        raise problem
    own = {n: v for n, v in params.items() if "__" not in n}
    nested = {n: v for n, v in params.items() if "__" in n}
    try:
        estimator = cls(**own)
        if nested:
            estimator.set_params(**nested)
        if hasattr(estimator, "_parameter_constraints"):
            estimator._validate_params()  # scikit-learn itself looks at single arguments only in fit
    except Exception as error:  # constructors are foreign code
        shown = ", ".join(f"{name}={value!r}" for name, value in params.items()) or "none"
        raise ModelError(
            key, f"must be arguments {cls.__name__} accepts, got {shown}", f"{_flat(error)}."
        ) from error
    return estimator


def _task_problems(
    estimator: Any, task: str, candidate: Candidate, key: str
) -> Iterator[ModelError]:
    path = candidate.estimator
    key = f"{key}.estimator"
    if task == "regression":
        if not is_regressor(estimator):
            yield ModelError(
                key, f"must be a regressor for task regression, got {path!r}", _other_kind(path)
            )
        return
    if not is_classifier(estimator):
        yield ModelError(
            key, f"must be a classifier for task {task}, got {path!r}", _other_kind(path)
        )
        return
    tags = get_tags(estimator).classifier_tags
    if task == "multiclass" and tags is not None and not tags.multi_class:
        yield ModelError(
            key,
            f"must handle more than two classes for task multiclass, got {path!r}",
            "Choose another estimator.",
        )


def _other_kind(path: str) -> str:
    """Suggest the sibling of the other kind: HistGradientBoostingRegressor for ...Classifier."""
    for ending, other in (("Regressor", "Classifier"), ("Classifier", "Regressor")):
        if path.endswith(ending):
            sibling = path.removesuffix(ending) + other
            if sibling.rpartition(".")[2] in dict(all_estimators()) or "sklearn" not in path:
                return f"Did you mean {sibling!r}?"
    return "Choose another estimator, or correct `task`."


def _settle(estimator: Any, seed: int) -> None:
    """Impose the seed and the single thread, also on nested estimators."""
    foreign = not type(estimator).__module__.startswith("sklearn.")
    imposed: dict[str, Any] = {}
    for name, value in estimator.get_params(deep=True).items():
        last = name.rpartition("__")[2]
        if last == "random_state" and value is None:
            imposed[name] = seed
        elif last == "n_jobs" and (value is not None or foreign):
            # None is one for scikit-learn (LogisticRegression even warns at a number), but all cores elsewhere.
            imposed[name] = 1 if foreign else None
    if imposed:
        estimator.set_params(**imposed)
