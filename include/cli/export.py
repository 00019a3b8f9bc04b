"""`evergreen export`."""

from __future__ import annotations

from pathlib import Path

import click

from include.cli.display import get_console, json_option, print_json


@click.command(short_help="Write a version as files for other devices.")
@click.argument("name")
@click.option("--version", help="Number or alias; without it, the champion, else the newest.")
@click.option(
    "--format", "form", type=click.Choice(["onnx"]), required=True, help="Form of the model."
)
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the files; default: NAME-VERSION here.",
)
@json_option
def command(name: str, version: str | None, form: str, to: Path | None, as_json: bool) -> None:
    """Write a version of the model NAME as one ONNX file, with a README and an example program.

    The files need ONNX Runtime and NumPy, nothing of Evergreen or scikit-learn. Nothing is written unless the file
    answers as serving does.
    """
    from include.engines.export import export_onnx
    from include.registry.gateway import Registry
    from include.registry.lookup import choose_version
    from include.serving.source import EXAMPLE_FILE, read_example
    from include.settings import get_settings
    from include.stack.status import running_settings

    settings = running_settings(get_settings())
    registry = Registry(settings.mlflow)
    found = choose_version(registry, name, version)
    fetched = registry.fetch(found, settings.home / "cache" / "models")
    title = f"{found.name}-{found.version}"
    folder = to or Path(title)
    example = read_example(fetched.folder / EXAMPLE_FILE)
    files = export_onnx(fetched.folder, fetched.meta, example, title, folder)
    if as_json:
        print_json({"model": found.name, "version": found.version, "format": form, "files": files})
        return
    console = get_console()
    for file in files:
        console.print(str(file))
    console.print(f"\nTry it: python {folder / 'example.py'}")
