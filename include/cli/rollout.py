"""`evergreen rollout`."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import click

from include.cli.display import json_option, print_json

if TYPE_CHECKING:
    from include.deploy.judge import Judgement
    from include.ledger.ledger import Ledger
    from include.registry.rollouts import Standing
    from include.settings import Settings
    from include.spec.schema import Spec


@click.command(short_help="Show a challenger's rollout, or end it.")
@click.argument("name")
@click.option("--stop", is_flag=True, help="Send the challenger home at once.")
@click.option("--promote", is_flag=True, help="Let it take over at its run's next look.")
@click.option("--reason", default="by hand", show_default=True, help="Why; kept in the ledger.")
@json_option
def command(name: str, stop: bool, promote: bool, reason: str, as_json: bool) -> None:
    """Show the rollout of the model NAME: its share, its evidence, and what the judge would say now.

    With --stop or --promote a person ends it; the run that began it sees that within minutes, and serving
    follows a stop within seconds. A run that waits for a person's answer in Airflow sees it when that is given,
    or its time is over.
    """
    from include.ledger.ledger import Ledger
    from include.registry.rollouts import latest
    from include.settings import get_settings
    from include.spec.loader import find_spec, load_spec
    from include.stack.status import running_settings

    if stop and promote:
        raise click.UsageError("--stop and --promote exclude each other.")
    settings = running_settings(get_settings())
    path = find_spec(name, settings)
    ledger = Ledger(settings.ledger_dsn)
    # A stop needs no spec, and must not fail for one that is wrong; all else is looked at before anything is written.
    spec = None if stop else load_spec(path, settings)
    if stop or promote:
        _end(settings, ledger, name, stop=stop, reason=reason)
    standing = latest(ledger, name)
    judged = parked = None
    if spec is not None and standing is not None and standing.active:
        judged = _judge(settings, spec, ledger, standing)
        parked = _parked(settings, spec, ledger, standing)
    if as_json:
        print_json(_as_json(name, standing, judged, parked))
    else:
        click.echo(_as_text(name, standing, judged, parked))
    if stop and standing is not None and standing.rollout.mode == "ab":
        page = _page(settings, standing)
        click.echo(
            f"Where its run waits for a person's answer, any answer ends it: {page}", err=True
        )


def _end(settings: Settings, ledger: Ledger, name: str, *, stop: bool, reason: str) -> None:
    from include.errors import ConflictError
    from include.registry.gateway import Registry
    from include.registry.rollouts import (
        end,
        find_promotion,
        latest,
        settle,
        wish_promotion,
    )

    actor, now = f"{getpass.getuser()} (command line)", datetime.now(UTC)
    if not stop:
        wish_promotion(ledger, name, reason=reason, actor=actor, now=now)
        return
    standing, registry = latest(ledger, name), Registry(settings.mlflow)
    if standing is not None and not standing.active:
        settle(registry, ledger, name)  # ended while MLflow was away, it may have its traffic yet
    if standing is None or not standing.active:
        raise ConflictError(
            f"rollout of {name}", "must go on to be stopped, got none", "There is nothing to do."
        )
    ended = None
    if find_promotion(ledger, name, standing) is None:
        ended = end(
            registry,
            ledger,
            name,
            standing.rollout.id,
            outcome="STOPPED",
            reason=f"{actor}: {reason}",
            actor=actor,
            now=now,
        )
    if ended is None or ended.outcome == "PROMOTED":
        raise ConflictError(
            f"rollout of {name}",
            f"must not be champion yet to be stopped, got version {standing.rollout.version} promoted",
            f"`evergreen rollback {name}` takes that back.",
        )


def _judge(settings: Settings, spec: Spec, ledger: Ledger, standing: Standing) -> Judgement:
    from include.deploy.look import look
    from include.store.files import open_store

    return look(
        spec,
        open_store(settings.store_uri, cache=settings.home / "cache"),
        mode=standing.rollout.mode,
        champion=standing.champion or "",
        challenger=standing.rollout.version,
        since=standing.since,
        now=datetime.now(UTC),
        decides=spec.deploy.decide == "labels" and _at_decision(spec, ledger, standing),
    )


def _at_decision(spec: Spec, ledger: Ledger, standing: Standing) -> bool:
    """Tell whether an ab test has passed its last step, so that `deploy.decide` is what it waits for."""
    from include.registry.judgements import let_pass

    last = len(spec.deploy.steps) - 1
    return spec.deploy.rollout == "ab" and let_pass(ledger, spec.model, standing, last)


def _parked(settings: Settings, spec: Spec, ledger: Ledger, standing: Standing) -> str | None:
    """Return the page where Airflow waits for a person's answer; None where it waits for none."""
    if spec.deploy.decide != "person" or not _at_decision(spec, ledger, standing):
        return None
    return _page(settings, standing)


def _page(settings: Settings, standing: Standing) -> str:
    dag_id, _, run_id = standing.actor.partition("/")
    url = urlsplit(settings.airflow)
    base = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
    return f"{base}/dags/{dag_id}/runs/{quote(run_id)}/tasks/deploy.decide"


def _as_json(
    name: str, standing: Standing | None, judged: Judgement | None, parked: str | None
) -> dict[str, Any]:
    if standing is None:
        return {"model": name, "rollout": None}
    said = asdict(standing) | {"began": standing.began.isoformat()}
    said["since"] = standing.since.isoformat()
    said["judgement"] = None if judged is None else asdict(judged)
    return {"model": name, **said, "asked_at": parked}


def _as_text(
    name: str, standing: Standing | None, judged: Judgement | None, parked: str | None
) -> str:
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
    if parked:
        lines.append(f"A person is asked, and until then the run waits: {parked}")
    return "\n".join([*lines, f"{judged.verdict}: {judged.reason}"])
