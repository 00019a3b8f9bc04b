"""The evaluate stage: score challenger, champion and baseline on the holdout, judge, and write it down.

Owns the order of things. Who is scored on which rows is in `include.evaluate.trial`, the rules in `gate`, the
numbers in `metrics` and `bootstrap`, the files in `report` and `plots`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from include.evaluate.gate import Verdict, judge
from include.evaluate.holdout import load_holdout
from include.evaluate.plots import Drawing, draw
from include.evaluate.report import Report, finite, write_json, write_markdown
from include.evaluate.trial import check_cutoff, columns, evidence_of, legacy_of, run_trial
from include.scoring.model import LoadedModel
from include.spec.schema import Spec
from include.store.files import Store
from include.store.snapshots import Manifest
from include.store.split import Split


@dataclass(frozen=True)
class EvaluateResult:
    """What the gate decided, and the files that say why.

    Attributes:
        verdict: PROMOTE, HOLD, REJECT or NEEDS_APPROVAL.
        reason: One sentence with numbers.
        metrics: The challenger's defined scores.
        champion_metrics: The champion's defined scores; None without one, or when it could not be scored.
        verdict_json: Everything, for programs.
        verdict_md: The same on a page.
        plots: PNG files.
    """

    verdict: Verdict
    reason: str
    metrics: dict[str, float]
    champion_metrics: dict[str, float] | None
    verdict_json: Path
    verdict_md: Path
    plots: tuple[Path, ...]


def evaluate(
    spec: Spec,
    store: Store,
    manifest: Manifest,
    split: Split,
    challenger: LoadedModel,
    champion: LoadedModel | None,
    *,
    out: Path,
    legacy: tuple[Manifest, Split] | None = None,
) -> EvaluateResult:
    """Judge a challenger on the holdout of a snapshot.

    Safe to repeat: the same input gives the same verdict and overwrites the same files; `verdict.json` is
    written last.

    Args:
        spec: The model's spec; its `train.seed` seeds the bootstrap.
        store: Where the snapshot is.
        manifest: The snapshot.
        split: Its holdout, with a cutoff not before any model's.
        challenger: The version on trial.
        champion: The version that serves; None for a first model.
        out: Folder for `verdict.json`, `verdict.md` and `plots/`.
        legacy: Snapshot and split the champion was judged on; None when there is none.

    Raises:
        ModelError: A version may have trained on the holdout, or the challenger cannot predict.
        DataError: The snapshot lacks the target or a feature of the challenger, or targets are missing.
    """
    watch = _Watch()
    for model in (challenger, champion):
        check_cutoff(spec, split, model)
    holdout = load_holdout(spec, store, manifest, split, columns(spec, challenger, champion))
    watch.lap("load")
    trial = run_trial(spec, holdout, split, challenger, champion)
    watch.lap("predict")
    evidence, samples = evidence_of(spec, holdout, trial, champion)
    watch.lap("bootstrap")
    del holdout
    if legacy is not None and champion is not None:
        old = legacy_of(spec, store, legacy, split, challenger, champion)
        evidence = replace(evidence, legacy=old)
        watch.lap("legacy")
    judgement = judge(spec, evidence)
    drawing = Drawing(
        spec.task, spec.primary, trial.y, trial.classes, trial.challenger, trial.champion, samples
    )
    out.mkdir(parents=True, exist_ok=True)
    plots = draw(drawing, out / "plots")
    watch.lap("plots")
    report = Report(spec, manifest, split, challenger.version, evidence, judgement, watch.seconds)
    page = write_markdown(report, out / "verdict.md")
    return EvaluateResult(
        verdict=judgement.verdict,
        reason=judgement.reason,
        metrics=finite(evidence.challenger),
        champion_metrics=None if evidence.champion is None else finite(evidence.champion),
        verdict_json=write_json(report, out / "verdict.json"),
        verdict_md=page,
        plots=plots,
    )


class _Watch:
    """Seconds of each part, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] = now - self._last
        self._last = now
