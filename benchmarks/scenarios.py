"""What the monitor makes of eight scenarios, twenty seeds each: detected, how late, and how often for nothing.

    python benchmarks/scenarios.py                                     # the whole table
    python benchmarks/scenarios.py --scenarios calm,spike --seeds 3 --show

Each play takes `include/models/churn.yaml` through the real stages in this process, without Airflow, MLflow and HTTP:
ingest, validate, fit (logistic regression, untuned), gate, prediction log, labels, every check of the monitor, its
decision, the ledger's arbiter. What the serving process would refuse is refused here by the same rules.

Targets: concept drift and covariate shift detected within 3 windows in at least 95 %; at most 1 false retrain per 100
windows of calm and of seasonal; schema_break and null_burst found in their first window, and never a retrain then.
"""

# ruff: noqa: E402  threads and the path are set before anything is imported

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pandas as pd
import pyarrow as pa

from include.errors import EvergreenError
from include.evaluate.evaluate import evaluate
from include.ingest.ingest import ingest
from include.ledger.ledger import Ledger
from include.monitor.collect import collect
from include.monitor.decide import decide
from include.monitor.drift import check_drift
from include.monitor.findings import QUALITY, Finding
from include.monitor.performance import check_performance
from include.monitor.quality import check_quality
from include.monitor.reference import Reference, build_reference
from include.monitor.windows import Window, latest_window
from include.registry.trust import load_model
from include.scoring.model import LoadedModel, predict
from include.serving.columns import Schema
from include.serving.rejection import RequestError
from include.simulator.batches import write_batch
from include.simulator.plan import Plan, make_plan, midnight
from include.simulator.play import Asked, play
from include.simulator.progress import Progress
from include.simulator.scenarios import KEY, SCENARIOS, TARGET, TIME
from include.spec.loader import load_spec
from include.spec.schema import Candidate, Spec
from include.spec.sources import FileSource
from include.store.features import category_texts, model_frame, resolve_features
from include.store.files import open_store
from include.store.labels import read_labels, write_labels
from include.store.predictions import prediction_schema, write_part
from include.store.snapshots import Manifest
from include.store.split import plan_split
from include.train.fit import fit
from include.validate.stage import validate

TODAY, DAYS = date(2026, 11, 19), 84  # twelve whole windows of a week
WITHIN, DETECTED, FALSE_RETRAINS = 3, 0.95, 1.0


@dataclass
class Champion:
    """The version that serves."""

    model: LoadedModel
    schema: Schema
    manifest: Manifest
    reference: Reference
    cutoff: str | None


@dataclass
class Judged:
    """What the monitor made of one window, and what came of it."""

    window: str
    verdict: str
    reason: str
    broken: bool
    alarms: list[str]
    retrain: str = ""  # why a training run began; empty where none did
    outcome: str = ""  # the gate's verdict, or why there was none


@dataclass
class Bench:
    """A stage of `include.simulator.play` inside this process."""

    spec: Spec
    plan: Plan
    folder: Path
    judged: list[Judged] = field(default_factory=list)
    champion: Champion | None = None
    versions: int = 0
    rows: int = 0  # of the window looked at

    def __post_init__(self) -> None:
        self.store = open_store(str(self.folder / "store"))
        self.ledger = Ledger(f"sqlite:///{self.folder / 'ledger.db'}")

    # --- upstream, live traffic, labels -----------------------------------------------------------

    def deliver(self, day: date, batch: pd.DataFrame) -> None:
        write_batch(self.folder / "data", day, batch)

    def ask(self, day: date, rows: pd.DataFrame) -> Asked:
        assert self.champion is not None
        schema, model = self.champion.schema, self.champion.model
        plain = rows.drop(columns=[KEY, TIME])
        try:
            schema.check_names(list(plain), "input")
            for name in schema.names:
                values = [None if v != v else v for v in plain[name].tolist()]
                schema.column(name, values, "input")
        except RequestError:
            return Asked(len(rows), len(rows))
        frame = model_frame(plain, model.features)
        scores = predict(model, frame, self.spec.task, model.classes)
        columns: dict[str, Any] = {
            "_request_id": [f"{day}-{n}" for n in range(len(rows))],
            "_row": [0] * len(rows),
            "_key": rows[KEY].tolist(),
            "_time": rows[TIME].tolist(),
            "_logged_at": rows[TIME].tolist(),
            "_version": [model.version] * len(rows),
            "_arm": ["champion"] * len(rows),
            "_prediction": [str(model.classes[int(s > 0.5)]) for s in scores],
            "_score": scores,
            "_probability": [[1 - s, s] for s in scores],
            "_latency_ms": [1.0] * len(rows),
            "_error": [None] * len(rows),
        }
        columns |= {name: frame[name].to_numpy("float64") for name in model.features.numeric}
        columns |= {name: category_texts(frame[name]) for name in model.features.categorical}
        kinds = prediction_schema(model.features.numeric, model.features.categorical)
        arrays = [pa.array(columns[f.name], f.type, from_pandas=True) for f in kinds]
        write_part(self.store, self.plan.model, pa.Table.from_arrays(arrays, schema=kinds))
        return Asked(len(rows), 0)

    def tell(self, labels: pd.DataFrame) -> None:
        n = len(labels)
        known = pa.table(
            {
                "request_id": pa.nulls(n, pa.string()),
                "row": pa.nulls(n, pa.int32()),
                "key": pa.array(labels[KEY], pa.string()),
                "time": pa.array(labels[TIME], pa.timestamp("us", tz="UTC")),
                "label": pa.array(labels[TARGET].astype(str), pa.string()),
                "received_at": pa.array(labels[TIME], pa.timestamp("us", tz="UTC")),
            }
        )
        write_labels(self.store, self.plan.model, known)

    def settle(self, start: datetime, end: datetime, rows: int) -> None:
        """Nothing: the log is written at once."""

    # --- training ---------------------------------------------------------------------------------

    def train(self, run_id: str, as_of: datetime) -> None:
        del run_id
        outcome = self._train(as_of)
        if self.champion is None:
            raise RuntimeError(f"the first training of {self.plan.world} was refused: {outcome}")

    def _train(self, as_of: datetime) -> str:
        """Train as the Dag does; return the verdict, or what ended the run."""
        spec, store, was = self.spec, self.store, self.champion
        work = self.folder / f"run-{self.versions}-{as_of:%Y%m%d}"
        try:
            expected = was.manifest if was else None
            manifest = ingest(
                spec, store, now=as_of, as_of=as_of, expected=expected, workdir=work / "work"
            ).manifest
            checked = validate(
                spec, store, manifest, now=as_of, out=work / "validate", reference=expected
            )
            if not checked.ok:
                return "refused"
            split = plan_split(spec, store, manifest, not_before=was.cutoff if was else None)
            fitted = fit(spec, store, manifest, split, 0, {}, work / "fit")
            challenger = LoadedModel(
                load_model(fitted.model_path, fitted.sha256),
                fitted.features,
                fitted.classes,
                str(self.versions + 1),
                fitted.cutoff,
                split,
            )
            rival = was.model if was else None
            result = evaluate(spec, store, manifest, split, challenger, rival, out=work / "gate")
        except EvergreenError as error:
            return f"failed: {error}"
        if result.verdict == "PROMOTE":
            self.versions += 1
            reference = build_reference(
                spec, store, manifest, challenger, result.metrics, work / "reference"
            )
            schema = Schema(resolve_features(spec, manifest), manifest.types)
            self.champion = Champion(challenger, schema, manifest, reference, fitted.cutoff)
        return result.verdict

    # --- monitor ----------------------------------------------------------------------------------

    def monitor(self, run_id: str, as_of: datetime) -> None:
        del run_id
        assert self.champion is not None
        assert self.spec.monitor.labels is not None
        window = latest_window(as_of, self.spec.monitor.window)
        matured = latest_window(
            as_of, self.spec.monitor.window, delay=self.spec.monitor.labels.delay
        )
        version = self.champion.model.version
        events = self.ledger.events(self.plan.model, "monitor")
        history = [e.payload for e in events if e.payload["version"] == version]
        findings = [*self._look(window, version, as_of, history), *self._score(matured, version)]
        outcome = decide(
            self.spec,
            findings,
            history,
            window=window.key,
            matured=matured.key,
            matured_row=next((p for p in history if p["window"] == matured.key), None),
        )
        self.ledger.record(
            self.plan.model,
            "monitor",
            f"monitor/{version}/{window.key}",
            {
                "window": window.key,
                "version": version,
                "verdict": outcome.verdict,
                "reason": outcome.reason,
                "drifts": outcome.drifts,
                "decays": outcome.decays,
                "broken": outcome.broken,
                "rows": self.rows,
            },
            "bench",
            as_of,
        )
        judged = Judged(
            window.key,
            outcome.verdict,
            outcome.reason,
            outcome.broken,
            sorted({f.check for f in findings if f.status == "alert"}),
        )
        self.judged.append(judged)
        for wish in outcome.wishes:
            key = f"{wish.source}/{version}/{window.key}"
            self.ledger.request(self.plan.model, wish.source, wish.reason, key, {}, as_of)
        if outcome.wishes:
            self._retrain(
                judged, outcome.wishes[0].source, f"retrain__{version}__{window.key}", as_of
            )

    def _look(
        self, window: Window, version: str, now: datetime, history: Sequence[dict[str, Any]]
    ) -> list[Finding]:
        assert self.champion is not None
        collected = collect(
            self.spec, self.store, window, version, out=self.folder / "monitor" / window.key
        )
        self.rows = collected.rows
        counts = [int(p["rows"]) for p in history]
        return [
            *check_quality(
                self.spec,
                collected.path,
                self.champion.reference,
                window,
                now=now,
                history=counts,
            ),
            *check_drift(self.spec, collected.path, self.champion.reference),
        ]

    def _score(self, matured: Window, version: str) -> list[Finding]:
        assert self.champion is not None
        assert self.spec.monitor.labels is not None
        out = self.folder / "monitor" / f"matured-{matured.key}"
        collected = collect(self.spec, self.store, matured, version, out=out)
        labels = read_labels(
            self.store,
            self.plan.model,
            matured.start,
            matured.end + self.spec.monitor.labels.delay,
        )
        return list(check_performance(self.spec, collected.path, labels, self.champion.reference))

    def _retrain(self, judged: Judged, source: str, run: str, now: datetime) -> None:
        decision = self.ledger.decide(
            self.plan.model, run_key=run, trigger=source, spec_retrain=self.spec.retrain, now=now
        )
        if decision.verdict != "RETRAIN":
            judged.outcome = decision.reason
            return
        judged.retrain = source
        judged.outcome = self._train(now)
        verdict = {"verdict": judged.outcome, "reason": "", "run": run}
        self.ledger.record(self.plan.model, "verdict", f"verdict/{run}", verdict, run, now)


# --- one play -------------------------------------------------------------------------------------------


def run(task: tuple[str, int, int]) -> dict[str, Any]:
    """Play one scenario with one seed; return what the monitor made of each window."""
    scenario, seed, days = task
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="evergreen-scenarios-") as name:
        folder = Path(name)
        spec = load_spec(ROOT / "include" / "models" / "churn.yaml")
        source = FileSource(kind="file", path=str(folder / "data" / "*.parquet"))
        one = Candidate(
            estimator="sklearn.linear_model.LogisticRegression", params={"max_iter": 500}
        )
        spec = spec.model_copy(
            update={
                "ingest": spec.ingest.model_copy(update={"source": source}),
                "train": spec.train.model_copy(update={"candidates": (one,)}),
            }
        )
        plan = make_plan(spec, scenario, today=TODAY, days=days, seed=seed)
        bench = Bench(spec, plan, folder)
        play(plan, Progress.begin(folder / "progress.json", plan), bench)
    onset = f"{midnight(plan.world.onset):%Y%m%dT%H%M%SZ}"
    return {
        "scenario": scenario,
        "seed": seed,
        "onset": onset,
        "judged": [asdict(j) for j in bench.judged],
        "seconds": time.perf_counter() - started,
    }


# --- the table ------------------------------------------------------------------------------------------


def row(scenario: str, plays: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sum up the plays of one scenario."""
    found: dict[str, Any] = {"scenario": scenario, "plays": len(plays)}
    delays, first, false, windows, right = [], 0, 0, 0, 0
    for one in plays:
        after = [j for j in one["judged"] if j["window"] >= one["onset"]]
        delay = next((n for n, j in enumerate(after, 1) if j["retrain"]), None)
        if SCENARIOS[scenario].drifts:
            delays.append(delay)
        first += bool(set(after[0]["alarms"]) & QUALITY)
        for judged in one["judged"]:
            calm = not SCENARIOS[scenario].drifts or judged["window"] < one["onset"]
            windows += calm
            false += bool(judged["retrain"]) and calm
            right += judged["outcome"] == "PROMOTE" and not calm
    found |= {
        "detected": None if not delays else sum(d is not None and d <= WITHIN for d in delays),
        "delay": sorted(d for d in delays if d is not None),
        "first_window": first,
        "false": false,
        "windows": windows,
        "promoted": right,
    }
    return found


def verdict(found: dict[str, Any]) -> str:
    """Say whether a scenario's target is met."""
    name, plays = found["scenario"], found["plays"]
    if SCENARIOS[name].drifts:
        return "met" if found["detected"] >= DETECTED * plays else "MISSED"
    if name in ("schema_break", "null_burst"):
        return "met" if found["first_window"] == plays and not found["false"] else "MISSED"
    if name in ("calm", "seasonal"):
        return "met" if found["false"] <= FALSE_RETRAINS * found["windows"] / 100 else "MISSED"
    return "-"


def report(plays: Sequence[dict[str, Any]]) -> None:
    """Print the table."""
    header = f"{'scenario':<16}{'plays':>6}{'detected':>10}{'delay':>12}{'quality at once':>17}"
    print(f"{header}{'false retrains':>16}{'per 100':>9}{'promoted':>10}  target")
    for scenario in dict.fromkeys(p["scenario"] for p in plays):
        found = row(scenario, [p for p in plays if p["scenario"] == scenario])
        delay = found["delay"]
        spread = "-" if not delay else f"{delay[len(delay) // 2]} ({delay[0]}-{delay[-1]})"
        detected = "-" if found["detected"] is None else f"{found['detected'] / found['plays']:.0%}"
        print(
            f"{scenario:<16}{found['plays']:>6}{detected:>10}{spread:>12}"
            f"{found['first_window'] / found['plays']:>17.0%}{found['false']:>10} of {found['windows']:<3}"
            f"{100 * found['false'] / max(1, found['windows']):>8.1f}{found['promoted']:>10}  {verdict(found)}"
        )


def show(play: dict[str, Any]) -> None:
    """Print one play window by window."""
    print(f"{play['scenario']} seed {play['seed']}, onset {play['onset']}, {play['seconds']:.1f} s")
    for judged in play["judged"]:
        mark = "*" if judged["window"] >= play["onset"] else " "
        asked = f" -> {judged['retrain']}: {judged['outcome']}" if judged["retrain"] else ""
        print(f" {mark}{judged['window']} {judged['verdict']:<18}{judged['reason'][:150]}{asked}")


def main() -> None:
    """Play every scenario with every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--show", action="store_true", help="print every window")
    parser.add_argument("--json", type=Path, help="also write what was found to this file")
    parser.add_argument("--read", type=Path, nargs="+", help="only print the table of such files")
    args = parser.parse_args()
    if args.read:
        report([play_ for path in args.read for play_ in json.loads(path.read_text())])
        return
    tasks = [(s, n, args.days) for s in args.scenarios.split(",") for n in range(args.seeds)]
    started, plays = time.perf_counter(), []
    with ProcessPoolExecutor(args.processes) as pool:
        for play_ in pool.map(run, tasks):
            plays.append(play_)
            if args.show:
                show(play_)
            else:
                print(f"\r{len(plays)} of {len(tasks)} plays", end="", file=sys.stderr, flush=True)
    if args.json:
        args.json.write_text(json.dumps(plays, indent=1))
    print(f"\n{args.days} days, {args.seeds} seeds, {time.perf_counter() - started:.0f} s\n")
    report(plays)


if __name__ == "__main__":
    main()
