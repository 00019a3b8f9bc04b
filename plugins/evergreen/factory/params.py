"""What a caller may pass to a training run, as JSON Schema."""

from __future__ import annotations

from airflow.sdk import Param

_TRIGGERS = ("manual", "api", "schedule", "data", "drift", "decay")


def training_params() -> dict[str, Param]:
    """Return the parameters of a training Dag; Airflow checks a run's `conf` against them."""
    return {
        "reason": Param(
            None,
            type=["null", "string"],
            maxLength=500,
            title="Reason",
            description="Why this run is wanted; kept in the ledger.",
        ),
        "trigger": Param(
            None,
            type=["null", "string"],
            enum=[None, *_TRIGGERS],
            title="Trigger",
            description="Who asks. Cool-down and weekly budget hold for schedule, data, drift and decay.",
        ),
        "force": Param(
            False,
            type="boolean",
            title="Force",
            description="Train even if frozen, or if this very data was judged before.",
        ),
    }


PARAM_NAMES = ("reason", "trigger", "force")
