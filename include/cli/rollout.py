"""`evergreen rollout`."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from include.cli.display import json_option, print_json

if TYPE_CHECKING:
    from include.deploy.judge import Judgement
    from include.ledger.ledger import Ledger
    from include.registry.rollouts import Standing
    from include.settings import Settings


@click.command(short_help="Show a challenger's rollout, or end it.")
@click.argument("name")
@click.option("--stop", is_flag=True, help="Send the challenger home at once.")
@click.option("--promote", is_flag=True, help="Let it take over at its run's next look.")
@click.option("--reason", default="by hand", show_default=True, help="Why; kept in the ledger.")
@json_option
def command(name: str, stop: bool, promote: bool, reason: str, as_json: bool) -> None:
    """Show the rollout of the model NAME: its share, its evidence, and what the judge would say now.

    With --stop or --promote a person ends it; the run that began it sees that within minutes, and serving
    follows a stop within seconds.
    """
    from include.ledger.ledger import Ledger
    from include.registry.rollouts import latest
    from include.settings import get_settings
    from include.spec.loader import find_spec
    from include.stack.status import running_settings

    if stop and promote:
        raise click.UsageError("--stop and --promote exclude each other.")
    settings = running_settings(get_settings())
    find_spec(name, settings)
    ledger = Ledger(settings.ledger_dsn)
    if stop or promote:
        _end(settings, ledger, name, stop=stop, reason=reason)
    standing = latest(ledger, name)
    judged = _judge(settings, name, standing) if standing and standing.active else None
    if as_json:
        print_json(_as_json(name, standing, judged))
    else:
        click.echo(_as_text(name, standing, judged))


def _end(settings: Settings, ledger: Ledger, name: str, *, stop: bool, reason: str) -> None:
    from include.errors import ConflictError
    from include.registry.gateway import Registry
    from include.registry.rollouts import current, end, wish_promotion

    actor, now = f"{getpass.getuser()} (command line)", datetime.now(UTC)
    if not stop:
        wish_promotion(ledger, name, reason=reason, actor=actor, now=now)
        return
    standing = current(ledger, name)
    if standing is None:
        raise ConflictError(
            f"rollout of {name}", "must go on to be stopped, got none", "There is nothing to do."
        )
    end(
        Registry(settings.mlflow),
        ledger,
        name,
        standing.rollout.id,
        outcome="STOPPED",
        reason=f"{actor}: {reason}",
        actor=actor,
        now=now,
    )


def _judge(settings: Settings, name: str, standing: Standing) -> Judgement:
    from include.deploy.evidence import gather
    from include.deploy.judge import judge
    from include.spec.loader import find_spec, load_spec
    from include.store.files import open_store

    spec = load_spec(find_spec(name, settings), settings)
    evidence = gather(
        spec,
        open_store(settings.store_uri, cache=settings.home / "cache"),
        mode=standing.rollout.mode,
        champion=standing.champion or "",
        challenger=standing.rollout.version,
        since=standing.since,
    )
    age = datetime.now(UTC) - standing.since
    return judge(evidence, spec.deploy, spec.primary, age=age)


def _as_json(name: str, standing: Standing | None, judged: Judgement | None) -> dict[str, Any]:
    if standing is None:
        return {"model": name, "rollout": None}
    said = asdict(standing) | {"began": standing.began.isoformat()}
    said["since"] = standing.since.isoformat()
    return {"model": name, **said, "judgement": None if judged is None else asdict(judged)}


def _as_text(name: str, standing: Standing | None, judged: Judgement | None) -> str:
    if standing is None:
        return f"{name} never had a rollout."
    rollout, began = standing.rollout, f"{standing.began:%Y-%m-%d %H:%M}"
    if judged is None:
        how = f"{standing.outcome}: {standing.reason}"
        return f"Last rollout of {name}: version {rollout.version}, {rollout.mode}, began {began} UTC\n{how}"
    lines = [
        f"Rollout of {name}: version {rollout.version} against {standing.champion}, {rollout.mode}",
        f"{rollout.share:.0%} of the traffic since {standing.since:%Y-%m-%d %H:%M} UTC, began {began} UTC",
        f"{'':<12}{'requests':>10}{'failures':>10}{'rows':>10}{'p50 ms':>10}{'p95 ms':>10}",
    ]
    for side in ("champion", "challenger"):
        n = judged.numbers[side]
        counts = "".join(f"{n[c]:>10,}" for c in ("requests", "failures", "rows"))
        times = "".join(
            f"{'-' if n[c] is None else format(n[c], '.3g'):>10}" for c in ("p50_ms", "p95_ms")
        )
        lines.append(f"{side:<12}{counts}{times}")
    if standing.wish:
        lines.append(f"To be promoted: {standing.wish[0]}: {standing.wish[1]}")
    return "\n".join([*lines, f"{judged.verdict}: {judged.reason}"])
