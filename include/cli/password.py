"""`evergreen password`."""

from __future__ import annotations

import click

from include.cli.display import json_option, print_json


@click.command(short_help="Show the logins of the embedded stack.")
@click.argument("user", default="admin", type=click.Choice(["admin", "service", "viewer"]))
@json_option
def command(user: str, as_json: bool) -> None:
    """Show the password of USER (admin, service or viewer) of the embedded Airflow."""
    from include.errors import ServiceError
    from include.settings import get_settings
    from include.stack.credentials import read_credentials
    from include.stack.layout import get_layout

    layout = get_layout(get_settings().home)
    credentials = read_credentials(layout)
    if credentials is None:
        raise ServiceError(
            str(layout.credentials),
            "must exist, got nothing",
            "The first `./evergreen up` makes it.",
        )
    password = getattr(credentials, user)
    if as_json:
        print_json({"user": user, "password": password, "file": layout.credentials})
    else:
        click.echo(password)
        click.echo(f"(kept in {layout.credentials})", err=True)
