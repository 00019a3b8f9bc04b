"""The gate: from numbers to a verdict, failing closed.

Pure: no files, no models, no clock. Every rule gives checks; a check that cannot be computed has failed.

==================  ==================================================================================
verdict             when
==================  ==================================================================================
``HOLD``            there are too few rows; or something needed could not be computed (an undefined
                    score, a champion that could not be scored, a missing slice column); or nothing
                    failed except that the challenger is not shown to be better (the interval
                    straddles what it must clear)
``REJECT``          with enough rows: a minimum, the trivial baseline, a guardrail, a slice or the
                    guarded old holdout fails, the predictions are not finite, or the challenger is
                    significantly worse than the champion (the interval lies below -margin)
``NEEDS_APPROVAL``  every check passed and the spec wants a person's yes
``PROMOTE``         every check passed and approval is automatic
==================  ==================================================================================

The baseline must be beaten by the same paired bootstrap: the interval above +margin where the spec says
`better`, above zero where it says `not_worse` (a tolerance towards the champion is none towards a constant).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from include.evaluate.evidence import Evidence, Scores, SliceScore
from include.scoring.bootstrap import improvement
from include.spec.metrics import HIGHER_IS_BETTER
from include.spec.schema import Slice, Spec

Verdict = Literal["PROMOTE", "HOLD", "REJECT", "NEEDS_APPROVAL"]

_ROUNDING = 1e-9  # relative difference of two scores that is floating point, not a finding


@dataclass(frozen=True)
class Check:
    """One rule and what became of it.

    Attributes:
        name: Dotted, such as `minimum.roc_auc`.
        passed: Whether the rule holds.
        observed: The number looked at; None when there is none.
        required: What it must be, such as `>= 0.7`.
        sentence: Rule and finding for a person, without a final full stop.
        otherwise: The verdict this check asks for when it fails.
    """

    name: str
    passed: bool
    observed: float | None
    required: str
    sentence: str
    otherwise: Literal["HOLD", "REJECT"] = "HOLD"


@dataclass(frozen=True)
class Judgement:
    """The verdict, its reason in one sentence, and every check."""

    verdict: Verdict
    reason: str
    checks: tuple[Check, ...]


def judge(spec: Spec, evidence: Evidence) -> Judgement:
    """Decide about a challenger; see the module for the rules.

    Args:
        spec: Its `evaluate` section has the rules, its `register` section the kind of approval.
        evidence: The scores.

    Returns:
        PROMOTE and NEEDS_APPROVAL only when every check passed.
    """
    rules: tuple[Callable[[Spec, Evidence], Iterator[Check]], ...] = (
        _rows,
        _predictions,
        _minimums,
        _beats_baseline,
        _beats_champion,
        _guardrails,
        _slices,
        _legacy,
    )
    checks = tuple(check for rule in rules for check in rule(spec, evidence))
    verdict = _verdict(spec, checks)
    return Judgement(verdict, _reason(verdict, checks, evidence), checks)


def _verdict(spec: Spec, checks: tuple[Check, ...]) -> Verdict:
    failed = {c.name: c for c in checks if not c.passed}
    if not failed:
        return "PROMOTE" if spec.register_.approval == "auto" else "NEEDS_APPROVAL"
    too_few = "rows" in failed
    rejected = any(c.otherwise == "REJECT" for c in failed.values())
    return "REJECT" if rejected and not too_few else "HOLD"


def _reason(verdict: Verdict, checks: tuple[Check, ...], evidence: Evidence) -> str:
    failed = [c for c in checks if not c.passed]
    if failed:
        first = next((c for c in failed if c.otherwise == verdict), failed[0])
        more = f" ({len(failed) - 1} more of {len(checks)} checks failed)" if failed[1:] else ""
        return f"{first.sentence}{more}."
    decisive = next(c for c in reversed(checks) if c.name in ("champion", "baseline"))
    who = "first model, " if evidence.champion_version is None else ""
    passed = f"all {len(checks)} checks passed on {evidence.rows:,} rows"
    return f"{who}{decisive.sentence}; {passed}."


# --- rules ----------------------------------------------------------------------------------------------


def _rows(spec: Spec, evidence: Evidence) -> Iterator[Check]:
    least = spec.evaluate.min_rows
    enough = evidence.rows >= least
    sentence = f"the holdout has {evidence.rows:,} rows, {least:,} are needed"
    yield Check("rows", enough, evidence.rows, f">= {least}", sentence)


def _predictions(_: Spec, evidence: Evidence) -> Iterator[Check]:
    if evidence.challenger_problem:
        sentence = f"the challenger {evidence.challenger_problem}"
        yield Check("predictions", False, None, "finite", sentence, "REJECT")


def _minimums(spec: Spec, evidence: Evidence) -> Iterator[Check]:
    for metric, bound in sorted(spec.evaluate.minimum.items()):
        name, value = f"minimum.{metric}", evidence.challenger.get(metric, math.nan)
        up = HIGHER_IS_BETTER[metric]
        required = f"{'>=' if up else '<='} {bound:g}"
        if not math.isfinite(value):
            yield _undefined(name, metric, required, evidence.rows)
            continue
        words = f"{metric} is {number(value)}, must be at {'least' if up else 'most'} {bound:g}"
        passed = value >= bound if up else value <= bound
        yield Check(name, passed, value, required, words, "REJECT")


def _beats_baseline(spec: Spec, evidence: Evidence) -> Iterator[Check]:
    primary = spec.primary
    bound = primary.margin if primary.promote == "better" else 0.0
    check, low = _above("baseline", spec, evidence, evidence.baseline, bound)
    yield check if low is None else replace(check, otherwise="REJECT")


def _beats_champion(spec: Spec, evidence: Evidence) -> Iterator[Check]:
    if evidence.champion_version is None:
        return
    primary = spec.primary
    bound = primary.margin if primary.promote == "better" else -primary.margin
    if evidence.champion_failure or evidence.champion is None:
        why = evidence.champion_failure or "it has no scores"
        sentence = f"champion version {evidence.champion_version} could not be scored: {why}"
        yield Check("champion", False, None, f"> {bound:g}", sentence.rstrip(". "))
        return
    check, low = _above("champion", spec, evidence, evidence.champion, bound)
    found = evidence.against_champion
    worse = low is not None and found is not None and found.high < -primary.margin
    yield replace(check, otherwise="REJECT") if worse else check


def _above(
    name: Literal["baseline", "champion"],
    spec: Spec,
    evidence: Evidence,
    scores: Scores,
    bound: float,
) -> tuple[Check, float | None]:
    """Check that the interval of the improvement lies above a bound; also return its lower end if known."""
    metric = spec.primary.metric
    found = evidence.against_baseline if name == "baseline" else evidence.against_champion
    mine = evidence.challenger.get(metric, math.nan)
    theirs = scores.get(metric, math.nan)
    whose = "the trivial baseline" if name == "baseline" else f"version {evidence.champion_version}"
    required = f"> {bound:g}"
    if found is None or not (math.isfinite(mine) and math.isfinite(theirs)):
        return _undefined(name, metric, required, evidence.rows), None
    if not all(map(math.isfinite, (found.improvement, found.low, found.high))):
        sentence = (
            f"the interval of {metric} against {whose} cannot be told: "
            f"{found.undefined:,} of {found.resamples:,} resamples leave it undefined"
        )
        return Check(name, False, None, required, sentence), None
    passed = found.low > bound + _ROUNDING * max(abs(mine), abs(theirs))
    sentence = (
        f"{metric} {number(mine)} against {number(theirs)} of {whose}, "
        f"{found.confidence * 100:g}% interval of the improvement {number(found.low)} to {number(found.high)}, "
        f"must lie above {bound:g}"
    )
    return Check(name, passed, found.low, required, sentence), found.low


def _guardrails(spec: Spec, evidence: Evidence) -> Iterator[Check]:
    if evidence.champion_version is None or evidence.champion is None:
        return
    for metric, rule in sorted(spec.evaluate.guardrails.items()):
        yield _no_regression(
            f"guardrail.{metric}",
            metric,
            evidence.challenger.get(metric, math.nan),
            evidence.champion.get(metric, math.nan),
            rule.max_regression,
            evidence.rows,
        )


def _slices(spec: Spec, evidence: Evidence) -> Iterator[Check]:
    for rule in spec.evaluate.slices:
        found = [s for s in evidence.slices if s.column == rule.column]
        if not found:
            sentence = f"the slice column {rule.column!r} has no values on the holdout"
            yield Check(
                f"slice.{rule.column}", False, None, f"<= {rule.max_regression:g}", sentence
            )
        elif evidence.champion_version is not None and evidence.champion is not None:
            yield from _slice_values(spec.primary.metric, rule, found)


def _slice_values(metric: str, rule: Slice, found: list[SliceScore]) -> Iterator[Check]:
    for part in found:
        if part.rows >= rule.min_rows:
            theirs = math.nan if part.champion is None else part.champion
            where = f"{part.column}={part.value}"
            yield _no_regression(
                f"slice.{where}",
                metric,
                part.challenger,
                theirs,
                rule.max_regression,
                part.rows,
                f" where {where}",
            )


def _legacy(spec: Spec, evidence: Evidence) -> Iterator[Check]:
    rule, old = spec.evaluate.legacy, evidence.legacy
    if rule is None or evidence.champion_version is None:
        return
    metric = spec.primary.metric
    name = f"legacy.{metric}"
    if old is None or old.failure:
        why = old.failure if old and old.failure else "it was not given"
        sentence = f"the champion's old holdout could not be scored: {why.rstrip('. ')}"
        yield Check(name, False, None, f"<= {rule.max_regression:g}", sentence)
        return
    yield _no_regression(
        name,
        metric,
        old.challenger.get(metric, math.nan),
        old.champion.get(metric, math.nan),
        rule.max_regression,
        old.rows,
        " on the champion's old holdout",
    )


def _no_regression(
    name: str, metric: str, mine: float, theirs: float, most: float, rows: int, where: str = ""
) -> Check:
    required = f"<= {most:g}"
    if not (math.isfinite(mine) and math.isfinite(theirs)):
        return _undefined(name, metric, required, rows, where)
    regression = -float(improvement(metric, mine, theirs))
    passed = regression <= most + _ROUNDING * max(abs(mine), abs(theirs))
    change = "better" if regression < 0 else "worse"
    sentence = (
        f"{metric}{where} {number(mine)} against {number(theirs)}, {change} by "
        f"{number(abs(regression))}, may be worse by at most {most:g}"
    )
    return Check(name, passed, regression, required, sentence, "REJECT")


def _undefined(name: str, metric: str, required: str, rows: int, where: str = "") -> Check:
    return Check(name, False, None, required, f"{metric}{where} is undefined on {rows:,} rows")


def number(value: float) -> str:
    """Write a number for people: four significant digits, all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
