"""What a caller may pass to a run, as JSON Schema."""

from __future__ import annotations

from airflow.sdk import Param

from include.spec.score import PARTITION_PATTERN

_MOMENT = r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?([Zz]|[+-]\d{2}:\d{2})$"
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
        "as_of": _as_of(),
    }


def monitor_params() -> dict[str, Param]:
    """Return the parameters of a monitor Dag."""
    return {
        "force": Param(
            False,
            type="boolean",
            title="Force",
            description="Judge the window even if it was judged before.",
        ),
        "html": Param(
            False,
            type="boolean",
            title="HTML report",
            description="Write the page with plots even if nothing is found.",
        ),
        "as_of": _as_of(),
    }


def score_params() -> dict[str, Param]:
    """Return the parameters of a scoring Dag."""
    return {
        "partition": Param(
            None,
            type=["null", "string"],
            pattern=PARTITION_PATTERN,
            title="Partition",
            description="Which rows to score; empty: the date of the run, such as 2026-03-01.",
        ),
    }


def _as_of() -> Param:
    return Param(
        None,
        type=["null", "string"],
        format="date-time",
        pattern=_MOMENT,  # Airflow's API does not check the format
        title="As of",
        description="Act as if it were this time, for example 2026-03-01T00:00:00Z; never in the future.",
    )
