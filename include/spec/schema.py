"""The spec: everything a user says about one model, as frozen Pydantic objects.

Owns the names, types, defaults and descriptions, those of long sections in modules of their own (`deploy`, `monitor`,
`score`). `docs/spec.schema.json` and `docs/spec.md` are generated from it. Light on purpose: Dag files import it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from include.spec.deploy import Deploy
from include.spec.metrics import DEFAULT_PRIMARY, METRICS, Task
from include.spec.monitor import Drift, Labels, Monitor, Performance, Retrain, Violations
from include.spec.score import Score
from include.spec.sources import Section, Source
from include.spec.values import CodePath, Duration, Share

__all__ = [
    "NAME_PATTERN",
    "Approval",
    "Candidate",
    "Deploy",
    "Drift",
    "Evaluate",
    "FeatureLists",
    "Guardrail",
    "Ingest",
    "Labels",
    "ManualApproval",
    "Monitor",
    "Notify",
    "Performance",
    "Primary",
    "Register",
    "Retrain",
    "Search",
    "Slice",
    "Spec",
    "Train",
    "Tune",
    "Validate",
    "Violations",
    "sections_hash",
]

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"
_SHAPING = ("model", "task", "ingest", "validate", "train", "evaluate")


# --- ingest ---------------------------------------------------------------------------------------------


class FeatureLists(Section):
    """Which columns the model learns from."""

    numeric: tuple[str, ...] = Field((), description="Columns used as numbers.")
    categorical: tuple[str, ...] = Field((), description="Columns used as categories.")

    @model_validator(mode="after")
    def _not_empty_nor_twice(self) -> Self:
        names = [*self.numeric, *self.categorical]
        if not names:
            raise ValueError("must name at least one column, or be omitted")
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"must name each column once, got {', '.join(twice)} twice")
        return self


class Ingest(Section):
    """Where the data comes from and what its columns mean."""

    source: Source = Field(description="Where the rows come from.")
    target: str = Field(min_length=1, description="Column to predict.")
    positive: str | int | float | bool | None = Field(
        None,
        description="For binary: the target value that counts as the event; omit for the larger one in sort order.",
    )
    key: str | None = Field(
        None,
        description="Entity id: must be unique, joins predictions with labels, never a feature.",
    )
    time: str | None = Field(
        None,
        description="Event time: ordering, windows and the time-based holdout, never a feature.",
    )
    time_format: str | None = Field(
        None,
        description="strptime format of `time` where it is text in another form than ISO 8601.",
    )
    features: FeatureLists | None = Field(
        None, description="Columns to learn from; omit to infer them from the first snapshot."
    )
    window: Duration | None = Field(
        None, description="Keep rows this far back from the newest row; omit to keep all."
    )
    drop: tuple[str, ...] = Field(
        (), description="Personal or useless columns: never reach snapshot, log or report."
    )


# --- validate, train ------------------------------------------------------------------------------------


class Validate(Section):
    """What data must look like before a model may learn from it."""

    min_rows: int = Field(100, ge=1, description="Fewest rows a snapshot may have.")
    max_age: Duration | None = Field(
        None, description="Oldest the newest row may be when the run starts; needs `time`."
    )
    max_null_increase: Share = Field(
        0.2, description="Most a column's null share may grow over the champion's snapshot."
    )
    leakage: Literal["error", "warn", "off"] = Field(
        "error", description="What to do about a feature that gives the target away."
    )
    expectations: tuple[dict[str, dict[str, Any]], ...] = Field(
        (),
        description="Great Expectations' own names and arguments; `severity: warning` reports without stopping.",
    )

    @field_validator("expectations")
    @classmethod
    def _one_name_each(
        cls, value: tuple[dict[str, dict[str, Any]], ...]
    ) -> tuple[dict[str, dict[str, Any]], ...]:
        for number, item in enumerate(value):
            if len(item) != 1 or not next(iter(item)).startswith("expect_"):
                raise ValueError(
                    f"item {number} must be one `expect_...: {{arguments}}` pair, got {sorted(item)}"
                )
        return value


class Search(Section):
    """The range or the list one hyperparameter is searched in."""

    low: float | int | None = Field(
        None, description="Smallest value; whole low and high search whole numbers."
    )
    high: float | int | None = Field(None, description="Largest value.")
    log: bool = Field(False, description="Search on a logarithmic scale.")
    choices: tuple[str | int | float | bool | None, ...] | None = Field(
        None, description="Values to choose from, instead of a range."
    )

    @model_validator(mode="after")
    def _range_or_choices(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("must have either choices or low and high")
            if not self.choices:
                raise ValueError("choices must not be empty")
            return self
        if self.low is None or self.high is None:
            raise ValueError("must have both low and high, or choices")
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 on a logarithmic scale, got {self.low}")
        return self


class Candidate(Section):
    """An estimator and its search space."""

    estimator: CodePath = Field(
        description="Dotted path of a scikit-learn compatible estimator class."
    )
    params: dict[str, Any] = Field(default_factory=dict, description="Fixed constructor arguments.")
    search: dict[str, Search] = Field(
        default_factory=dict, description="Constructor arguments to search."
    )

    @model_validator(mode="after")
    def _no_overlap(self) -> Self:
        both = sorted(set(self.params) & set(self.search))
        if both:
            raise ValueError(f"must not set and search the same argument, got {', '.join(both)}")
        return self


class Tune(Section):
    """How long and how carefully to search."""

    trials: int = Field(10, ge=1, le=10_000, description="Trials per candidate.")
    timeout: Duration = Field("10m", validate_default=True, description="Time box per candidate.")
    folds: int = Field(
        3, ge=2, le=20, description="Cross-validation folds; time-ordered where there is `time`."
    )


class Train(Section):
    """Which estimators compete and how they are tuned."""

    candidates: tuple[Candidate, ...] = Field(
        (), description="Estimators to try; omit for a linear model and gradient boosting."
    )
    tune: Tune = Field(default_factory=Tune, description="The search.")
    seed: int = Field(42, ge=0, lt=2**32, description="Seed of everything random.")


# --- evaluate, register ---------------------------------------------------------------------------------


class Primary(Section):
    """The one metric that decides, and by how much."""

    metric: str = Field(description="Metric to judge by.")
    promote: Literal["better", "not_worse"] = Field(
        "better",
        description="better: the interval must lie above +margin; not_worse: above -margin.",
    )
    margin: float = Field(
        0.0, ge=0, description="Smallest difference that matters, in the metric's unit."
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="Confidence of the bootstrap interval."
    )


class Guardrail(Section):
    """A metric that must not get much worse."""

    max_regression: float = Field(
        ge=0, description="Most it may get worse against the champion, in the metric's unit."
    )


class Slice(Section):
    """A column whose every value is judged on its own."""

    column: str = Field(description="Column whose values make the slices.")
    max_regression: float = Field(
        ge=0, description="Most the primary metric may get worse in any slice."
    )
    min_rows: int = Field(100, ge=1, description="Smaller slices are reported but not judged.")


class Evaluate(Section):
    """The gate: what a challenger must show."""

    holdout: Share = Field(
        "20%",
        validate_default=True,
        gt=0,
        lt=0.9,
        description="Share of newest rows (no time: of hashed keys) kept for the gate.",
    )
    min_rows: int = Field(50, ge=10, description="Fewest holdout rows the gate accepts.")
    primary: Primary | None = Field(
        None, description="The deciding metric; omit for roc_auc, log_loss (multiclass) or rmse."
    )
    minimum: dict[str, float] = Field(
        default_factory=dict, description="Worst value each metric may have."
    )
    guardrails: dict[str, Guardrail] = Field(
        default_factory=dict, description="Metrics that must not get much worse."
    )
    slices: tuple[Slice, ...] = Field(
        (), description="Columns whose values are judged on their own."
    )
    legacy: Guardrail | None = Field(
        None, description="Guard the champion's old holdout too; omit to only report it."
    )


class ManualApproval(Section):
    """A person must say yes; no answer is a no."""

    approvers: tuple[str, ...] = Field(
        (), description="Airflow user names; empty: anyone who may edit the Dag."
    )
    timeout: Duration = Field("24h", validate_default=True, description="Time to answer.")


class Approval(Section):
    """Holder of a manual approval."""

    manual: ManualApproval = Field(description="Who may approve, and for how long the run waits.")


class Register(Section):
    """How a version may become champion."""

    approval: Literal["auto"] | Approval = Field(
        "auto", description="auto, or manual with approvers and a timeout."
    )
    parity: float = Field(
        1e-5,
        gt=0,
        le=0.1,
        description="Largest difference between ONNX and scikit-learn on the holdout with which serving still uses "
        "ONNX: in probability, for regression as a share of the predictions' spread.",
    )


# --- notify ----------------------------------------------------------------------------------------------


class Notify(Section):
    """Who hears about what."""

    on: tuple[
        Literal["failure", "promotion", "rejection", "drift", "rollback", "approval"], ...
    ] = Field(("failure",), description="Events worth a message.")
    to: tuple[str, ...] = Field(
        (),
        description="Apprise URLs, or `connection:<airflow connection id>` for ones that hold a secret.",
    )


# --- the whole ------------------------------------------------------------------------------------------


class Spec(Section):
    """One model: from its data to its service."""

    model: str = Field(
        pattern=NAME_PATTERN, description="Name of the model; must equal the file's stem."
    )
    description: str = Field("", description="What the model is for, in a sentence.")
    owner: str = Field(
        "evergreen", min_length=1, description="Team that owns it; the owner of its Dags."
    )
    task: Task = Field(description="Kind of prediction.")
    ingest: Ingest = Field(description="Where the data comes from and what its columns mean.")
    validate_: Validate = Field(
        default_factory=Validate, alias="validate", description="What data must look like."
    )
    train: Train = Field(default_factory=Train, description="Which estimators compete.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="The gate.")
    register_: Register = Field(
        default_factory=Register, alias="register", description="How a version may become champion."
    )
    deploy: Deploy = Field(default_factory=Deploy, description="How a challenger takes traffic.")
    monitor: Monitor = Field(
        default_factory=Monitor, description="What the scheduled monitor looks at."
    )
    retrain: Retrain = Field(
        default_factory=Retrain, description="When the model is trained again."
    )
    score: Score | None = Field(
        None, description="Predictions for whole batches of rows; omit for none."
    )
    notify: Notify = Field(default_factory=Notify, description="Who hears about what.")

    @property
    def primary(self) -> Primary:
        """The deciding metric, with the task's default filled in."""
        return self.evaluate.primary or Primary(metric=DEFAULT_PRIMARY[self.task])

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The estimators to try, with the task's defaults filled in."""
        return self.train.candidates or _default_candidates(self.task)

    def canonical(self) -> dict[str, Any]:
        """The whole spec as plain JSON values, defaults filled in."""
        return self.model_dump(mode="json", by_alias=True)

    def shaping(self) -> dict[str, Any]:
        """The sections that shape a version or its verdict, as plain JSON values, defaults filled in."""
        whole = self.canonical()
        return {name: whole[name] for name in _SHAPING}

    def with_features(self, numeric: Sequence[str], categorical: Sequence[str]) -> Spec:
        """Return this spec with its features listed; what is listed already stays."""
        if self.ingest.features is not None:
            return self
        features = FeatureLists(numeric=tuple(numeric), categorical=tuple(categorical))
        ingest = self.ingest.model_copy(update={"features": features})
        return self.model_copy(update={"ingest": ingest})

    @property
    def spec_hash(self) -> str:
        """Digest of the sections that shape a version or its verdict; 16 hex digits."""
        return sections_hash(self.shaping())

    def problems(self) -> list[tuple[str, str]]:
        """Return what is wrong across sections, as (dotted key, rule and finding) pairs."""
        found: list[tuple[str, str]] = []
        known = METRICS[self.task]
        named = [("evaluate.primary.metric", self.primary.metric)]
        named += [(f"evaluate.minimum.{m}", m) for m in self.evaluate.minimum]
        named += [(f"evaluate.guardrails.{m}", m) for m in self.evaluate.guardrails]
        if self.monitor.performance:
            named.append(("monitor.performance.metric", self.monitor.performance.metric))
        found += [
            (key, f"must be a {self.task} metric ({', '.join(known)}), got {m!r}")
            for key, m in named
            if m not in known
        ]
        return found + self._monitor_problems() + self._column_problems()

    def _monitor_problems(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        monitor, listed = self.monitor, self.ingest.features
        if monitor.performance and not monitor.labels:
            found.append(("monitor.performance", "needs monitor.labels, got none"))
        if self.deploy.rollout == "ab" and self.deploy.decide == "labels" and not monitor.labels:
            found.append(("deploy.decide", "labels needs monitor.labels, got none"))
        if "decay" in self.retrain.on and not monitor.performance:
            found.append(("retrain.on", "decay needs monitor.performance, got none"))
        names = (*listed.numeric, *listed.categorical) if listed else None
        found += [
            ("monitor.drift.critical", f"must hold features, got {name!r}")
            for name in monitor.drift.critical
            if names is not None and name not in names
        ]
        return found

    def _column_problems(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        ingest = self.ingest
        roles = {"ingest.key": ingest.key, "ingest.time": ingest.time}
        special = {name for name in (ingest.target, ingest.key, ingest.time) if name}
        for key, name in roles.items():
            if name == ingest.target:
                found.append((key, f"must not be the target column, got {name!r}"))
        if ingest.key and ingest.key == ingest.time:
            found.append(("ingest.time", f"must not be the key column, got {ingest.time!r}"))
        for kind in ("numeric", "categorical"):
            names = getattr(ingest.features, kind, ())
            for name in names:
                if name in special:
                    found.append(
                        (
                            f"ingest.features.{kind}",
                            f"must not hold the target, key or time column, got {name!r}",
                        )
                    )
                if name in ingest.drop:
                    found.append(
                        (f"ingest.features.{kind}", f"must not hold a dropped column, got {name!r}")
                    )
        found += [
            ("ingest.drop", f"must not hold the target, key or time column, got {n!r}")
            for n in ingest.drop
            if n in special
        ]
        if self.validate_.max_age and not ingest.time:
            found.append(("validate.max_age", "needs ingest.time, got none"))
        if ingest.positive is not None and self.task != "binary":
            found.append(("ingest.positive", f"is for task binary only, got task {self.task}"))
        found += [
            (f"evaluate.slices.{i}.column", f"must not be a dropped column, got {s.column!r}")
            for i, s in enumerate(self.evaluate.slices)
            if s.column in ingest.drop
        ]
        return found


def sections_hash(sections: Mapping[str, Any]) -> str:
    """Return the `spec_hash` of sections as `Spec.shaping` gave them; 16 hex digits."""
    text = json.dumps(sections, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _default_candidates(task: Task) -> tuple[Candidate, ...]:
    learning = {
        "learning_rate": Search(low=0.02, high=0.3, log=True),
        "max_leaf_nodes": Search(choices=(15, 31, 63)),
    }
    if task == "regression":
        return (
            Candidate(
                estimator="sklearn.linear_model.Ridge",
                search={"alpha": Search(low=0.001, high=1000.0, log=True)},
            ),
            Candidate(estimator="sklearn.ensemble.HistGradientBoostingRegressor", search=learning),
        )
    return (
        Candidate(
            estimator="sklearn.linear_model.LogisticRegression",
            params={"max_iter": 500},
            search={"C": Search(low=0.001, high=10.0, log=True)},
        ),
        Candidate(estimator="sklearn.ensemble.HistGradientBoostingClassifier", search=learning),
    )
