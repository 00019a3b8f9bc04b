"""What a pass of the monitor comes to: a verdict, and the wish to retrain where one is due. Pure functions.

Owns when drift counts (k of the last n windows, the latest among them), when decay does, and that broken data
never asks for anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from include.monitor.findings import QUALITY, Finding
from include.monitor.windows import start_of
from include.spec.schema import Drift, Spec, Violations

Verdict = Literal["OK", "WARN", "ALERT", "INSUFFICIENT_DATA"]
_SHOWN = 5


@dataclass(frozen=True)
class Wish:
    """A wish to retrain that goes to the arbiter."""

    source: Literal["drift", "decay"]
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What a pass comes to.

    Attributes:
        verdict: The most severe thing found.
        reason: One line with the numbers, for people.
        drifts: Whether this window violates; never in a broken one, where drift cannot be told.
        decays: Whether the matured window is worse than it may be.
        broken: Whether this window's data is broken: an alert of one of the `QUALITY` checks.
        wishes: What to ask the arbiter for.
    """

    verdict: Verdict
    reason: str
    drifts: bool
    decays: bool
    broken: bool
    wishes: tuple[Wish, ...]


def decide(
    spec: Spec,
    findings: Sequence[Finding],
    history: Sequence[Mapping[str, Any]],
    *,
    window: str | None = None,
    matured: str | None = None,
    matured_row: Mapping[str, Any] | None = None,
) -> Outcome:
    """Decide what one pass comes to.

    Args:
        spec: The model's spec.
        findings: Of this window, and of the matured window for coverage and performance.
        history: Payloads of the `monitor` events of this version, oldest first: `window`, `drifts`, `broken`.
        window: Key of this window. What `history` says of it, or of later ones, is left out. None where `history`
            ends with the window before this one.
        matured: Key of the window whose labels were judged; None for this very window.
        matured_row: Payload of that window's own `monitor` event, however old; it proves nothing where its data was
            broken. None where it was never judged: then nobody knows, and nothing is asked for.
    """
    rule = spec.monitor.drift.violations
    past = _windows_before(rule, history, window, spec.monitor.window)
    broken = [f for f in findings if f.check in QUALITY and f.status == "alert"]
    drift = None if broken else drift_reason(spec.monitor.drift, findings)
    decay = _decay_reason(findings)
    state = _state_of(matured_row, bool(broken), of_this=matured is None or matured == window)
    if decay is not None and state == "broken":
        decay = None
    if decay is not None and state == "unknown":
        decay += "; its window was never judged for quality, so no retrain is asked for"
    wishes: list[Wish] = []
    violating = drift is not None
    if drift is not None:
        drift = f"{drift}, {_times(count_violations(rule, violating, past), rule)}"
        if is_confirmed(rule, violating, past):
            wishes.append(Wish("drift", drift))
    if decay is not None and state == "whole" and not broken:
        wishes.append(Wish("decay", decay))
    verdict = _verdict(findings, alarming=bool(broken) or violating or decay is not None)
    return Outcome(
        verdict=verdict,
        reason=_reason(verdict, findings, broken, [r for r in (drift, decay) if r]),
        drifts=violating,
        decays=decay is not None,
        broken=bool(broken),
        wishes=tuple(wish for wish in wishes if wish.source in spec.retrain.on),
    )


# --- drift ----------------------------------------------------------------------------------------------


def drift_reason(rules: Drift, findings: Iterable[Finding]) -> str | None:
    """Return why a window violates, with the numbers; None where it does not.

    It does when enough of the features drifted, or a critical one, or the predictions. Features that could not be
    judged count as features that did not drift.
    """
    found = list(findings)
    features = [f for f in found if f.check == "drift" and f.column is not None]
    drifted = sorted((f for f in features if f.status == "alert"), key=_size, reverse=True)
    critical = [f for f in drifted if f.column in rules.critical]
    predicted = [f for f in found if f.check == "prediction_drift" and f.status == "alert"]
    reasons: list[str] = []
    if len(drifted) >= features_needed(rules, len(features)):
        reasons.append(f"{len(drifted)} of {len(features)} features drifted ({_named(drifted)})")
    elif critical:
        reasons.append(f"critical features drifted ({_named(critical)})")
    if predicted:
        reasons.append(f"predictions drifted ({_compared(predicted[0])})")
    return "; ".join(reasons) or None


def features_needed(rules: Drift, features: int) -> int:
    """Return how many of so many features must drift for the whole to count as drifted; at least one."""
    return max(1, math.ceil(rules.share * features - 1e-9))


def count_violations(
    rules: Violations, violating: bool, history: Sequence[Mapping[str, Any]]
) -> int:
    """Return how many of the last `rules.of` windows violate, this one included; broken ones never do."""
    before = history[max(0, len(history) - rules.of + 1) :] if rules.of > 1 else ()
    return violating + sum(bool(p.get("drifts")) and not p.get("broken") for p in before)


def _windows_before(
    rules: Violations,
    history: Sequence[Mapping[str, Any]],
    window: str | None,
    length: timedelta,
) -> list[Mapping[str, Any]]:
    """Return what is known of the windows that count beside this one: a gap in time is no window."""
    if window is None:
        return list(history)
    first = start_of(window) - (rules.of - 1) * length
    keys = [str(p.get("window")) for p in history]
    return [
        p for key, p in zip(keys, history, strict=True) if key < window and start_of(key) >= first
    ]


def is_confirmed(rules: Violations, violating: bool, history: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether drift counts: k of the last n windows violate, and the latest does.

    Args:
        rules: k and n.
        violating: Whether this window violates.
        history: Payloads of the windows before it, oldest first.
    """
    return violating and count_violations(rules, violating, history) >= rules.k


def _size(finding: Finding) -> float:
    return finding.value if finding.value is not None else 0.0


def _named(findings: Sequence[Finding]) -> str:
    shown = [f"{f.column} {_compared(f)}" for f in findings[:_SHOWN]]
    more = [f"and {len(findings) - _SHOWN} more"] if len(findings) > _SHOWN else []
    return ", ".join(shown + more)


def _compared(finding: Finding) -> str:
    value = "?" if finding.value is None else f"{finding.value:.3g}"
    return value if finding.threshold is None else f"{value} >= {finding.threshold:.3g}"


def _times(count: int, rules: Violations) -> str:
    wanted = f"{rules.k} needed" if count < rules.k else f"{rules.k} are enough"
    return f"in {count} of the last {rules.of} windows ({wanted})"


# --- decay ----------------------------------------------------------------------------------------------


def _decay_reason(findings: Iterable[Finding]) -> str | None:
    """Return why the matured window is too bad; its interval has proven it, so one window is enough."""
    alerts = [f for f in findings if f.check == "performance" and f.status == "alert"]
    return alerts[0].message.rstrip(".") if alerts else None


def _state_of(
    row: Mapping[str, Any] | None, broken: bool, *, of_this: bool
) -> Literal["whole", "broken", "unknown"]:
    """Return what is known of the data of the window whose labels were judged."""
    if not of_this:
        if row is None:
            return "unknown"
        broken = bool(row.get("broken"))
    return "broken" if broken else "whole"


# --- verdict --------------------------------------------------------------------------------------------


def _verdict(findings: Sequence[Finding], *, alarming: bool) -> Verdict:
    lost = any(f.check == "coverage" and f.status == "alert" for f in findings)
    if alarming or lost:
        return "ALERT"
    if any(f.status in ("alert", "warn") for f in findings):
        return "WARN"
    judged = any(f.status == "ok" and f.check not in QUALITY | {"coverage"} for f in findings)
    return "OK" if judged else "INSUFFICIENT_DATA"


def _reason(
    verdict: Verdict, findings: Sequence[Finding], broken: Sequence[Finding], alarms: Sequence[str]
) -> str:
    parts = list(alarms)
    if broken:
        parts = [f"broken data, so drift is not judged: {_messages(broken)}", *parts]
    lost = [f for f in findings if f.check == "coverage" and f.status == "alert"]
    parts += [f.message.rstrip(".") for f in lost]
    if parts:
        return "; ".join(parts)
    if verdict == "WARN":
        return _messages([f for f in findings if f.status in ("alert", "warn")])
    if verdict == "OK":
        return f"nothing found in {len(findings)} checks"
    thin = [f for f in findings if f.status == "insufficient_data"]
    return _messages(thin) if thin else "nothing was judged"


def _messages(findings: Sequence[Finding]) -> str:
    ranked = sorted(findings, key=lambda f: f.status != "alert")
    shown = [f.message.rstrip(".") for f in ranked[:_SHOWN]]
    more = [f"and {len(findings) - _SHOWN} more"] if len(findings) > _SHOWN else []
    return "; ".join(shown + more)
