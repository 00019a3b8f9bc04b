"""The spec's section `deploy`: how a challenger takes traffic, and what it must show on the way. Light, as `schema`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from include.spec.sources import Section
from include.spec.values import Duration, Share, format_duration


class Deploy(Section):
    """How a challenger takes traffic."""

    rollout: Literal["direct", "canary", "shadow", "ab"] = Field(
        "direct", description="Steps by which a challenger takes over."
    )
    steps: tuple[int, ...] = Field(
        (10, 50),
        description="Traffic of each step in percent, for canary and ab; an ab test stays at the last one.",
    )
    hold: Duration = Field("10m", validate_default=True, description="Shortest time at each step.")
    patience: Duration = Field(
        "24h",
        validate_default=True,
        description="Longest time a step waits for enough traffic, or an ab test for its decision; "
        "then the champion stays.",
    )
    min_rows: int = Field(
        200, ge=1, description="Rows the challenger must have answered before a step is judged."
    )
    max_error_rate: Share = Field(
        0.01, description="Highest share of its requests the challenger may fail on."
    )
    max_latency_ratio: float = Field(
        1.5, gt=0, description="Highest latency against the champion's."
    )
    max_shift: float = Field(
        0.5,
        gt=0,
        description="Largest difference (PSI) between the challenger's and the champion's live predictions.",
    )
    decide: Literal["person", "labels"] = Field(
        "person",
        description="Who ends an ab test: a person, or the primary metric on live labels, once its interval "
        "leaves no doubt.",
    )
    timeout: Duration = Field(
        "2m",
        validate_default=True,
        description="Longest wait for serving to answer with the new version.",
    )

    @field_validator("steps")
    @classmethod
    def _rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or any(not 0 < s < 100 for s in value) or list(value) != sorted(set(value)):
            raise ValueError(f"must be rising percentages between 1 and 99, got {list(value)}")
        return value

    @model_validator(mode="after")
    def _hold_ends(self) -> Self:
        if self.hold >= self.patience:
            raise ValueError(
                "hold must be shorter than patience, or every step ends before it may pass, "
                f"got {format_duration(self.hold)} and {format_duration(self.patience)}"
            )
        return self
