"""The spec's sections `monitor` and `retrain`: what is watched, and when a model is trained again. Light, as `schema`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from include.spec.sources import Section, Source
from include.spec.values import Cron, Duration, Share, TimeZone


class Violations(Section):
    """k of the last n windows must violate."""

    k: int = Field(2, ge=1, description="Windows that must violate.")
    of: int = Field(3, ge=1, description="Windows looked at.")

    @model_validator(mode="after")
    def _k_of_n(self) -> Self:
        if self.k > self.of:
            raise ValueError(f"k must not exceed of, got {self.k} of {self.of}")
        return self


class Drift(Section):
    """When live data counts as different."""

    method: Literal["psi", "jensenshannon", "ks", "wasserstein"] = Field(
        "psi", description="Statistic of numeric features."
    )
    warn: float = Field(0.1, gt=0, description="Value that is worth a look.")
    alert: float = Field(0.2, gt=0, description="Value that counts as drift.")
    share: Share = Field(
        0.5, description="Share of drifted features that counts as drift of the whole."
    )
    critical: tuple[str, ...] = Field((), description="Features that count on their own.")
    violations: Violations = Field(
        default_factory=Violations, description="How often before it matters."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.warn > self.alert:
            raise ValueError(f"warn must not exceed alert, got {self.warn} and {self.alert}")
        return self


class Labels(Section):
    """Ground truth that arrives late."""

    source: Source | None = Field(
        None,
        description="Where labels come from: rows of key, time and target; omit when they are posted to serving.",
    )
    delay: Duration = Field(
        "30d", validate_default=True, description="Time after which a label can be expected."
    )
    min_coverage: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of a window's predictions that must have a label for them to prove decay.",
    )


class Performance(Section):
    """When live performance counts as decayed."""

    metric: str = Field(description="Metric to watch.")
    max_drop: float = Field(
        gt=0,
        description="Most it may be worse than on the champion's holdout, in the metric's unit.",
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="Confidence of the interval that must lie below the limit."
    )


class Monitor(Section):
    """What the scheduled monitor looks at."""

    schedule: Cron | None = Field(None, description="Cron of the monitor; omit for no monitoring.")
    window: Duration = Field(
        "1d", validate_default=True, description="Length of one window of live predictions."
    )
    min_rows: int = Field(500, ge=1, description="Fewest rows a window needs to be judged.")
    drift: Drift = Field(default_factory=Drift, description="Drift of inputs and predictions.")
    labels: Labels | None = Field(None, description="Late ground truth.")
    performance: Performance | None = Field(None, description="Decay of the live metric.")
    keep: Duration = Field(
        "90d",
        validate_default=True,
        description="Age at which logged predictions and labels are removed.",
    )


class Retrain(Section):
    """When a model is trained again without being asked by hand."""

    schedule: Cron | None = Field(None, description="Cron of nightly retraining; omit for none.")
    timezone: TimeZone = Field("UTC", description="IANA time zone of `schedule`.")
    on: tuple[Literal["data", "drift", "decay"], ...] = Field(
        (), description="Events that ask for a retrain; data: the model's data asset."
    )
    cooldown: Duration = Field(
        "24h",
        validate_default=True,
        description="Shortest time between retrains that nobody asked for by hand.",
    )
    min_new_rows: int = Field(0, ge=0, description="Fewest new rows since the champion's snapshot.")
    max_per_week: int = Field(
        7, ge=1, description="Most retrains in seven days that nobody asked for by hand."
    )
