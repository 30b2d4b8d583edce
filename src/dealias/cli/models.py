"""`dealias models`: list the names of networks."""

from __future__ import annotations

from typing import Annotated

import typer

from dealias.cli.common import app, say, show_table
from dealias.errors import InputError


@app.command("models")
def list_networks(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a shell pattern: resnet50, 'timm:*next*'.")] = "*",
) -> None:
    """List the networks that the other commands take by name."""
    from importlib.util import find_spec

    from dealias.models import list_models

    names = list_models(pattern)
    missing = [library for library in ("timm", "torchvision") if find_spec(library) is None]
    hint = f"; not installed: {' and '.join(missing)} (pip install 'dealias[zoo]')" if missing else ""
    if not names:
        raise InputError(f"pattern={pattern!r} matches no network: dealias models lists all names{hint}")
    show_table(("source", "model"), ((name.partition(":")[0], name) for name in names), box=None)
    say(f"{len(names)} network{'s'[: len(names) != 1]}{hint}")
