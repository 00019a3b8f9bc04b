"""`evergreen key`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from include.cli.display import json_option, print_json, print_table

if TYPE_CHECKING:
    from include.ledger.keys import ApiKey
    from include.ledger.ledger import Ledger
    from include.settings import Settings


class _Duration(click.ParamType[timedelta]):
    """A duration as a spec writes it."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Return it as a timedelta."""
        from include.spec.values import parse_duration

        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group(short_help="Manage the API keys of serving.")
def command() -> None:
    """Add, list, rotate and revoke the API keys of serving.

    On the loopback interface serving is open until a first key is added; from then on it asks everybody for one.
    Bound elsewhere it always does. Serving follows within seconds.
    """


@command.command()
@click.argument("name")
@click.option("--models", default="*", show_default=True, help="Models it may ask, by commas.")
@click.option(
    "--expires", type=_Duration(), help="How long it works, such as 90d; default: for ever."
)
@json_option
def add(name: str, models: str, expires: timedelta | None, as_json: bool) -> None:
    """Add a key for NAME, the person or program that will use it, and show it this once."""
    from include.stack.client_key import ensure_client_key

    settings, ledger = _open()
    now = datetime.now(UTC)
    scope = [each.strip() for each in models.split(",")]
    first = not ledger.api_keys() and not settings.serving_key.get_secret_value()
    key, text = ledger.add_api_key(name, scope, now=now, lifetime=expires)
    own = ensure_client_key(settings, ledger, now)
    _warn_of_strangers(scope, settings)
    if as_json:
        print_json(_shown(key, now) | {"key": text})
        return
    click.echo(text)
    click.echo(f"This is shown once. {_described(key)}", err=True)
    if own:
        where = settings.client_key_file
        click.echo(f"Deploy and the command line have key {own.id}, kept in {where}.", err=True)
    if first:
        click.echo("From now on serving asks every caller for a key.", err=True)


def _warn_of_strangers(scope: list[str], settings: Settings) -> None:
    """Say which models of a scope have no spec: a key may come before its model, but a typo locks people out."""
    from include.spec.loader import spec_paths

    known = [path.stem for path in spec_paths(settings)]
    strangers = [name for name in scope if name != "*" and name not in known]
    if strangers:
        hint = f"Known models: {', '.join(known) or 'none'}."
        click.echo(f"No spec is called {', '.join(strangers)}. {hint}", err=True)


@command.command("list")
@json_option
def show(as_json: bool) -> None:
    """List the keys; the keys themselves are kept nowhere."""
    _, ledger = _open()
    now = datetime.now(UTC)
    keys = ledger.api_keys()
    if as_json:
        print_json([_shown(key, now) for key in keys])
    elif keys:
        print_table(
            ("id", "name", "models", "since", "until"),
            [
                (
                    key.id,
                    _plain(key.name),
                    _plain(", ".join(key.models)),
                    _day(key.created_at),
                    _end(key, now),
                )
                for key in keys
            ],
        )
    else:
        click.echo(
            "No keys: on the loopback interface serving is open, elsewhere it answers nobody."
        )


@command.command()
@click.argument("id")
@json_option
def revoke(id: str, as_json: bool) -> None:
    """Remove the key ID: serving refuses it within seconds."""
    settings, ledger = _open()
    key = ledger.revoke_api_key(id)
    if as_json:
        print_json(_shown(key, datetime.now(UTC)))
        return
    click.echo(f"Key {key.id} of {key.name} is revoked.")
    if not ledger.api_keys() and not settings.serving_key.get_secret_value():
        click.echo("It was the last one: on the loopback interface serving is open now.", err=True)
    elif _is_own(key, settings):
        click.echo(
            "It was the key of deploy and of the command line: `./evergreen key add` makes them a new one.",
            err=True,
        )


@command.command()
@click.argument("id")
@click.option(
    "--grace",
    type=_Duration(),
    default="24h",
    show_default=True,
    help="How long the old key still works.",
)
@json_option
def rotate(id: str, grace: timedelta, as_json: bool) -> None:
    """Show a new key in place of the key ID, with its name, models and lifetime; both work for a while."""
    from include.stack.layout import write_private

    settings, ledger = _open()
    now = datetime.now(UTC)
    new, text, old = ledger.rotate_api_key(id, now=now, grace=grace)
    if own := _is_own(old, settings):
        write_private(settings.client_key_file, text + "\n")
    if as_json:
        print_json(_shown(new, now) | {"key": text, "replaces": _shown(old, now)})
        return
    click.echo(text)
    click.echo(f"This is shown once. {_described(new)}", err=True)
    click.echo(f"Key {old.id} works until {_minute(old.expires_at)}.", err=True)
    if own:
        click.echo("Deploy and the command line use the new one from now on.", err=True)


def _open() -> tuple[Settings, Ledger]:
    from include.ledger.ledger import Ledger
    from include.settings import get_settings

    settings = get_settings()
    return settings, Ledger(settings.ledger_dsn)


def _is_own(key: ApiKey, settings: Settings) -> bool:
    from include.ledger.keys import key_id

    return key_id(settings.client_key) == key.id


def _shown(key: ApiKey, now: datetime) -> dict[str, Any]:
    shown = asdict(key) | {"expired": key.expired(now)}
    del shown["hash"]
    return shown


def _described(key: ApiKey) -> str:
    models = "all models" if key.models == ("*",) else ", ".join(key.models)
    until = f"until {_minute(key.expires_at)}" if key.expires_at else "until it is revoked"
    return f"Key {key.id} of {key.name} may ask {models} {until}."


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _day(at: str) -> str:
    return at[:10]


def _minute(at: str | None) -> str:
    return f"{(at or '')[:16].replace('T', ' ')} UTC"


def _end(key: ApiKey, now: datetime) -> str:
    if key.expires_at is None:
        return "-"
    return f"{'expired ' if key.expired(now) else ''}{_minute(key.expires_at)}"
