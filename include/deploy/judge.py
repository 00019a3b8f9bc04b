"""The judge: may a challenger go on, must it wait, or must it stop? A pure function of evidence, rules and time.

It fails closed. What cannot be told is a reason to wait, and who waits longer than `patience` stops. What is plainly
beyond a limit stops at once, before the hold is over and before there are many rows: each limit is also tested
against chance, at a level low enough to be looked at again and again. Just beyond it is a reason to wait for more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import numpy as np
from scipy import stats

from include.deploy.evidence import Evidence, Side
from include.deploy.shift import Shift, of_classes, of_scores
from include.scoring.metrics import Floats
from include.spec.schema import Deploy, Primary

Verdict = Literal["GO", "WAIT", "STOP"]
ALPHA = 1e-3  # chance of stopping a good challenger at one look, for each limit
_RANK: dict[Verdict, int] = {"GO": 0, "WAIT": 1, "STOP": 2}
_TICK_MS = 1.0  # a difference nobody feels, and less than what clocks and neighbours add
_MEDIAN_REQUESTS, _TAIL_REQUESTS = 20, 100  # needed on each side for p50, for p95
_UNITS = 20  # different keys or requests needed on each side for predictions to be compared
_QUIET = 0.1  # the quickest tenth of requests: those nothing was in the way of
#: What a shadow must agree with the champion, of 1: a better version may say much otherwise, after the world has changed
#: above all; one that has nearly nothing to do with the champion has its columns or classes mixed up.
_LEAST_AGREEMENT = 0.2
_LEAST_MIRRORED = (
    0.9  # of the champion's live answers: those that were dropped are the ones of busy moments
)


@dataclass(frozen=True)
class Judgement:
    """What the judge said.

    Attributes:
        verdict: GO, WAIT or STOP.
        reason: Why, with its numbers, for people.
        numbers: All that was looked at, JSON values; None for what cannot be told.
    """

    verdict: Verdict
    reason: str
    numbers: dict[str, Any]


@dataclass(frozen=True)
class _Finding:
    verdict: Verdict
    text: str


def judge(
    evidence: Evidence,
    rules: Deploy,
    primary: Primary,
    *,
    age: timedelta,
    decides: bool = False,
) -> Judgement:
    """Judge one step.

    Args:
        evidence: Since the step began.
        rules: The spec's `deploy`.
        primary: The spec's deciding metric.
        age: How long the step has lasted.
        decides: Whether labels must say who is better: the end of an ab test that a rule decides.
    """
    numbers = measured(evidence)
    if evidence.problem:
        findings = [_Finding("WAIT", f"the prediction log cannot be read: {evidence.problem}")]
    else:
        findings = [
            _errors(evidence.challenger, rules),
            _traffic(evidence, rules),
            _latency(evidence, rules, numbers),
            _shift(evidence, rules, numbers),
            *(_pairs(evidence, primary) if evidence.paired else ()),
            _labels(evidence, primary, decides=decides),
        ]
    if age < rules.hold:
        left = max(1, round((rules.hold - age).total_seconds()))
        findings.append(_Finding("WAIT", f"the hold lasts {left} s more"))
    verdict = max((f.verdict for f in findings), key=lambda v: _RANK[v])
    reason = "; ".join(f.text for f in findings if f.verdict == verdict)
    if verdict == "WAIT" and age >= rules.patience:
        seconds = rules.patience.total_seconds()
        span = f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds:g} s"
        return Judgement("STOP", f"undecided after {span} (deploy.patience): {reason}", numbers)
    return Judgement(verdict, reason, numbers)


def measured(evidence: Evidence) -> dict[str, Any]:
    """Return the numbers of some evidence by name, those of shift and latency limits aside."""
    agreed = evidence.agreement
    found: dict[str, Any] = {
        "paired": evidence.paired,
        "agreement": None if agreed is None else _plain(agreed.value),
        "disagree": _plain(evidence.disagree),
        "mirrored": _plain(evidence.mirrored),
    }
    for name, side in (("champion", evidence.champion), ("challenger", evidence.challenger)):
        found[name] = {
            "requests": side.requests,
            "failures": side.failures,
            "rows": side.rows,
            "units": side.units,
            "p10_ms": _quantile(side.latencies, _QUIET),
            "p50_ms": _quantile(side.latencies, 0.5),
            "p95_ms": _quantile(side.latencies, 0.95),
        }
    if evidence.labels is not None:
        i = evidence.labels
        found["labels"] = {
            "metric": i.metric,
            "improvement": _plain(i.improvement),
            "low": _plain(i.low),
            "high": _plain(i.high),
            "rows": i.rows,
        }
    return found


# --- the limits ---------------------------------------------------------------------------------------------


def _errors(side: Side, rules: Deploy) -> _Finding:
    limit, n, k = rules.max_error_rate, side.requests, side.failures
    if not n:
        return _Finding("WAIT", "no request has reached the challenger")
    text = f"it failed on {k:,} of {n:,} requests ({k / n:.2%}), {limit:.2%} allowed"
    if _beyond(k, n, limit):
        return _Finding("STOP", text)
    if k / n > limit:
        return _Finding("WAIT", f"{text}, perhaps by chance")
    return _Finding("GO", text)


def _traffic(evidence: Evidence, rules: Deploy) -> _Finding:
    few = [
        f"{name} {side.rows:,}"
        for name, side in (("challenger", evidence.challenger), ("champion", evidence.champion))
        if side.rows < rules.min_rows
    ]
    if few:
        need = f"{rules.min_rows:,} are needed (deploy.min_rows)"
        return _Finding("WAIT", f"too little traffic: rows of {' and '.join(few)}, {need}")
    return _Finding("GO", f"{evidence.challenger.rows:,} rows")


def _latency(evidence: Evidence, rules: Deploy, numbers: dict[str, Any]) -> _Finding:
    theirs, ours = evidence.champion.latencies, evidence.challenger.latencies
    if evidence.paired and evidence.champion.rows and not len(theirs):
        return _Finding("GO", "only batches were scored, nobody waited")
    if min(len(theirs), len(ours)) < _MEDIAN_REQUESTS:
        return _Finding("WAIT", f"latency needs {_MEDIAN_REQUESTS} requests on each side")
    quantiles = [("p50", 0.5, _MEDIAN_REQUESTS), ("p95", 0.95, _TAIL_REQUESTS)]
    if evidence.paired:
        # The champion's latency has the wait for its turn in it, a shadow's is its computing alone. Where nothing was
        # in the champion's way the two are alike; the others can only speak against the shadow.
        quantiles.insert(0, ("p10", _QUIET, _MEDIAN_REQUESTS))
    worst, texts = _Finding("GO", ""), []
    for name, share, least in quantiles:
        if min(len(theirs), len(ours)) < least:
            continue
        finding = _slower(theirs, ours, name, share, rules.max_latency_ratio, numbers)
        texts.append(finding.text)
        worst = max(worst, finding, key=lambda f: _RANK[f.verdict])
    return worst if worst.verdict != "GO" else _Finding("GO", ", ".join(texts))


def _slower(
    theirs: Floats, ours: Floats, name: str, share: float, ratio: float, numbers: dict[str, Any]
) -> _Finding:
    """Compare one quantile; slower requests than allowed are counted as failures are."""
    before, now = (float(np.quantile(side, share, method="higher")) for side in (theirs, ours))
    limit = ratio * before + _TICK_MS
    numbers[f"{name}_limit_ms"] = _plain(limit)
    text = f"{name} {now:.3g} ms, the champion's {before:.3g} ms, {limit:.3g} ms allowed"
    if not (math.isfinite(now) and math.isfinite(limit)):
        return _Finding("WAIT", f"{name} cannot be told")
    if _beyond(int((ours > limit).sum()), len(ours), 1 - share):
        return _Finding("STOP", text)
    return _Finding("WAIT", f"{text}, perhaps by chance") if now > limit else _Finding("GO", text)


def _shift(evidence: Evidence, rules: Deploy, numbers: dict[str, Any]) -> _Finding:
    theirs, ours = evidence.champion, evidence.challenger
    if not theirs.rows or not ours.rows:
        return _Finding("WAIT", "no predictions to compare")
    if evidence.paired:  # the same rows: what differs is the versions, not who was asked
        found = _difference(theirs, ours, (theirs.rows, ours.rows))
        value, sure = found.psi, min(theirs.rows, ours.rows) >= rules.min_rows
    else:
        units = (min(theirs.units, theirs.rows), min(ours.units, ours.rows))
        if min(units) < _UNITS:
            few = f"of {min(units)} different keys or requests, {_UNITS} are needed"
            return _Finding("WAIT", f"predictions {few}")
        found = _difference(theirs, ours, units)
        value, sure = found.beyond_chance, found.chance < ALPHA
    numbers["shift"] = {
        "psi": _plain(found.psi),
        "by_chance": _plain(0.0 if evidence.paired else found.expected),
        "chance": _plain(found.chance),
    }
    text = f"its predictions differ by PSI {value:.3f}, {rules.max_shift:g} allowed"
    if not math.isfinite(value):
        return _Finding("WAIT", "how predictions differ cannot be told")
    if value <= rules.max_shift:
        return _Finding("GO", text)
    return _Finding("STOP", text) if sure else _Finding("WAIT", f"{text}, perhaps by chance")


def _pairs(evidence: Evidence, primary: Primary) -> list[_Finding]:
    """Compare what both said about the same rows, and tell whether those are nearly all there were."""
    findings = []
    if evidence.mirrored is not None and evidence.mirrored < _LEAST_MIRRORED:
        few = f"it saw {evidence.mirrored:.1%} of the champion's live requests"
        findings.append(_Finding("WAIT", f"{few}, {_LEAST_MIRRORED:.0%} are needed"))
    agreed, labels = evidence.agreement, evidence.labels
    if agreed is None or not math.isfinite(agreed.value):
        return [*findings, _Finding("WAIT", "whether it agrees with the champion cannot be told")]
    text = f"it agrees with the champion by {agreed.value:.2f}, {_LEAST_AGREEMENT:g} needed"
    if agreed.value >= _LEAST_AGREEMENT:
        return [*findings, _Finding("GO", text)]
    if labels is not None and labels.low > -primary.margin:
        return [*findings, _Finding("GO", f"{text}, but by the labels it is no worse")]
    if agreed.value + stats.norm.isf(ALPHA) * agreed.error < _LEAST_AGREEMENT:
        return [*findings, _Finding("STOP", text)]
    return [*findings, _Finding("WAIT", f"{text}, perhaps by chance")]


def _difference(theirs: Side, ours: Side, units: tuple[int, int]) -> Shift:
    if len(theirs.scores) and len(ours.scores):
        return of_scores(theirs.scores, ours.scores, units)
    if theirs.classes and ours.classes:
        return of_classes(theirs.classes, ours.classes, units)
    return Shift(math.inf, 0.0, 0.0)  # one of the two has no scores where the other has


def _labels(evidence: Evidence, primary: Primary, *, decides: bool) -> _Finding:
    found = evidence.labels
    if found is None:
        why = evidence.doubt or "no labels"
        return _Finding("WAIT" if decides else "GO", f"{primary.metric} cannot be told: {why}")
    text = (
        f"{found.metric} improves by {found.improvement:.4g} on {found.rows:,} labelled rows "
        f"(interval {found.low:.4g} to {found.high:.4g})"
    )
    if math.isnan(found.low) or math.isnan(found.high):
        return _Finding("WAIT", f"{text}: cannot be told")
    if found.high < -primary.margin:
        return _Finding("STOP", f"{text}: it is worse")
    if not decides:
        return _Finding("GO", text)
    bound = primary.margin if primary.promote == "better" else -primary.margin
    if found.low > bound:
        return _Finding("GO", text)
    if found.high < bound:
        return _Finding("STOP", f"{text}: not above {bound:+g}")
    return _Finding("WAIT", f"{text}: in doubt, must lie above {bound:+g}")


def _beyond(hits: int, number: int, share: float) -> bool:
    """Tell whether so many hits can hardly be if each has at most this chance (exact binomial test)."""
    return bool(stats.binom.sf(hits - 1, number, share) < ALPHA)


def _quantile(values: Floats, share: float) -> float | None:
    return _plain(float(np.quantile(values, share, method="higher"))) if len(values) else None


def _plain(value: float | None) -> float | None:
    """Return a number that JSON can hold."""
    return None if value is None or not math.isfinite(value) else round(float(value), 6)
