"""The assets by which Dags of a model meet others, and the schedule made of them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetOrTimeSchedule, CronTriggerTimetable

from evergreen.factory.naming import champion_asset_uri, data_asset_uri, scores_asset_uri

if TYPE_CHECKING:
    from include.spec.schema import Spec


def data_asset(model: str) -> Asset:
    """Return the asset that upstream jobs update when a model's data is new."""
    return Asset(name=f"{model}_data", uri=data_asset_uri(model))


def champion_asset(model: str) -> Asset:
    """Return the asset that a promotion updates; no Dag of the model itself listens to it."""
    return Asset(name=f"{model}_champion", uri=champion_asset_uri(model))


def scores_asset(model: str) -> Asset:
    """Return the asset that a scored partition updates; its event names the partition."""
    return Asset(name=f"{model}_scores", uri=scores_asset_uri(model))


def training_schedule(spec: Spec) -> Any:
    """Return a training Dag's schedule: cron, data asset, both, or None."""
    cron = None
    if spec.retrain.schedule:
        # A timedelta of zero is the only value that never runs a tick that lies in the past.
        cron = CronTriggerTimetable(
            spec.retrain.schedule, timezone=spec.retrain.timezone, run_immediately=timedelta(0)
        )
    if "data" not in spec.retrain.on:
        return cron
    assets = [data_asset(spec.model)]
    return AssetOrTimeSchedule(timetable=cron, assets=assets) if cron else assets
