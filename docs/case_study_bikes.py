"""Case study: rental bikes. Trains on 2011, replays 2012 week by week as live traffic, with and without retraining.

Makes the numbers and pictures of `docs/case-study-bikes.md` with the functions the Dags call: ingest, tune, fit, gate,
prediction log, monitor. Only Airflow and MLflow are left out, so that a year takes two minutes.

Usage: EVERGREEN_REAL_DATA=<folder with bike_hour.csv> python docs/case_study_bikes.py [OUT]
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from include.evaluate.evaluate import evaluate
from include.ingest.ingest import ingest
from include.monitor.collect import collect
from include.monitor.decide import decide
from include.monitor.drift import check_drift
from include.monitor.performance import check_performance
from include.monitor.quality import check_quality
from include.monitor.reference import Reference, build_reference
from include.monitor.windows import latest_window
from include.registry.trust import load_model
from include.scoring.model import LoadedModel, predict
from include.spec.schema import Spec
from include.store.features import model_frame, resolve_features
from include.store.files import Store, open_store
from include.store.labels import read_labels, write_labels
from include.store.predictions import write_part
from include.store.split import plan_split
from include.train.fit import fit
from include.train.tune import tune

IMAGES = Path(__file__).parent / "images"
FIRST, LAST = datetime(2012, 1, 1, tzinfo=UTC), datetime(2012, 12, 31, tzinfo=UTC)
GREY, GREEN, RED = "#8a8f98", "#1b8a5a", "#c0392b"


def make_spec(data: Path) -> Spec:
    """Return the spec: `day` lets trees tell old rows from new ones; `yr` would be a constant in the first year."""
    return Spec.model_validate(
        {
            "model": "bikes",
            "task": "regression",
            "ingest": {
                "source": {"kind": "file", "path": str(data / "*.parquet")},
                "key": "instant",
                "time": "observed_at",
                "target": "cnt",
                "features": {
                    "numeric": [
                        *("day", "hr", "temp", "atemp", "hum", "windspeed", "workingday", "holiday")
                    ],
                    "categorical": ["season", "mnth", "weekday", "weathersit"],
                },
                "window": "365d",
            },
            "train": {
                "candidates": [
                    {
                        "estimator": "sklearn.ensemble.HistGradientBoostingRegressor",
                        "search": {
                            "learning_rate": {"low": 0.05, "high": 0.2, "log": True},
                            "max_leaf_nodes": {"choices": [15, 31]},
                        },
                    }
                ],
                "tune": {"trials": 4, "folds": 3, "timeout": "5m"},
            },
            "evaluate": {
                "holdout": "5%",
                "primary": {"metric": "rmse", "promote": "better", "margin": 2.0},
            },
            "monitor": {
                "window": "7d",
                "min_rows": 100,
                "labels": {"delay": "1d"},
                "performance": {"metric": "rmse", "max_drop": 20.0},
            },
            "retrain": {"on": ["decay"], "cooldown": "14d"},
        }
    )


@dataclass
class Replay:
    """One life of the model: what it knew, what it said, what was decided."""

    spec: Spec
    data: Path
    store: Store
    folder: Path
    champion: LoadedModel | None = None
    reference: Reference | None = None
    last_training: datetime = FIRST
    history: list[dict[str, Any]] = field(default_factory=list)
    weeks: list[dict[str, Any]] = field(default_factory=list)
    trainings: list[dict[str, Any]] = field(default_factory=list)

    def train(self, rows: pd.DataFrame, now: datetime) -> None:
        """Train on what is known at `now`, and let the gate decide."""
        self.last_training = now
        for old in self.data.glob("*.parquet"):
            old.unlink()
        known = rows[rows.observed_at < now]
        pq.write_table(
            pa.Table.from_pandas(known, preserve_index=False), self.data / "bikes.parquet"
        )
        manifest = ingest(self.spec, self.store, now=now, workdir=self.folder / "work").manifest
        cutoff = self.champion.cutoff if self.champion else None
        split = plan_split(self.spec, self.store, manifest, not_before=cutoff)
        name, out = str(len(self.trainings) + 1), self.folder / f"version-{len(self.trainings) + 1}"
        tuned = tune(
            self.spec, self.store, manifest, split, 0,
            storage=f"sqlite:///{self.folder / 'optuna.db'}", study=f"bikes-{name}",
        )  # fmt: skip
        fitted = fit(self.spec, self.store, manifest, split, 0, tuned.best_params, out)
        challenger = LoadedModel(
            load_model(fitted.model_path, fitted.sha256),
            resolve_features(self.spec, manifest),
            fitted.classes,
            name,
            fitted.cutoff,
            split,
        )
        result = evaluate(
            self.spec, self.store, manifest, split, challenger, self.champion, out=out / "evaluate"
        )
        self.trainings.append(
            {"at": now, "version": name, "verdict": result.verdict, "reason": result.reason}
        )
        if result.verdict == "PROMOTE":
            self.champion, self.history = challenger, []
            self.reference = build_reference(
                self.spec, self.store, manifest, challenger, result.metrics, out / "reference"
            )

    def serve(self, rows: pd.DataFrame, live: LoadedModel) -> np.ndarray:
        """Predict a week, and log it as serving does."""
        said = predict(live, model_frame(rows, live.features), "regression", [])
        times = pa.array(rows.observed_at, pa.timestamp("us", tz="UTC"))
        keys = pa.array(rows.instant.astype(str))
        features = model_frame(rows, live.features)
        table = pa.table(
            {
                "_request_id": keys,
                "_row": pa.array(np.zeros(len(rows)), pa.int32()),
                "_key": keys,
                "_time": times,
                "_logged_at": times,
                "_version": pa.array([live.version] * len(rows)),
                "_arm": pa.array(["champion"] * len(rows)),
                "_prediction": pa.array([repr(float(value)) for value in said]),
                "_score": pa.array(said),
                "_probability": pa.nulls(len(rows), pa.list_(pa.float64())),
                "_latency_ms": pa.array(np.ones(len(rows))),
                "_error": pa.nulls(len(rows), pa.string()),
                **{name: pa.array(features[name], from_pandas=True) for name in features},
            }
        )
        write_part(self.store, "bikes", table)
        labels = {
            "request_id": pa.nulls(len(rows), pa.string()),
            "row": pa.nulls(len(rows), pa.int32()),
            "key": keys,
            "time": times,
            "label": pa.array([repr(float(value)) for value in rows.cnt]),
            "received_at": times,
        }
        write_labels(self.store, "bikes", pa.table(labels))
        return said

    def monitor(self, now: datetime) -> Any:
        """Run one pass of the monitor at `now`, and return what it decided and why."""
        if self.champion is None or self.reference is None:
            raise SystemExit("the first model must pass the gate")
        length, delay = self.spec.monitor.window, timedelta(days=1)
        live, ripe = latest_window(now, length), latest_window(now, length, delay=delay)
        out = self.folder / "monitor" / live.key
        version = self.champion.version
        seen = collect(self.spec, self.store, live, version, out=out / "live")
        judged = collect(self.spec, self.store, ripe, version, out=out / "ripe")
        labels = read_labels(self.store, "bikes", ripe.start, None)
        findings = (
            *check_quality(self.spec, seen.path, self.reference, live, now=now),
            *check_drift(self.spec, seen.path, self.reference),
            *check_performance(self.spec, judged.path, labels, self.reference),
        )
        outcome = decide(
            self.spec,
            findings,
            self.history,
            window=live.key,
            matured=ripe.key,
            matured_row=next((row for row in self.history if row["window"] == ripe.key), None),
        )
        self.history.append(
            {
                "window": live.key,
                "verdict": outcome.verdict,
                "drifts": outcome.drifts,
                "decays": outcome.decays,
                "broken": outcome.broken,
                "version": version,
            }
        )
        return outcome, findings


def read_rows(path: Path) -> pd.DataFrame:
    """Return the hours of both years with their time, in UTC for simplicity, oldest first."""
    rows = pd.read_csv(path)
    day = pd.to_datetime(rows.dteday, format="%m/%d/%y")
    rows["observed_at"] = (day + pd.to_timedelta(rows.hr, unit="h")).dt.tz_localize("UTC")
    rows["observed_at"] = rows.observed_at.dt.as_unit("us")
    rows["day"] = (day - day.min()).dt.days.astype(float)
    columns = [
        *("instant", "observed_at", "day", "hr", "temp", "atemp", "hum", "windspeed", "workingday"),
        *("holiday", "season", "mnth", "weekday", "weathersit", "cnt"),
    ]
    return rows[columns].sort_values("observed_at", ignore_index=True)


def rmse(said: np.ndarray, true: pd.Series) -> float:
    """Return the root mean squared error, in rentals an hour."""
    return float(np.sqrt(np.mean((said - true.to_numpy()) ** 2)))


def replay(rows: pd.DataFrame, folder: Path) -> tuple[Replay, LoadedModel]:
    """Train on 2011, then live through 2012; return the life and its first champion."""
    data = folder / "data"
    data.mkdir(parents=True)
    life = Replay(make_spec(data), data, open_store(str(folder / "store")), folder)
    life.train(rows, FIRST)
    if (first := life.champion) is None:
        raise SystemExit(f"the first model must pass the gate: {life.trainings}")
    start = latest_window(FIRST, life.spec.monitor.window).end
    while start + life.spec.monitor.window <= LAST:
        end = start + life.spec.monitor.window
        week = rows[(rows.observed_at >= max(start, FIRST)) & (rows.observed_at < end)]
        live = life.champion or first
        said = life.serve(week, live)
        frozen = predict(first, model_frame(week, first.features), "regression", [])
        outcome, findings = life.monitor(end + timedelta(days=1))
        drifted = [f.column for f in findings if f.check == "drift" and f.status == "alert"]
        life.weeks.append(
            {
                "start": max(start, FIRST),
                "version": live.version,
                "fresh": rmse(said, week.cnt),
                "frozen": rmse(frozen, week.cnt),
                "verdict": outcome.verdict,
                "decays": outcome.decays,
                "drifts": outcome.drifts,
                "drifted": drifted,
                "reason": outcome.reason,
            }
        )
        now = end + timedelta(days=1)
        if outcome.wishes and now - life.last_training >= life.spec.retrain.cooldown:
            life.train(rows, now)
        start = end
    return life, first


def draw(life: Replay, out: Path) -> None:
    """Draw the error of both lives, and what the monitor said, week by week."""
    weeks = pd.DataFrame(life.weeks)
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(10, 6), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    above.plot(weeks.start, weeks.frozen, color=GREY, label="trained once, on 2011")
    above.plot(weeks.start, weeks.fresh, color=GREEN, linewidth=2, label="kept fresh")
    marks = {"PROMOTE": (GREEN, "-", "promoted"), "HOLD": (RED, ":", "retrained, held")}
    shown = set()
    for training in life.trainings[1:]:
        color, style, label = marks.get(training["verdict"], (RED, ":", "retrained, rejected"))
        above.axvline(
            training["at"], color=color, linestyle=style, alpha=0.7,
            label=None if label in shown else label,
        )  # fmt: skip
        shown.add(label)
    above.set_ylabel("RMSE, rentals an hour")
    above.set_ylim(bottom=0)
    above.legend(frameon=False, loc="upper left")
    above.set_title("Capital Bikeshare 2012, week by week")
    counts = weeks.drifted.map(len)
    below.bar(weeks.start, counts, width=5, color=GREY, label="drifted features, of 12")
    decays = weeks[weeks.decays]
    below.plot(decays.start, [0.4] * len(decays), "v", color=RED, label="decay found")
    below.set_ylim(0, 13)
    below.set_yticks((0, 6, 12))
    below.set_ylabel("features")
    below.legend(frameon=False, loc="upper right", ncols=2)
    below.xaxis.set_major_formatter(mdates.DateFormatter("%b"))
    for axis in (above, below):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(out / "case-study-bikes.png", dpi=130)


def report(life: Replay) -> None:
    """Print the tables of the page."""
    weeks = pd.DataFrame(life.weeks)
    print("| trained at | version | verdict | why |\n|---|---|---|---|")
    for training in life.trainings:
        at: date = training["at"].date()
        print(f"| {at} | {training['version']} | {training['verdict']} | {training['reason']} |")
    weeks["quarter"] = pd.to_datetime(weeks.start).dt.quarter
    print("\n| 2012 | trained once | kept fresh | less error |\n|---|---|---|---|")
    parts = [(f"Q{quarter}", part) for quarter, part in weeks.groupby("quarter")]
    for name, part in [*parts, ("year", weeks)]:
        frozen, fresh = (np.sqrt((part[c] ** 2).mean()) for c in ("frozen", "fresh"))
        print(f"| {name} | {frozen:.1f} | {fresh:.1f} | {1 - fresh / frozen:.0%} |")
    print(f"\nweeks {len(weeks)}, decays {weeks.decays.sum()}, drifts {weeks.drifts.sum()}")
    for week in life.weeks:
        print(f"{week['start']:%Y-%m-%d} v{week['version']} {week['verdict']:<18} {week['reason']}")


def main() -> None:
    """Run the case study."""
    source = os.environ.get("EVERGREEN_REAL_DATA")
    if not source:
        raise SystemExit("EVERGREEN_REAL_DATA must be the folder with bike_hour.csv, got nothing.")
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    with tempfile.TemporaryDirectory() as folder:
        life, _ = replay(read_rows(Path(source) / "bike_hour.csv"), Path(folder))
    draw(life, out)
    report(life)


if __name__ == "__main__":
    main()
