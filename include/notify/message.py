"""What messages say: composed from rows of the ledger, without a word that is secret.

Owns the wording, and the key by which one event gives one message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from include.ledger.chain import Event

Kind = Literal["failure", "rejection", "promotion", "approval", "drift", "rollback"]
Links = Mapping[str, str]


@dataclass(frozen=True)
class Message:
    """One message about one event.

    Attributes:
        kind: The word of `notify.on`.
        about: What tells the event from others of its kind: a Dag run, a window, a row of the ledger.
        title: One line.
        lines: The text.
    """

    kind: Kind
    about: str
    title: str
    lines: tuple[str, ...]

    @property
    def key(self) -> str:
        """Key of the ledger's row that says it was sent."""
        return f"notified/{self.kind}/{self.about}"

    @property
    def body(self) -> str:
        """The text, as sent."""
        return "\n".join(self.lines)


def failed(
    model: str, run_key: str, *, reason: str, task: str, links: Links, try_number: int = 0
) -> Message:
    """A run failed; `task` is empty where there is none to blame.

    A run that is cleared may fail again, in another task or another try of the same one: that is another event.
    """
    dag_id, _, run_id = run_key.partition("/")
    lines = [reason, *([f"Task {task}"] if task else []), f"Run {run_id}"]
    about = f"{run_key}/{task}/{try_number}" if task else run_key
    return _message("failure", about, f"{model}: {dag_id} failed", lines, links)


def rejected(model: str, run_key: str, verdict: Event, links: Links) -> Message:
    """The gate said `REJECT` or `HOLD`."""
    said = verdict.payload
    title = f"{model}: not promoted ({said['verdict']})"
    lines = [said["reason"], *comparison(said.get("page"))]
    return _message("rejection", f"{run_key}/{verdict.seq}", title, lines, links)


def declined(
    model: str, run_key: str, answer: Event, verdict: Event | None, links: Links
) -> Message:
    """A person said no, or nobody answered in time."""
    version = answer.payload["version"]
    lines = [f"Version {version} was not approved: {answer.actor}"]
    lines += _passed(verdict)
    title = f"{model}: version {version} was not approved"
    return _message("rejection", f"{run_key}/{answer.seq}", title, lines, links)


def waiting(
    model: str,
    run_key: str,
    *,
    version: str,
    reason: str,
    verdict: Event | None,
    until: str,
    links: Links,
) -> Message:
    """A version waits for a person's yes."""
    lines = [reason, *comparison(verdict.payload.get("page") if verdict else None)]
    lines.append(f"No answer within {until} is a no.")
    title = f"{model}: version {version} waits for approval"
    return _message("approval", f"{run_key}/{version}", title, lines, links)


def promoted(model: str, run_key: str, move: Event, verdict: Event | None, links: Links) -> Message:
    """A version became champion."""
    before, after = move.payload["from"], move.payload["to"]
    replaces = f"It replaces version {before}." if before else "It is the first champion."
    lines = [move.payload["reason"], *_passed(verdict)[1:], replaces]
    title = f"{model}: version {after} is champion"
    return _message("promotion", f"{run_key}/{move.seq}", title, lines, links)


def rolled_back(model: str, about: str, move: Event, links: Links) -> Message:
    """The champion went back to an earlier version, or away."""
    before, after = move.payload["from"], move.payload["to"]
    title = f"{model}: back to version {after}" if after else f"{model}: no champion is left"
    lines = [
        f"Version {before} was taken back: {move.payload['reason']}",
        f"By {move.actor}",
    ]
    return _message("rollback", about, title, lines, links)


def sent_home(
    model: str,
    about: str,
    *,
    version: str,
    champion: str,
    reason: str,
    kind: Kind,
    links: Links,
) -> Message:
    """A challenger's rollout was stopped; the champion has all traffic."""
    title = f"{model}: version {version} goes home, version {champion} stays"
    return _message(kind, about, title, [reason], links)


def alerted(
    model: str, run_key: str, outcome: Mapping[str, Any], links: Links, *, forced: bool = False
) -> Message:
    """The monitor saw drift, decay or broken data.

    Args:
        model: The model.
        run_key: The monitor's run; tells the event from others where the outcome has no window, or where
            the window was judged before.
        outcome: What the ledger's `monitor` row says.
        links: Pages to look at.
        forced: The run judged whether or not the window was judged before.
    """
    flags = {"broken": "broken data", "decays": "decay", "drifts": "drift"}
    what = " and ".join(word for flag, word in flags.items() if outcome.get(flag)) or "alert"
    version, window = outcome.get("version"), outcome.get("window")
    lines = [str(outcome["reason"])]
    if outcome.get("start") and outcome.get("end"):
        lines.append(f"Window {outcome['start']} to {outcome['end']}: {outcome.get('rows')} rows")
    if version:
        lines.append(f"Version {version}")
    counts = ", ".join(f"{n} {status}" for status, n in (outcome.get("findings") or {}).items())
    if counts:
        lines.append(f"Findings: {counts}")
    wishes = outcome.get("wishes") or ()
    lines += [f"A retrain is asked for: {wish['reason']}" for wish in wishes]
    about = f"{version}/{window}" if version and window else run_key
    if forced and about != run_key:
        about += f"/{run_key}"
    return _message("drift", about, f"{model}: {what}", lines, links)


def comparison(page: Mapping[str, Any] | None) -> list[str]:
    """Return the primary metric of both models and the interval of their difference, as lines.

    Args:
        page: What `verdict.json` holds; None for a verdict written down without it.
    """
    if not page:
        return []
    metric, champion = page["primary"]["metric"], page.get("champion") or {}
    ours = page["challenger"]["metrics"].get(metric)
    if champion:
        name, theirs = f"champion, version {champion['version']}", champion.get("metrics") or {}
        interval = page.get("against_champion")
    else:
        name, theirs = "trivial baseline", page["baseline"]["metrics"]
        interval = page.get("against_baseline")
    lines = [f"{metric}: {_number(ours)} (challenger), {_number(theirs.get(metric))} ({name})"]
    if interval:
        low, high = _number(interval["low"]), _number(interval["high"])
        share = f"{interval['confidence']:.0%}"
        lines.append(
            f"Improvement {_number(interval['improvement'])}, {share} interval {low} to {high}, "
            f"on {page['rows']:,} rows"
        )
    return lines


def _passed(verdict: Event | None) -> list[str]:
    if verdict is None:
        return [""]
    return [verdict.payload["reason"], *comparison(verdict.payload.get("page"))]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"


def _message(kind: Kind, about: str, title: str, lines: Sequence[str], links: Links) -> Message:
    linked = [f"{name}: {url}" for name, url in links.items() if url]
    return Message(kind, about, title, tuple(line for line in (*lines, *linked) if line))
